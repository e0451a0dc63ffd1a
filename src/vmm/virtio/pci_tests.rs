use std::sync::Mutex;

use proptest::prelude::*;

use super::super::testing::Driver;
use super::*;

/// What a test device was told.
#[derive(Default)]
struct Log {
    activations: usize,
    resets: usize,
    kicks: Vec<u16>,
    queues: Vec<Option<ActiveQueue>>,
    interrupt: Option<Interrupt>,
}

struct TestDevice {
    log: Arc<Mutex<Log>>,
    service: Service,
    refuses: bool,
}

const TEST_FEATURE: u64 = 1 << 5;
const UNWANTED_FEATURE: u64 = 1 << 6;

impl VirtioDevice for TestDevice {
    fn id(&self) -> u16 {
        42
    }
    fn class(&self) -> u32 {
        0x02_00_00
    }
    fn features(&self) -> u64 {
        TEST_FEATURE | UNWANTED_FEATURE
    }
    fn queue_sizes(&self) -> &[u16] {
        &[16, 8]
    }
    fn service(&self) -> Service {
        self.service
    }
    fn config(&self) -> &[u8] {
        &[1, 2, 3, 4, 5, 6]
    }
    fn accepts(&self, features: u64) -> bool {
        features & UNWANTED_FEATURE == 0
    }
    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let mut log = self.log.lock().unwrap();
        log.activations += 1;
        if self.refuses {
            return Err(io::Error::other("refused"));
        }
        log.queues = activation.queues;
        log.interrupt = Some(activation.interrupt);
        Ok(())
    }
    fn kicked(&mut self, queue: u16) {
        self.log.lock().unwrap().kicks.push(queue);
    }
    fn reset(&mut self) {
        let mut log = self.log.lock().unwrap();
        log.resets += 1;
        log.queues.clear();
    }
}

fn driver_for(service: Service, refuses: bool) -> (Driver, Arc<Mutex<Log>>) {
    let log = Arc::new(Mutex::new(Log::default()));
    (Driver::new(Box::new(TestDevice { log: Arc::clone(&log), service, refuses })), log)
}

fn driver() -> (Driver, Arc<Mutex<Log>>) {
    driver_for(Service::Thread, false)
}

#[test]
fn identity_features_and_registers() {
    let (driver, _) = driver();
    assert_eq!(driver.config_read(0), 0x106a_1af4);
    assert_eq!(driver.config_read(8), 0x0200_0001);
    assert_eq!(driver.offered(), TEST_FEATURE | UNWANTED_FEATURE | F_VERSION_1 | F_EVENT_IDX | F_INDIRECT_DESC);
    assert_eq!(driver.read(driver.common + 0x12), 2u16.to_le_bytes(), "queues");
    assert_eq!(driver.read(driver.device + 2), [3, 4, 5, 6]);
    assert_eq!(driver.read(driver.device + 4), [5, 6, 0, 0], "beyond the end");
    driver.write(driver.common + 0x16, &1u16.to_le_bytes());
    assert_eq!(driver.read(driver.common + 0x18), 8u16.to_le_bytes());
    driver.write(driver.common + 0x16, &2u16.to_le_bytes());
    assert_eq!(driver.read(driver.common + 0x18), [0, 0], "no such queue");
    driver.write(driver.common + 0x10, &3u16.to_le_bytes());
    assert_eq!(driver.read(driver.common + 0x10), [0xff, 0xff], "three vectors are 0 to 2");
    driver.write(driver.common + 0x10, &2u16.to_le_bytes());
    assert_eq!(driver.read(driver.common + 0x10), [2, 0]);
}

#[test]
fn features_are_accepted_only_if_offered_and_workable() {
    let (mut driver, _) = driver();
    assert!(!driver.negotiate(1 << 7), "not offered");
    assert!(!driver.negotiate(UNWANTED_FEATURE), "the device can't work so");
    driver.set_status(0);
    driver.set_status(3);
    driver.write_features(TEST_FEATURE);
    driver.set_status(11);
    assert_eq!(driver.status(), 3, "VERSION_1 is not optional");
    assert!(driver.negotiate(TEST_FEATURE));
    driver.write_features(0);
    assert_eq!(driver.function.lock().unwrap().common.features(), TEST_FEATURE | F_VERSION_1, "closed");
}

#[test]
fn queues_are_set_up_between_features_ok_and_driver_ok() {
    let (mut driver, log) = driver();
    driver.write(driver.common + 0x18, &4u16.to_le_bytes());
    assert_eq!(driver.read(driver.common + 0x18), [16, 0], "too early");
    assert!(driver.negotiate(0));
    driver.write(driver.common + 0x18, &12u16.to_le_bytes());
    driver.write(driver.common + 0x18, &32u16.to_le_bytes());
    assert_eq!(driver.read(driver.common + 0x18), [16, 0], "not a power of two, or too large");
    driver.queue(1, 4);
    driver.write(driver.common + 0x20, &0x1234_5670_u64.to_le_bytes());
    assert_ne!(driver.read(driver.common + 0x20), 0x1234_5670_u64.to_le_bytes(), "enabled");
    driver.start();
    assert_eq!(driver.status(), 15);
    let log = log.lock().unwrap();
    assert_eq!(log.queues.iter().map(|q| q.as_ref().map(|q| q.queue.size())).collect::<Vec<_>>(), [None, Some(4)]);
}

