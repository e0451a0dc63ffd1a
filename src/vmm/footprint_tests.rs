use super::*;

const PAGE: u64 = 4096;

fn header(p_type: u32, p_flags: u32, p_vaddr: u64, p_memsz: u64) -> libc::Elf64_Phdr {
    libc::Elf64_Phdr { p_type, p_flags, p_vaddr, p_memsz, p_offset: 0, p_paddr: 0, p_filesz: p_memsz, p_align: PAGE }
}

#[test]
fn only_whole_pages_that_nobody_writes() {
    let base = 0x7000_0000;
    let code = header(libc::PT_LOAD, libc::PF_R | libc::PF_X, PAGE / 2, 3 * PAGE);
    assert_eq!(unwritten(base, &code), Some(base + 4096..base + 3 * 4096));
    let constants = header(libc::PT_LOAD, libc::PF_R, 0, 2 * PAGE);
    assert_eq!(unwritten(base, &constants), Some(base..base + 2 * 4096));
    let relocated = header(libc::PT_LOAD, libc::PF_R | libc::PF_W, 0, 2 * PAGE);
    assert_eq!(unwritten(base, &relocated), None);
    assert_eq!(unwritten(base, &header(libc::PT_TLS, libc::PF_R, 0, 2 * PAGE)), None);
    assert_eq!(unwritten(base, &header(libc::PT_LOAD, libc::PF_R, PAGE / 2, PAGE)), None, "no whole page");
}

/// KiB of this process's memory that are pages of files.
fn file_pages() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn the_program_goes_on_with_less() {
    // Tests beside this one use the program, too: what they fetch back meanwhile may outweigh it, but not each time.
    let less = (0..20).any(|_| {
        let before = file_pages();
        give_back();
        file_pages() < before
    });
    assert!(less);
}
