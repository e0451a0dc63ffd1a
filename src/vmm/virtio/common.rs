//! The common configuration registers: features, status, queue set-up (VIRTIO 1.2 §4.1.4.3).
//!
//! What the driver may write depends on how far it is: features between DRIVER and FEATURES_OK, queues between
//! FEATURES_OK and DRIVER_OK. Anything else is ignored.
#![forbid(unsafe_code)]

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use super::interrupt::{Interrupt, NO_VECTOR};
use super::status::{self, Step};
use crate::vmm::memory::GuestMemory;

/// Bytes of the register block.
pub const COMMON_CONFIG_SIZE: u64 = 0x38;

const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIG_VECTOR: u64 = 0x10;
const DEVICE_STATUS: u64 = 0x14;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_DESCRIPTORS: u64 = 0x20;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DEVICE: u64 = 0x30;

/// The device follows VIRTIO 1.0 or later. Not optional here.
pub const F_VERSION_1: u64 = 1 << 32;
/// Descriptors may refer to tables of descriptors.
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// Interrupts and kicks are asked for by ring index.
pub const F_EVENT_IDX: u64 = 1 << 29;

/// What the transport has to do after a write.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Nothing.
    None,
    /// Stop the device, then [`CommonConfig::reset`].
    Reset,
    /// Decide on the features, and [`CommonConfig::accept_features`].
    NegotiateFeatures,
    /// Start the device.
    Activate,
}

/// How the driver set a queue up.
#[derive(Clone, Debug)]
struct QueueSetup {
    max_size: u16,
    size: u16,
    enabled: bool,
    descriptors: u64,
    driver: u64,
    device: u64,
}

impl QueueSetup {
    fn new(max_size: u16) -> Self {
        QueueSetup { max_size, size: max_size, enabled: false, descriptors: 0, driver: 0, device: 0 }
    }

    /// The rings, if they are where rings can be.
    fn build(&self, memory: &GuestMemory, event_idx: bool) -> Result<Queue, virtio_queue::Error> {
        let mut queue = Queue::new(self.max_size)?;
        queue.try_set_size(self.size)?;
        queue.try_set_desc_table_address(GuestAddress(self.descriptors))?;
        queue.try_set_avail_ring_address(GuestAddress(self.driver))?;
        queue.try_set_used_ring_address(GuestAddress(self.device))?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        if queue.is_valid(memory) { Ok(queue) } else { Err(virtio_queue::Error::QueueNotReady) }
    }
}

/// The registers of one device.
pub struct CommonConfig {
    interrupt: Interrupt,
    /// Vectors of the MSI-X table; what is beyond can't be assigned.
    vectors: u16,
    offered: u64,
    accepted: u64,
    device_feature_select: u32,
    driver_feature_select: u32,
    queue_select: u16,
    queues: Vec<QueueSetup>,
}

impl CommonConfig {
    /// Registers of a device that offers `features` and has queues of at most these sizes.
    pub fn new(features: u64, queue_sizes: &[u16], vectors: u16, interrupt: Interrupt) -> Self {
        CommonConfig {
            interrupt,
            vectors,
            offered: features,
            accepted: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            queue_select: 0,
            queues: queue_sizes.iter().map(|size| QueueSetup::new(*size)).collect(),
        }
    }

    /// The features that the driver wrote. Only those of them that are offered count, see [`Self::features_valid`].
    pub fn features(&self) -> u64 {
        self.accepted
    }

    /// Whether the driver chose among the offered features, and the one that is not optional.
    pub fn features_valid(&self) -> bool {
        self.accepted & !self.offered == 0 && self.accepted & F_VERSION_1 != 0
    }

    /// Close the negotiation.
    pub fn accept_features(&self) {
        self.interrupt.add_status(status::FEATURES_OK);
    }

    /// The queues that the driver enabled. An error if one of them can't work.
    pub fn build_queues(&self, memory: &GuestMemory) -> Result<Vec<Option<Queue>>, virtio_queue::Error> {
        let event_idx = self.accepted & F_EVENT_IDX != 0;
        self.queues.iter().map(|setup| setup.enabled.then(|| setup.build(memory, event_idx)).transpose()).collect()
    }

    /// Back to the state after power-on.
    pub fn reset(&mut self) {
        self.interrupt.reset();
        self.accepted = 0;
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.queue_select = 0;
        for queue in &mut self.queues {
            *queue = QueueSetup::new(queue.max_size);
        }
    }