#[test]
fn kicks_reach_doorbells_or_the_device() {
    let (mut driver, log) = driver();
    let doorbells = driver.function.lock().unwrap().doorbells();
    let offsets: Vec<_> = doorbells.iter().map(|d| (d.bar, d.offset)).collect();
    assert_eq!(offsets, [(0, 0x1000), (0, 0x1004)]);
    driver.write(driver.notify, &[0, 0]);
    assert!(driver.negotiate(0));
    let queue = driver.queue(0, 16);
    driver.start();
    let doorbell = Arc::clone(&log.lock().unwrap().queues[0].as_ref().unwrap().doorbell);
    assert!(doorbell.read().is_err(), "kicks before activation don't count");
    driver.kick(&queue);
    assert_eq!(doorbell.read().unwrap(), 1);

    let (mut driver, log) = driver_for(Service::Inline, false);
    assert!(driver.function.lock().unwrap().doorbells().is_empty());
    driver.write(driver.notify, &[0, 0]);
    assert!(driver.negotiate(0));
    driver.start();
    driver.write(driver.notify + 4, &[1, 0]);
    driver.write(driver.notify + 8, &[2, 0]);
    assert_eq!(log.lock().unwrap().kicks, [1]);
}

#[test]
fn interrupts_go_to_the_vectors_that_the_driver_chose() {
    let (mut driver, log) = driver();
    driver.enable_msix(3);
    assert!(driver.negotiate(0));
    driver.queue(0, 16);
    driver.start();
    let interrupt = log.lock().unwrap().interrupt.clone().unwrap();
    interrupt.queue_used(0);
    interrupt.queue_used(1);
    assert_eq!([driver.interrupts(0), driver.interrupts(1), driver.interrupts(2)], [0, 1, 0]);
    assert_eq!(driver.read(driver.isr), [1]);
    assert_eq!(driver.read(driver.isr), [0], "reading clears");
    interrupt.needs_reset();
    assert_eq!((driver.status(), driver.interrupts(0), driver.read(driver.isr)), (15 | status::NEEDS_RESET, 1, [2]));
}

#[test]
fn a_driver_can_be_loaded_again() {
    let (mut driver, log) = driver();
    for round in 1..4 {
        assert!(driver.negotiate(TEST_FEATURE));
        driver.queue(0, 8);
        driver.queue(1, 8);
        driver.start();
        assert_eq!(log.lock().unwrap().activations, round);
        driver.set_status(0);
        assert_eq!(driver.status(), 0);
        assert!(log.lock().unwrap().queues.is_empty());
        assert_eq!(driver.read(driver.common + 0x1a), [0xff, 0xff], "vectors are forgotten");
        assert_eq!(driver.read(driver.common + 0x1c), [0, 0], "queues are off");
        assert_eq!(driver.read(driver.common + 0x18), [16, 0]);
    }
}

#[test]
fn a_device_that_cannot_start_asks_for_a_reset() {
    let (mut driver, _) = driver_for(Service::Thread, true);
    assert!(driver.negotiate(0));
    driver.start();
    assert_eq!(driver.status(), 15 | status::NEEDS_RESET);

    for (register, address) in
        [(0x20, 0x1001u64), (0x28, 0x2001), (0x30, 0x3002), (0x20, 1 << 40), (0x30, u64::MAX - 3)]
    {
        let (mut driver, log) = self::driver();
        assert!(driver.negotiate(0));
        for (at, value) in [(0x20, 0x1000u64), (0x28, 0x2000), (0x30, 0x3000), (register, address)] {
            driver.write(driver.common + at, &value.to_le_bytes());
        }
        driver.write(driver.common + 0x1c, &[1, 0]);
        driver.start();
        assert_eq!((driver.status(), log.lock().unwrap().activations), (15 | status::NEEDS_RESET, 0), "{address:#x}");
        assert!(driver.negotiate(0));
    }
}

#[test]
fn taking_bus_mastering_away_stops_the_device() {
    let (mut driver, log) = driver();
    assert!(driver.negotiate(0));
    driver.queue(0, 8);
    driver.start();
    let resets = log.lock().unwrap().resets;
    driver.config_write(4, 2);
    assert_eq!(log.lock().unwrap().resets, resets + 1);
    assert_eq!(driver.status(), 15 | status::NEEDS_RESET);
}

#[test]
fn configuration_space_has_a_window_to_the_registers() {
    let (driver, _) = driver();
    let offset = (driver.device - driver.common) as u32;
    driver.config_write(driver.window + 4, 0);
    driver.config_write(driver.window + 8, offset);
    driver.config_write(driver.window + 12, 4);
    assert_eq!(driver.config_read(driver.window + 16), 0x0403_0201);
    driver.config_write(driver.window + 8, 0x14);
    driver.config_write(driver.window + 12, 1);
    driver.config_write(driver.window + 16, 1);
    assert_eq!(driver.status(), 1);
    driver.config_write(driver.window + 8, u32::MAX);
    driver.config_write(driver.window + 16, 0);
    assert_eq!(driver.status(), 1, "beyond the BAR");
}

proptest! {
    #[test]
    fn garbage_in_every_register_is_harmless(
        writes in proptest::collection::vec((0u64..0x4000, any::<u64>(), 0u32..4, 0u8..8), 1..300),
    ) {
        let (driver, log) = driver();
        for (offset, value, width, what) in writes {
            let width = 1usize << width;
            // Half of the accesses at the common registers, with small values: they get somewhere.
            let (offset, value) = if what < 4 { (offset % 0x40, value % 17) } else { (offset, value) };
            let address = driver.common + offset;
            let mut data = value.to_le_bytes();
            match what {
                7 => driver.root.ecam_write((5 << 15) | ((offset % 0x1000) & !3), &data[..width]),
                _ => drop(driver.root.mmio_write(address, &data[..width])),
            }
            driver.root.mmio_read(address, &mut data[..width]);
            driver.root.ecam_read((5 << 15) | (offset % 0x1000), &mut data[..width]);
        }
        let log = log.lock().unwrap();
        prop_assert!(log.activations <= log.resets + 1);
    }
}
