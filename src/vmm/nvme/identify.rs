//! Identify data (§5.15): what an EBS volume and an instance-store disk say about themselves.
//!
//! Namespaces carry neither EUI-64 nor NGUID: on EC2 they don't either, so Linux makes `wwid` (and udev its `by-id`
//! links) from vendor, serial and model.
#![forbid(unsafe_code)]

use super::spec::{MDTS, NAMESPACE, PAGE_SIZE, VERSION};
use crate::vmm::backend::BLOCK_SIZE;
use crate::vmm::config::VolumeIdentity;

/// Amazon's PCI vendor id.
pub const VENDOR: u16 = 0x1d0f;
const OUI: [u8; 3] = [0xdc, 0x02, 0xa0];
const SERIAL_LENGTH: usize = 20;
const MODEL_LENGTH: usize = 40;
const DEVICE_NAME_LENGTH: usize = 32;
/// Asynchronous event requests that may be outstanding.
pub const ASYNC_EVENT_LIMIT: usize = 4;
/// Entries of the error log.
pub const ERROR_LOG_ENTRIES: usize = 4;

/// An Identify page.
pub type Page = [u8; PAGE_SIZE as usize];

/// Bits of AEC and OAES: notices of changed namespaces.
pub const NAMESPACE_NOTICES: u32 = 1 << 8;
const OACS_DOORBELL_BUFFER: u16 = 1 << 8;
const ONCS_DATASET_MANAGEMENT: u16 = 1 << 2;
const ONCS_WRITE_ZEROES: u16 = 1 << 3;
/// Present, and Flush takes "all namespaces".
const VWC: u8 = 0b111;
const LPA_EXTENDED_DATA: u8 = 1 << 2;
const NSFEAT_OPTIMAL_PERFORMANCE: u8 = 1 << 4;
/// Deallocated blocks read as zeros; Write Zeroes may deallocate.
const DLFEAT: u8 = 0b1001;
/// The unit in which volumes like to be written, in blocks less one: 4 KiB.
const PREFERRED_GRANULARITY: u16 = 7;

/// The PCI device id of a kind of volume.
pub fn device_id(identity: &VolumeIdentity) -> u16 {
    match identity {
        VolumeIdentity::Ebs { .. } => 0x8061,
        VolumeIdentity::InstanceStore { .. } => 0xcd01,
    }
}

/// Identify Controller (CNS 01h, figure 251).
pub fn controller(identity: &VolumeIdentity) -> Box<Page> {
    let (serial, model, device_name) = match identity {
        VolumeIdentity::Ebs { volume_id, device_name } => {
            (volume_id.replace('-', ""), "Amazon Elastic Block Store", device_name.as_str())
        }
        VolumeIdentity::InstanceStore { serial } => (serial.clone(), "Amazon EC2 NVMe Instance Storage", ""),
    };
    let serial = padded::<SERIAL_LENGTH>(&serial);
    let model = padded::<MODEL_LENGTH>(model);

    let mut page = Box::new([0; PAGE_SIZE as usize]);
    let mut put = |offset: usize, bytes: &[u8]| page[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, &VENDOR.to_le_bytes());
    put(2, &VENDOR.to_le_bytes()); // SSVID
    put(4, &serial);
    put(24, &model);
    put(64, b"1.0     "); // FR
    put(72, &[32]); // RAB
    put(73, &OUI);
    put(77, &[MDTS]);
    put(80, &VERSION.to_le_bytes());
    put(92, &NAMESPACE_NOTICES.to_le_bytes()); // OAES
    put(111, &[1]); // CNTRLTYPE: an I/O controller
    put(256, &OACS_DOORBELL_BUFFER.to_le_bytes());
    put(258, &[3]); // ACL
    put(259, &[ASYNC_EVENT_LIMIT as u8 - 1]); // AERL
    put(260, &[0b11]); // FRMW: one slot, read-only
    put(261, &[LPA_EXTENDED_DATA]);
    put(262, &[ERROR_LOG_ENTRIES as u8 - 1]); // ELPE
    put(512, &[0x66, 0x44]); // SQES, CQES: 64 and 16 bytes
    put(516, &NAMESPACE.to_le_bytes()); // NN
    put(520, &(ONCS_DATASET_MANAGEMENT | ONCS_WRITE_ZEROES).to_le_bytes());
    put(525, &[VWC]);
    // The name that Linux makes up for controllers of older versions, and so the one seen on EC2.
    put(768, b"nqn.2014.08.org.nvmexpress:1d0f1d0f");
    put(803, &serial);
    put(803 + SERIAL_LENGTH, &model);
    put(2048, &1u16.to_le_bytes()); // PSD0: 0.01 W
    put(3072, &padded::<DEVICE_NAME_LENGTH>(device_name));
    page
}

/// Identify Namespace (CNS 00h, figure 249) for a volume of `size` bytes.
pub fn namespace(size: u64) -> Box<Page> {
    let blocks = (size / BLOCK_SIZE).to_le_bytes();
    let mut page = Box::new([0; PAGE_SIZE as usize]);
    let mut put = |offset: usize, bytes: &[u8]| page[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, &blocks); // NSZE
    put(8, &blocks); // NCAP
    put(16, &blocks); // NUSE
    put(24, &[NSFEAT_OPTIMAL_PERFORMANCE]);
    put(33, &[DLFEAT]);
    put(48, &size.to_le_bytes()); // NVMCAP
    for offset in [64, 66, 68, 70, 72] {
        put(offset, &PREFERRED_GRANULARITY.to_le_bytes()); // NPWG, NPWA, NPDG, NPDA, NOWS
    }
    put(130, &[BLOCK_SIZE.trailing_zeros() as u8]); // LBAF0.LBADS
    page
}

/// ASCII, cut or padded with spaces to `N` bytes.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [b' '; N];
    for (to, from) in bytes.iter_mut().zip(text.bytes()) {
        *to = if from.is_ascii_graphic() || from == b' ' { from } else { b'?' };
    }
    bytes
}

#[cfg(test)]
#[path = "identify_tests.rs"]
mod tests;
