use proptest::prelude::*;
use vmm_sys_util::eventfd::EventFd;

use super::*;

const MMIO32: Range<u64> = 0xc000_0000..0xc010_0000;
const MMIO64: Range<u64> = 0x80_0000_0000..0x80_0010_0000;

/// A function whose BAR registers remember the last access.
struct Probe {
    config: ConfigSpace,
    last: (usize, u64, Vec<u8>),
    doorbells: Vec<Doorbell>,
    direct: Option<Arc<Direct>>,
}

/// Takes writes at even offsets.
#[derive(Default)]
struct Direct(Mutex<Vec<(usize, u64, Vec<u8>)>>);

impl DirectWrites for Direct {
    fn write(&self, bar: usize, offset: u64, data: &[u8]) -> bool {
        let takes = offset.is_multiple_of(2);
        if takes {
            self.0.lock().unwrap().push((bar, offset, data.to_vec()));
        }
        takes
    }
}

impl Probe {
    fn with_bars(bars: &[(usize, u64, BarKind)]) -> Arc<Mutex<Probe>> {
        let mut config = ConfigSpace::new(Identity { vendor: 0x1d0f, device: 0x8061, ..Identity::default() });
        for (index, size, kind) in bars {
            config.add_bar(*index, *size, *kind).unwrap();
        }
        Arc::new(Mutex::new(Probe { config, last: (0, 0, Vec::new()), doorbells: Vec::new(), direct: None }))
    }
}

impl PciFunction for Probe {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        data.fill(0x5a);
        self.last = (bar, offset, Vec::new());
    }
    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) {
        self.last = (bar, offset, data.to_vec());
    }
    fn doorbells(&self) -> Vec<Doorbell> {
        self.doorbells.clone()
    }
    fn direct_writes(&self) -> Option<Arc<dyn DirectWrites>> {
        self.direct.clone().map(|direct| direct as Arc<dyn DirectWrites>)
    }
    fn shutdown(&mut self) {
        self.last = (99, 0, Vec::new());
    }
}

/// Remembers which addresses have doorbells.
#[derive(Default)]
struct Registered(Mutex<Vec<u64>>);

impl IoEventFds for Registered {
    fn register(&self, address: u64, _: &Doorbell) -> io::Result<()> {
        self.0.lock().unwrap().push(address);
        Ok(())
    }
    fn unregister(&self, address: u64, _: &Doorbell) -> io::Result<()> {
        let mut all = self.0.lock().unwrap();
        let index = all.iter().position(|a| *a == address).ok_or(io::ErrorKind::NotFound)?;
        all.remove(index);
        Ok(())
    }
}

fn root() -> PciRoot {
    PciRoot::new(MMIO32, MMIO64, Arc::new(NoIoEventFds))
}

