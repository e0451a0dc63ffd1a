use std::sync::Mutex;

use super::*;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<Vec<u8>>>>);

impl ConsoleSink for Sink {
    fn write(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().push(bytes.to_vec());
    }
}

fn serial() -> (Serial, Sink, Arc<EventFd>) {
    let (sink, line) = (Sink::default(), Arc::new(EventFd::new(libc::EFD_NONBLOCK).unwrap()));
    (Serial::new(line.clone(), Box::new(sink.clone())), sink, line)
}

fn get(serial: &mut Serial, offset: u64) -> u8 {
    let mut data = [0];
    serial.read(offset, &mut data);
    data[0]
}

const IER: u64 = 1;
const LSR: u64 = 5;
const DATA_READY: u8 = 1;

#[test]
fn a_burst_reaches_the_sink_in_one_piece() {
    let (mut serial, sink, _) = serial();
    for byte in b"hello" {
        serial.write_register(DATA_OFFSET, *byte);
    }
    assert!(sink.0.lock().unwrap().is_empty());
    serial.flush();
    let _ = serial.write(0, b"!");
    assert_eq!(*sink.0.lock().unwrap(), [b"hello".to_vec(), b"!".to_vec()]);
}

#[test]
fn a_line_is_one_burst_though_the_status_is_read_before_each_byte() {
    let (mut serial, sink, _) = serial();
    for byte in b"line\n" {
        get(&mut serial, 5);
        serial.write_register(DATA_OFFSET, *byte);
    }
    get(&mut serial, 5);
    assert!(sink.0.lock().unwrap().is_empty());
    get(&mut serial, 5);
    assert_eq!(*sink.0.lock().unwrap(), [b"line\n".to_vec()]);
}

#[test]
fn output_is_held_back_to_a_bound() {
    let (mut serial, sink, _) = serial();
    for _ in 0..BURST + 1 {
        serial.write_register(DATA_OFFSET, b'x');
    }
    assert_eq!(sink.0.lock().unwrap().len(), 1);
}

#[test]
fn long_input_arrives_whole_and_interrupts() {
    let (mut serial, _, line) = serial();
    let _ = serial.write(IER, &[1]);
    let text: Vec<u8> = (0..200u8).collect();
    assert_eq!(serial.input(&text), 200);
    assert!(line.read().is_ok());
    let mut seen = Vec::new();
    while get(&mut serial, LSR) & DATA_READY != 0 {
        seen.push(get(&mut serial, 0));
    }
    assert_eq!(seen, text);
}

#[test]
fn input_nobody_reads_is_bounded() {
    let (mut serial, _, _) = serial();
    let taken = serial.input(&vec![0; 1 << 20]);
    assert!(taken <= MAX_PENDING_INPUT);
    assert!(serial.input(&vec![0; 1 << 20]) <= 64);
    assert_eq!(serial.input(b"x"), 0);
}
