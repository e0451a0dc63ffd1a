use std::sync::atomic::Ordering;

use super::super::device::BusDevice;
use super::super::devices::events::{EJECT_REQUESTED, EventRegisters, PLUGGED};
use super::super::interrupt::LevelLine;
use super::super::nvme::testing::MemoryDisk;
use super::super::pci::root::NoIoEventFds;
use super::super::pci::testing::TestRouter;
use super::*;

const ROOT: u8 = 4;
const LONG: Duration = Duration::from_secs(60);

struct NoLine;

impl LevelLine for NoLine {
    fn set(&self, _: bool) {}
}

struct Fixture {
    hotplug: Arc<Hotplug>,
    pci: Arc<PciRoot>,
    router: Arc<TestRouter>,
    registers: EventRegisters,
    heard: Receiver<MachineEvent>,
}

fn volume(slot: u8, backend: Arc<MemoryDisk>) -> VolumeConfig {
    let identity = VolumeIdentity::Ebs { volume_id: "vol-0123456789abcdef0".into(), device_name: "/dev/sdf".into() };
    VolumeConfig { slot, identity, backend }
}

/// A machine with a root volume in slot 4, an instance-store disk in 6 and a data volume in 7; slots from 7 on may change.
fn fixture() -> Fixture {
    let pci = Arc::new(PciRoot::new(0xC000_0000..0xD000_0000, 0..0, Arc::new(NoIoEventFds)));
    let (router, events) = (TestRouter::new(), Arc::new(Events::new(Box::new(NoLine))));
    let memory = super::super::memory::allocate(64 << 20).unwrap();
    let hotplug = Hotplug::new(Arc::clone(&pci), router.clone(), memory, 2, Arc::clone(&events));
    let hotplug = Arc::new(hotplug);
    assert!(!hotplug.add(volume(ROOT, MemoryDisk::new()), true).unwrap());
    let store = VolumeIdentity::InstanceStore { serial: "AWS0123456789abcdef01".into() };
    let store = VolumeConfig { slot: 6, identity: store, backend: MemoryDisk::new() };
    assert!(!hotplug.add(store, false).unwrap());
    assert!(hotplug.add(volume(7, MemoryDisk::new()), false).unwrap());
    hotplug.set_changeable(&(7..SLOTS).collect::<Vec<_>>());
    let eject = {
        let hotplug = Arc::clone(&hotplug);
        move |slots| hotplug.ejected(slots)
    };
    let registers = EventRegisters::new(events, eject);
    let heard = hotplug.listen();
    Fixture { hotplug, pci, router, registers, heard }
}

