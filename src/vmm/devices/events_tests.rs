use super::*;

/// Remembers how the line was driven.
#[derive(Clone, Default)]
struct Line(Arc<Mutex<Vec<bool>>>);

impl LevelLine for Line {
    fn set(&self, raised: bool) {
        self.0.lock().unwrap().push(raised);
    }
}

impl Line {
    fn take(&self) -> Vec<bool> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

struct Fixture {
    line: Line,
    events: Arc<Events>,
    ejected: Arc<Mutex<Vec<u32>>>,
    registers: EventRegisters,
}

fn fixture() -> Fixture {
    let line = Line::default();
    let events = Arc::new(Events::new(Box::new(line.clone())));
    let ejected = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&ejected);
    let registers = EventRegisters::new(Arc::clone(&events), move |slots| sink.lock().unwrap().push(slots));
    Fixture { line, events, ejected, registers }
}

fn read(registers: &mut EventRegisters, offset: u64) -> u32 {
    let mut data = [0; 4];
    registers.read(offset, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn the_line_is_raised_until_everything_was_read() {
    let Fixture { line, events, mut registers, .. } = fixture();
    events.press_power_button();
    events.plugged(6);
    events.plugged(31);
    events.request_eject(0);
    events.request_eject(32);
    assert_eq!(line.take(), [true]);
    assert_eq!(read(&mut registers, BUTTONS), POWER_BUTTON);
    assert_eq!(read(&mut registers, PLUGGED), 1 << 31 | 1 << 6);
    assert!(line.take().is_empty());
    assert_eq!(read(&mut registers, EJECT_REQUESTED), 1);
    assert_eq!(line.take(), [false]);
    for offset in [BUTTONS, PLUGGED, EJECT_REQUESTED, EJECT] {
        assert_eq!(read(&mut registers, offset), 0, "reading clears");
    }
    assert!(line.take().is_empty());
    events.plugged(6);
    assert_eq!(line.take(), [true]);
}

#[test]
fn only_whole_registers_count() {
    let Fixture { line, events, ejected, mut registers } = fixture();
    events.plugged(6);
    for (offset, length) in [(4, 1), (4, 2), (4, 8), (5, 4), (0, 8), (16, 4)] {
        let mut data = [0; 8];
        registers.read(offset, &mut data[..length]);
        assert!(data[..length].iter().all(|b| *b == 0xFF));
        assert_eq!(registers.write(offset, &data[..length]), Action::None);
    }
    for offset in [0, 4, 8, 13] {
        let _ = registers.write(offset, &[0xFF; 4]);
    }
    assert_eq!(line.take(), [true], "nothing was cleared");
    assert!(ejected.lock().unwrap().is_empty());
    let _ = registers.write(EJECT, &0xFFFF_FFFFu32.to_le_bytes());
    assert_eq!(*ejected.lock().unwrap(), [u32::MAX]);
}