fn read_u32(root: &PciRoot, offset: u64) -> u32 {
    let mut data = [0; 4];
    root.ecam_read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn write_u32(root: &PciRoot, offset: u64, value: u32) {
    root.ecam_write(offset, &value.to_le_bytes());
}

const SMALL: (usize, u64, BarKind) = (0, 0x1000, BarKind::Mmio32);

#[test]
fn both_ways_to_configuration_space_agree() {
    let root = root();
    root.add(5, Probe::with_bars(&[SMALL])).unwrap();
    assert_eq!(read_u32(&root, 0), 0x1237_8086, "host bridge");
    assert_eq!(read_u32(&root, 5 << 15), 0x8061_1d0f);
    for absent in [1 << 15, 5 << 15 | 1 << 12, 1 << 20 | 5 << 15, 1 << 40] {
        assert_eq!(read_u32(&root, absent), u32::MAX);
    }
    let mut two_words = [0; 8];
    root.ecam_read(5 << 15, &mut two_words);
    assert_eq!(u32::from_le_bytes(two_words[..4].try_into().unwrap()), 0x8061_1d0f);

    root.port_write(0xcf8, &0x8000_2801_u32.to_le_bytes());
    let mut address = [0; 4];
    root.port_read(0xcf8, &mut address);
    assert_eq!(u32::from_le_bytes(address), 0x8000_2800);
    let mut device = [0; 2];
    root.port_read(0xcfe, &mut device);
    assert_eq!(device, [0x61, 0x80]);
    let mut too_wide = [0; 4];
    root.port_read(0xcfe, &mut too_wide);
    assert_eq!(too_wide, [0xff; 4]);
    root.port_write(0xcf8, &0x8000_283c_u32.to_le_bytes());
    root.port_write(0xcfc, &[11]);
    assert_eq!(read_u32(&root, 5 << 15 | 0x3c), 11);
    root.port_write(0xcf8, &0x0000_2800_u32.to_le_bytes());
    root.port_read(0xcfc, &mut address);
    assert_eq!(address, [0xff; 4], "not enabled");
}

#[test]
fn bars_get_addresses_and_are_reached_once_decoding_is_on() {
    let root = root();
    let probe = Probe::with_bars(&[SMALL, (2, 0x4000, BarKind::Mmio64 { prefetchable: false })]);
    root.add(4, probe.clone()).unwrap();
    let (low, high) = (MMIO32.start, MMIO64.start);
    let mut data = [0; 4];
    assert!(!root.mmio_read(low, &mut data), "decoding is off");

    write_u32(&root, 4 << 15 | 4, 2);
    assert!(root.mmio_read(low + 0xffc, &mut data));
    assert_eq!((data, probe.lock().unwrap().last.1), ([0x5a; 4], 0xffc));
    assert!(!root.mmio_read(low + 0xffe, &mut data), "runs over the end");
    assert!(!root.mmio_read(low - 2, &mut data), "begins before");
    assert!(root.mmio_write(high + 0x10, &[7, 8]));
    assert_eq!(probe.lock().unwrap().last, (2, 0x10, vec![7, 8]));
    assert!(!root.mmio_write(u64::MAX - 1, &[0; 4]));

    root.shutdown();
    assert_eq!(probe.lock().unwrap().last.0, 99);
}

#[test]
fn direct_writes_need_no_lock() {
    let root = root();
    let probe = Probe::with_bars(&[SMALL]);
    let direct = Arc::new(Direct::default());
    probe.lock().unwrap().direct = Some(direct.clone());
    root.add(4, probe.clone()).unwrap();
    write_u32(&root, 4 << 15 | 4, 2);
    {
        let _held = probe.lock().unwrap();
        assert!(root.mmio_write(MMIO32.start + 4, &[1, 2]));
    }
    assert_eq!(*direct.0.lock().unwrap(), [(0, 4, vec![1, 2])]);
    assert!(root.mmio_write(MMIO32.start + 5, &[3]));
    assert_eq!(probe.lock().unwrap().last, (0, 5, vec![3]));
}

#[test]
fn moved_bars_follow_and_overlaps_are_not_decoded_twice() {
    let root = root();
    let (first, second) = (Probe::with_bars(&[SMALL]), Probe::with_bars(&[SMALL]));
    root.add(1, first.clone()).unwrap();
    root.add(2, second.clone()).unwrap();
    write_u32(&root, 1 << 15 | 4, 2);
    write_u32(&root, 2 << 15 | 4, 2);
    assert!(root.mmio_write(0xc000_1000, &[2]));
    assert_eq!(second.lock().unwrap().last.2, [2]);

    write_u32(&root, 2 << 15 | 0x10, 0xc000_0000);
    assert!(root.mmio_write(0xc000_0000, &[1]));
    assert_eq!(first.lock().unwrap().last.2, [1], "the lower slot wins");
    assert!(!root.mmio_write(0xc000_1000, &[3]));

    write_u32(&root, 1 << 15 | 0x10, 0xc008_0000);
    assert!(root.mmio_write(0xc000_0000, &[4]));
    assert_eq!(second.lock().unwrap().last.2, [4], "appears when the other leaves");

    for outside in [0x1000, 0xc010_0000, 0xffff_f000] {
        write_u32(&root, 2 << 15 | 0x10, outside);
        assert!(!root.mmio_write(outside.into(), &[5]));
    }
}

#[test]
fn doorbells_move_with_their_bar() {
    let registered = Arc::new(Registered::default());
    let root = PciRoot::new(MMIO32, 0..0, registered.clone());
    let probe = Probe::with_bars(&[(0, 0x2000, BarKind::Mmio64 { prefetchable: false }), (2, 0x1000, BarKind::Mmio32)]);
    let fd = Arc::new(EventFd::new(0).unwrap());
    probe.lock().unwrap().doorbells = vec![Doorbell { bar: 0, offset: 0x1000, length: 4, datamatch: None, fd }];
    root.add(3, probe).unwrap();
    assert!(registered.0.lock().unwrap().is_empty());
    write_u32(&root, 3 << 15 | 4, 2);
    assert_eq!(*registered.0.lock().unwrap(), [0xc000_1000]);
    write_u32(&root, 3 << 15 | 0x10, 0xc004_0000);
    write_u32(&root, 3 << 15 | 4, 6);
    assert_eq!(*registered.0.lock().unwrap(), [0xc004_1000]);
    write_u32(&root, 3 << 15 | 4, 0);
    assert!(registered.0.lock().unwrap().is_empty());
}

#[test]
fn what_does_not_fit_is_refused() {
    let root = root();
    root.add(1, Probe::with_bars(&[SMALL])).unwrap();
    assert_eq!(root.add(1, Probe::with_bars(&[SMALL])), Err(RootError::SlotTaken(1)));
    assert_eq!(root.add(0, Probe::with_bars(&[SMALL])), Err(RootError::SlotTaken(0)));
    assert_eq!(root.add(32, Probe::with_bars(&[SMALL])), Err(RootError::SlotTaken(32)));
    let large = Probe::with_bars(&[(0, 0x20_0000, BarKind::Mmio32)]);
    assert_eq!(root.add(2, large), Err(RootError::NoAddress { slot: 2, bar: 0, size: 0x20_0000 }));
}

#[test]
fn a_function_that_was_removed_is_gone_with_its_bars() {
    let registered = Arc::new(Registered::default());
    let root = PciRoot::new(MMIO32, MMIO64, registered.clone());
    let probe = Probe::with_bars(&[(0, 0x2000, BarKind::Mmio32)]);
    let fd = Arc::new(EventFd::new(0).unwrap());
    probe.lock().unwrap().doorbells = vec![Doorbell { bar: 0, offset: 0x1000, length: 4, datamatch: None, fd }];
    root.plug(3, probe.clone()).unwrap();
    assert_eq!(read_u32(&root, 3 << 15 | 0x10), 0, "the guest assigns addresses");
    write_u32(&root, 3 << 15 | 0x10, 0xc004_0000);
    write_u32(&root, 3 << 15 | 4, 2);
    assert!(root.mmio_read(0xc004_0000, &mut [0; 4]));
    assert_eq!(root.plug(3, Probe::with_bars(&[SMALL])), Err(RootError::SlotTaken(3)));

    drop(root.remove(3).unwrap());
    assert_eq!((read_u32(&root, 3 << 15), Arc::strong_count(&probe)), (u32::MAX, 1));
    assert!(!root.mmio_read(0xc004_0000, &mut [0; 4]));
    assert!(registered.0.lock().unwrap().is_empty());
    assert!(root.remove(3).is_none() && root.remove(0).is_none() && root.remove(200).is_none());
}

/// A function that is replaced while its configuration space is written.
struct Leaving {
    config: ConfigSpace,
    root: Arc<PciRoot>,
    next: Arc<Mutex<Probe>>,
}

impl PciFunction for Leaving {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.config.write(offset, data);
        if self.root.remove(3).is_some() {
            self.root.plug(3, self.next.clone()).unwrap();
        }
    }
    fn read_bar(&mut self, _: usize, _: u64, _: &mut [u8]) {}
    fn write_bar(&mut self, _: usize, _: u64, _: &[u8]) {}
    fn shutdown(&mut self) {}
}