impl Fixture {
    fn read(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.registers.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn eject(&mut self, slots: u32) {
        let _ = self.registers.write(super::super::devices::events::EJECT, &slots.to_le_bytes());
    }

    /// Vendor and device in a slot, as the guest sees them.
    fn id(&self, slot: u8) -> u32 {
        let mut data = [0; 4];
        self.pci.ecam_read(u64::from(slot) << 15, &mut data);
        u32::from_le_bytes(data)
    }

    /// Switch MSI-X on and unmask a vector: the function has a line then.
    fn take_a_line(&self, slot: u8) {
        let at = u64::from(slot) << 15;
        let mut pointer = [0];
        self.pci.ecam_read(at + 0x34, &mut pointer);
        self.pci.ecam_write(at + 0x10, &0xC800_0000u32.to_le_bytes());
        self.pci.ecam_write(at + 4, &2u16.to_le_bytes());
        self.pci.ecam_write(at + u64::from(pointer[0]) + 2, &0x8000u16.to_le_bytes());
        assert!(self.pci.mmio_write(0xC800_2000 + 12, &0u32.to_le_bytes()));
    }
}

const EBS: u32 = 0x8061_1D0F;

#[test]
fn a_volume_comes_and_goes() {
    let mut f = fixture();
    let disk = MemoryDisk::new();
    assert_eq!((f.id(8), f.hotplug.free_slots().first()), (u32::MAX, Some(&8)));
    f.hotplug.attach(volume(8, disk.clone())).unwrap();
    assert_eq!((f.id(8), f.read(PLUGGED), f.read(EJECT_REQUESTED)), (EBS, 1 << 8, 0));
    f.take_a_line(8);
    assert_eq!(f.router.allocated(), 1);

    f.hotplug.request_detach(8).unwrap();
    f.hotplug.request_detach(8).unwrap();
    assert_eq!((f.id(8), f.read(EJECT_REQUESTED)), (EBS, 1 << 8), "the guest takes its time");
    assert!(!f.hotplug.wait_detached(8, Duration::ZERO));
    f.eject(1 << 8);
    assert_eq!(f.id(8), u32::MAX);
    assert_eq!(f.heard.recv_timeout(LONG), Ok(MachineEvent::Detached(8)));
    assert_eq!((Arc::strong_count(&disk), f.router.allocated()), (1, 0));
    assert!(f.hotplug.wait_detached(8, Duration::ZERO));

    f.hotplug.attach(volume(8, disk)).unwrap();
    assert_eq!((f.id(8), f.read(PLUGGED)), (EBS, 1 << 8));
}

#[test]
fn one_that_is_pulled_keeps_its_slot_until_the_guest_has_noticed() {
    let mut f = fixture();
    let disk = MemoryDisk::new();
    f.hotplug.attach(volume(8, disk.clone())).unwrap();
    f.hotplug.force_detach(8).unwrap();
    f.hotplug.force_detach(8).unwrap();
    assert!(f.hotplug.wait_detached(8, LONG));
    assert_eq!((f.id(8), Arc::strong_count(&disk), f.read(EJECT_REQUESTED)), (u32::MAX, 1, 1 << 8));
    assert_eq!(f.heard.try_recv(), Ok(MachineEvent::Detached(8)));
    let again = f.hotplug.attach(volume(8, disk.clone()));
    assert!(matches!(again, Err(HotplugError::Leaving(8))), "{again:?}");
    f.hotplug.request_detach(8).unwrap();
    assert_eq!(f.read(EJECT_REQUESTED), 1 << 8, "the guest is reminded");
    f.eject(1 << 8);
    f.hotplug.attach(volume(8, disk)).unwrap();
    assert!(f.heard.try_recv().is_err(), "told once");
}

#[test]
fn what_stays_stays() {
    let mut f = fixture();
    for slot in [ROOT, 6] {
        assert!(matches!(f.hotplug.request_detach(slot), Err(HotplugError::Fixed(_))));
        assert!(matches!(f.hotplug.force_detach(slot), Err(HotplugError::Fixed(_))));
    }
    for slot in [0, 5, 6, 32, 255] {
        let refused = f.hotplug.attach(volume(slot, MemoryDisk::new()));
        assert!(matches!(refused, Err(HotplugError::Fixed(_))), "{slot}: {refused:?}");
    }
    assert!(matches!(f.hotplug.attach(volume(7, MemoryDisk::new())), Err(HotplugError::Taken(7))));
    assert!(matches!(f.hotplug.request_detach(8), Err(HotplugError::Empty(8))));
    assert!(matches!(f.hotplug.force_detach(8), Err(HotplugError::Empty(8))));
    assert!(matches!(f.hotplug.resized(8), Err(HotplugError::Empty(8))));
    f.hotplug.resized(ROOT).unwrap();

    // A guest that lets go of everything loses what may go, and nothing else.
    f.eject(u32::MAX);
    f.eject(u32::MAX);
    assert_eq!((f.id(0), f.id(ROOT), f.id(6), f.id(7)), (0x1237_8086, EBS, 0xCD01_1D0F, u32::MAX));
    assert_eq!(f.heard.recv_timeout(LONG), Ok(MachineEvent::Detached(7)));
    assert!(f.heard.try_recv().is_err());
}

#[test]
fn a_volume_that_is_used_when_it_goes() {
    let mut f = fixture();
    let disk = MemoryDisk::new();
    f.hotplug.attach(volume(8, disk.clone())).unwrap();
    f.take_a_line(8);
    // An access that began before the end: the vCPU still holds the function.
    let held = f.pci.remove(8).unwrap();
    f.pci.plug(8, Arc::clone(&held)).unwrap();
    f.eject(1 << 8);
    while f.router.allocated() > 0 {
        std::thread::yield_now();
    }
    assert!(!f.hotplug.wait_detached(8, Duration::ZERO));
    {
        let mut function = held.lock().unwrap();
        // Enabling the controller and unmasking a vector change nothing any more.
        function.write_bar(0, 0x14, &0x46_0001u32.to_le_bytes());
        let mut status = [0; 4];
        function.read_bar(0, 0x1C, &mut status);
        assert_eq!(u32::from_le_bytes(status), 2, "fatal");
        function.write_bar(0, 0x2000 + 12, &0u32.to_le_bytes());
    }
    assert_eq!((f.router.allocated(), f.heard.try_recv().is_err()), (0, true));
    drop(held);
    assert_eq!(f.heard.try_recv(), Ok(MachineEvent::Detached(8)));
    assert_eq!(Arc::strong_count(&disk), 1);
}

#[test]
fn the_machine_s_end_lets_go_of_all() {
    let f = fixture();
    let disk = MemoryDisk::new();
    f.hotplug.attach(volume(8, disk.clone())).unwrap();
    f.hotplug.attach(volume(9, disk.clone())).unwrap();
    f.hotplug.force_detach(9).unwrap();
    let waiter = {
        let hotplug = Arc::clone(&f.hotplug);
        std::thread::spawn(move || hotplug.wait_detached(8, LONG))
    };
    f.hotplug.end();
    assert_eq!((Arc::strong_count(&disk), waiter.join().unwrap()), (1, true));
    assert!(matches!(f.hotplug.attach(volume(8, disk)), Err(HotplugError::Ended)));
    assert!(f.hotplug.free_slots().is_empty());
    let heard: Vec<_> = f.heard.iter().collect();
    assert!(heard.len() <= 1, "the channel closes: {heard:?}");
    assert!(f.hotplug.listen().recv().is_err());
}

/// Slots are looked at, attached to, ejected and pulled by several threads at once; whatever the order, every back end is
/// let go of, and every slot ends free.
#[test]
fn everybody_at_once() {
    let f = fixture();
    let disk = MemoryDisk::new();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let (hotplug, pci, disk) = (&f.hotplug, &f.pci, &disk);
            scope.spawn(move || {
                for round in 0..50u32 {
                    let slot = 8 + (round as u8 + thread) % 3;
                    let _ = hotplug.attach(volume(slot, disk.clone()));
                    pci.ecam_write(u64::from(slot) << 15 | 0x10, &(0xC100_0000 + round * 0x4000).to_le_bytes());
                    pci.ecam_write(u64::from(slot) << 15 | 4, &2u16.to_le_bytes());
                    pci.mmio_write(0xC100_0000 + u64::from(round) * 0x4000 + 0x1000, &1u32.to_le_bytes());
                    match thread {
                        0 => drop(hotplug.force_detach(slot)),
                        1 => drop(hotplug.resized(slot)),
                        _ => hotplug.ejected(bit(slot)),
                    }
                }
            });
        }
    });
    f.hotplug.ejected(0b111 << 8);
    for slot in 8..11 {
        assert!(f.hotplug.wait_detached(slot, LONG));
    }
    f.hotplug.ejected(0b111 << 8);
    assert_eq!((Arc::strong_count(&disk), f.hotplug.free_slots().first()), (1, Some(&8)));
    assert_eq!(disk.waiting.load(Ordering::SeqCst), 0);
    for offset in (0xC100_0000..0xC110_0000).step_by(0x4000) {
        assert!(!f.pci.mmio_read(offset, &mut [0; 4]), "nothing is decoded at {offset:#x}");
    }
}
