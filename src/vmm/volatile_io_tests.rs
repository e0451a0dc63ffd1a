use std::io::Write;
use std::os::fd::AsFd;

use super::*;

fn file_with(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn moves_through_many_uneven_slices_in_rounds() {
    let content: Vec<u8> = (0..5000u32).map(|i| (i * 7 % 251) as u8).collect();
    let file = file_with(&content);
    let mut back = vec![0; content.len()];
    {
        // 700 slices: more than one system call takes, of 1 to 13 bytes, some empty.
        let mut slices = Vec::new();
        let mut rest = &mut back[..];
        for i in 0..700 {
            let n = (i * 5 % 14).min(rest.len());
            let (head, tail) = rest.split_at_mut(n);
            slices.push(VolatileSlice::from(head));
            rest = tail;
        }
        slices.push(VolatileSlice::from(rest));
        read_exact_at(file.as_fd(), &slices, 0, Wait::Allowed).unwrap();
        let copy = tempfile::tempfile().unwrap();
        write_all_at(copy.as_fd(), &slices, 0, Wait::Allowed).unwrap();
        let mut again = vec![0; content.len()];
        read_exact_at(copy.as_fd(), &[VolatileSlice::from(&mut again[..])], 0, Wait::Allowed).unwrap();
        assert_eq!(again, content);
    }
    assert_eq!(back, content);
}

#[test]
fn a_window_reads_only_its_bytes() {
    let file = file_with(b"abcdefghij");
    let (mut a, mut b, mut c) = ([b'.'; 3], [b'.'; 3], [b'.'; 3]);
    let slices = [VolatileSlice::from(&mut a[..]), VolatileSlice::from(&mut b[..]), VolatileSlice::from(&mut c[..])];
    let window = Window::whole(&slices).unwrap().split_at(2).1.split_at(5).0;
    assert_eq!(window.len(), 5);
    read_window_at(file.as_fd(), window, 1, Wait::Allowed).unwrap();
    window.split_at(4).1.zero();
    assert_eq!((&a, &b, &c), (b"..b", b"cde", b"\0.."));
}

#[test]
fn the_end_of_the_file_is_an_error() {
    let file = file_with(b"abc");
    let mut buf = [0; 4];
    let slices = [VolatileSlice::from(&mut buf[..])];
    let error = read_exact_at(file.as_fd(), &slices, 0, Wait::Allowed).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    let error = read_exact_at(file.as_fd(), &slices, u64::MAX, Wait::Allowed).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}