#[test]
fn a_late_write_does_not_map_the_next_function() {
    let root = Arc::new(root());
    let next = Probe::with_bars(&[SMALL]);
    let mut config = ConfigSpace::new(Identity::default());
    config.add_bar(0, 0x1000, BarKind::Mmio32).unwrap();
    config.set_bar_address(0, 0xc000_4000);
    let leaving = Leaving { config, root: root.clone(), next };
    root.plug(3, Arc::new(Mutex::new(leaving))).unwrap();
    write_u32(&root, 3 << 15 | 4, 2);
    assert_eq!(read_u32(&root, 3 << 15), 0x8061_1d0f, "the next one is there");
    assert!(!root.mmio_read(0xc000_4000, &mut [0; 4]), "and decodes nothing yet");
}

proptest! {
    #[test]
    fn garbage_never_maps_two_bars_to_one_address(
        writes in proptest::collection::vec((1u64..4, 0u64..0x30, any::<u32>(), any::<bool>(), 1usize..=8), 0..100),
    ) {
        let registered = Arc::new(Registered::default());
        let root = PciRoot::new(MMIO32, MMIO64, registered.clone());
        for slot in 1..4 {
            let probe = Probe::with_bars(&[SMALL, (2, 0x4000, BarKind::Mmio64 { prefetchable: true })]);
            let fd = Arc::new(EventFd::new(0).unwrap());
            probe.lock().unwrap().doorbells = vec![Doorbell { bar: 2, offset: 8, length: 4, datamatch: None, fd }];
            root.add(slot, probe).unwrap();
        }
        for (slot, register, value, near, length) in writes {
            let value = if near { 0xc000_0000 | value & 0xf_ffff } else { value };
            root.ecam_write(slot << 15 | register, &u64::from(value).to_le_bytes()[..length]);
            root.port_write((0xcf8 + register % 8) as u16, &value.to_le_bytes()[..length.min(4)]);
            root.mmio_write(value.into(), &[0; 4]);
            root.read_map(|map| {
                for pair in map.decoded.windows(2) {
                    assert!(pair[0].range.end <= pair[1].range.start);
                }
                let doorbells = map.decoded.iter().filter(|m| m.id.1 == 2).count();
                assert_eq!(registered.0.lock().unwrap().len(), doorbells);
            });
        }
    }
}