    /// Fill `data` from `offset`, which may be any; zeros beyond the end.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let registers = self.registers();
        for (i, byte) in data.iter_mut().enumerate() {
            let at = offset.saturating_add(i as u64);
            *byte = usize::try_from(at).ok().and_then(|at| registers.get(at)).copied().unwrap_or(0);
        }
    }

    fn registers(&self) -> [u8; COMMON_CONFIG_SIZE as usize] {
        let mut registers = [0; COMMON_CONFIG_SIZE as usize];
        let mut put = |at: u64, value: &[u8]| registers[at as usize..][..value.len()].copy_from_slice(value);
        let half = |features: u64, select: u32| match select {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        };
        put(DEVICE_FEATURE_SELECT, &self.device_feature_select.to_le_bytes());
        put(DEVICE_FEATURE_SELECT + 4, &half(self.offered, self.device_feature_select).to_le_bytes());
        put(DRIVER_FEATURE_SELECT, &self.driver_feature_select.to_le_bytes());
        put(DRIVER_FEATURE, &half(self.accepted, self.driver_feature_select).to_le_bytes());
        put(CONFIG_VECTOR, &self.interrupt.config_vector().to_le_bytes());
        put(CONFIG_VECTOR + 2, &(self.queues.len() as u16).to_le_bytes());
        // The configuration of the devices here never changes: its generation stays 0.
        put(DEVICE_STATUS, &[self.interrupt.status(), 0]);
        put(QUEUE_SELECT, &self.queue_select.to_le_bytes());
        let Some(queue) = self.queues.get(usize::from(self.queue_select)) else {
            put(QUEUE_VECTOR, &NO_VECTOR.to_le_bytes());
            return registers;
        };
        put(QUEUE_SIZE, &queue.size.to_le_bytes());
        put(QUEUE_VECTOR, &self.interrupt.queue_vector(self.queue_select).to_le_bytes());
        put(QUEUE_ENABLE, &u16::from(queue.enabled).to_le_bytes());
        // Every queue has a doorbell of its own.
        put(QUEUE_ENABLE + 2, &self.queue_select.to_le_bytes());
        put(QUEUE_DESCRIPTORS, &queue.descriptors.to_le_bytes());
        put(QUEUE_DRIVER, &queue.driver.to_le_bytes());
        put(QUEUE_DEVICE, &queue.device.to_le_bytes());
        registers
    }

    /// The driver writes a register, with the register's width. A 64-bit register may be written by halves.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Request {
        match data {
            [value] => return self.write_u8(offset, *value),
            [a, b] => self.write_u16(offset, u16::from_le_bytes([*a, *b])),
            [a, b, c, d] => self.write_u32(offset, u32::from_le_bytes([*a, *b, *c, *d])),
            [a, b, c, d, high @ ..] if high.len() == 4 && (QUEUE_DESCRIPTORS..=QUEUE_DEVICE).contains(&offset) => {
                self.write_u32(offset, u32::from_le_bytes([*a, *b, *c, *d]));
                return self.write(offset + 4, high);
            }
            _ => {}
        }
        Request::None
    }

    fn write_u8(&mut self, offset: u64, value: u8) -> Request {
        if offset != DEVICE_STATUS {
            return Request::None;
        }
        match status::step(self.interrupt.status(), value) {
            Step::Reset => return Request::Reset,
            Step::NegotiateFeatures => return Request::NegotiateFeatures,
            Step::Activate => return Request::Activate,
            Step::Note(bits) => self.interrupt.add_status(bits),
            Step::Refused => {
                log::debug!("virtio status {:#x} after {:#x} refused", value, self.interrupt.status());
            }
        }
        Request::None
    }

    fn write_u16(&mut self, offset: u64, value: u16) {
        let vector = if value < self.vectors { value } else { NO_VECTOR };
        match offset {
            CONFIG_VECTOR => self.interrupt.set_config_vector(vector),
            QUEUE_VECTOR => self.interrupt.set_queue_vector(self.queue_select, vector),
            QUEUE_SELECT => self.queue_select = value,
            QUEUE_SIZE => {
                let valid = |queue: &QueueSetup| value.is_power_of_two() && value <= queue.max_size;
                if let Some(queue) = self.open_queue().filter(|queue| valid(queue)) {
                    queue.size = value;
                }
            }
            QUEUE_ENABLE if value == 1 => {
                if let Some(queue) = self.open_queue() {
                    queue.enabled = true;
                }
            }
            _ => {}
        }
    }

    fn write_u32(&mut self, offset: u64, value: u32) {
        match offset {
            DEVICE_FEATURE_SELECT => self.device_feature_select = value,
            DRIVER_FEATURE_SELECT => self.driver_feature_select = value,
            DRIVER_FEATURE => self.write_features(value),
            QUEUE_DESCRIPTORS..0x38 if offset.is_multiple_of(4) => {
                let Some(queue) = self.open_queue() else { return };
                let register = match offset & !7 {
                    QUEUE_DESCRIPTORS => &mut queue.descriptors,
                    QUEUE_DRIVER => &mut queue.driver,
                    _ => &mut queue.device,
                };
                let shift = 8 * (offset & 4);
                *register = *register & !(0xffff_ffff << shift) | u64::from(value) << shift;
            }
            _ => {}
        }
    }

    fn write_features(&mut self, value: u32) {
        let now = self.interrupt.status();
        if now & status::DRIVER == 0 || now & (status::FEATURES_OK | status::FAILED) != 0 {
            return;
        }
        match self.driver_feature_select {
            0 => self.accepted = self.accepted & !0xffff_ffff | u64::from(value),
            1 => self.accepted = self.accepted & 0xffff_ffff | u64::from(value) << 32,
            _ => {}
        }
    }

    /// The selected queue, if the driver may still change it.
    fn open_queue(&mut self) -> Option<&mut QueueSetup> {
        let now = self.interrupt.status();
        let open = now & status::FEATURES_OK != 0 && now & (status::DRIVER_OK | status::FAILED) == 0;
        let queue = self.queues.get_mut(usize::from(self.queue_select))?;
        (open && !queue.enabled).then_some(queue)
    }
}
