use super::super::config::VolumeIdentity;
use super::super::devices::events::Events;
use super::super::interrupt::LevelLine;
use super::super::nvme::testing::MemoryDisk;
use super::super::pci::root::NoIoEventFds;
use super::super::pci::testing::TestRouter;
use super::*;

struct NoLine;

impl LevelLine for NoLine {
    fn set(&self, _: bool) {}
}

fn slots(volumes: &[(u8, bool)]) -> Slots {
    let pci = Arc::new(PciRoot::new(0xC000_0000..0xD000_0000, 0..0, Arc::new(NoIoEventFds)));
    let router: Arc<dyn MsiRouter> = TestRouter::new();
    let memory = super::super::memory::allocate(64 << 20).unwrap();
    let events = Arc::new(Events::new(Box::new(NoLine)));
    let hotplug = Arc::new(Hotplug::new(Arc::clone(&pci), Arc::clone(&router), memory.clone(), 1, events));
    let surroundings = Surroundings { pci: &pci, hotplug: &hotplug, router: &router, memory: &memory };
    let config = |(slot, ebs): &(u8, bool)| {
        let identity = match ebs {
            true => VolumeIdentity::Ebs { volume_id: "vol-0123456789abcdef0".into(), device_name: "xvda".into() },
            false => VolumeIdentity::InstanceStore { serial: "AWS0123456789abcdef01".into() },
        };
        VolumeConfig { slot: *slot, identity, backend: MemoryDisk::new() }
    };
    let slots = surroundings.build(volumes.iter().map(config).collect(), Vec::new()).unwrap();
    let taken: Vec<u8> = volumes.iter().map(|(slot, _)| *slot).collect();
    let free: Vec<u8> = slots.changeable.iter().copied().filter(|slot| !taken.contains(slot)).collect();
    assert_eq!(hotplug.free_slots(), free);
    slots
}

#[test]
fn volumes_come_and_go_behind_the_root_volume() {
    let Slots { fixed, changeable } = slots(&[(4, true), (5, false)]);
    assert_eq!((fixed, changeable), (vec![4, 5, RNG_SLOT], (6..32).collect()));
}

#[test]
fn a_volume_that_was_there_from_the_start_can_go_from_any_slot() {
    let Slots { fixed, changeable } = slots(&[(30, true), (3, true), (2, true)]);
    assert_eq!((fixed, changeable), (vec![30, 4], vec![2, 3, 31]));
}

#[test]
fn a_full_bus_has_no_entropy_device() {
    let all: Vec<(u8, bool)> = (1..32).map(|slot| (slot, true)).collect();
    let Slots { fixed, changeable } = slots(&all);
    assert_eq!((fixed, changeable), (vec![1], (2..32).collect()));
}
