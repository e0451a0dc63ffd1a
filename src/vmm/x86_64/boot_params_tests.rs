use proptest::prelude::*;

use super::*;
use crate::vmm::memory::memory_map;

/// The smallest image that passes: header fields and one byte of kernel.
fn sample() -> Vec<u8> {
    let mut b = vec![0u8; 512 * 5 + 1];
    b[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
    b[0x201] = 0x66;
    b[0x202..0x206].copy_from_slice(b"HdrS");
    b[0x206..0x208].copy_from_slice(&0x20Fu16.to_le_bytes());
    b[0x22C..0x230].copy_from_slice(&0x7FFF_FFFFu32.to_le_bytes());
    b[0x236..0x238].copy_from_slice(&1u16.to_le_bytes());
    b[0x238..0x23C].copy_from_slice(&2047u32.to_le_bytes());
    b[0x258..0x260].copy_from_slice(&0x100_0000u64.to_le_bytes());
    b[0x260..0x264].copy_from_slice(&0x337_8000u32.to_le_bytes());
    b
}

#[test]
fn the_header_is_read() {
    let header = SetupHeader::parse(&sample()).unwrap();
    assert_eq!(header.kernel_offset, 2560, "0 setup sectors mean 4");
    assert_eq!((header.load_address, header.entry()), (0x100_0000, 0x100_0200));
    assert_eq!((header.init_size, header.cmdline_size, header.initrd_max), (0x337_8000, 2047, 0x7FFF_FFFF));
}

#[test]
fn old_and_32_bit_kernels_are_refused() {
    assert_eq!(SetupHeader::parse(b"no"), Err(BzImageError::NotBzImage));
    let mut old = sample();
    old[0x206] = 0x0B;
    assert_eq!(SetupHeader::parse(&old), Err(BzImageError::No64BitEntry(0x20B, 1)));
    let mut narrow = sample();
    narrow[0x236] = 0;
    assert_eq!(SetupHeader::parse(&narrow), Err(BzImageError::No64BitEntry(0x20F, 0)));
}

#[test]
fn the_zero_page_says_where_everything_is() {
    let header = SetupHeader::parse(&sample()).unwrap();
    let map = memory_map(5 << 30);
    let page = header.zero_page(&map, Some((0x1_2345_6000, 0x1_0000_0007)), 0xE_0000);
    assert_eq!(page.len(), 4096);
    assert_eq!(&page[0x202..0x206], b"HdrS");
    assert_eq!(page[0x210], 0xFF);
    assert_eq!(u64_at(&page, 0x70), Some(0xE_0000));
    assert_eq!(u32_at(&page, 0x228), Some(layout::CMDLINE as u32));
    assert_eq!((u32_at(&page, 0x218), u32_at(&page, 0xC0)), (Some(0x2345_6000), Some(1)));
    assert_eq!((u32_at(&page, 0x21C), u32_at(&page, 0xC4)), (Some(7), Some(1)));
    assert_eq!(usize::from(page[0x1E8]), map.len());
    for (i, entry) in map.iter().enumerate() {
        let at = 0x2D0 + i * 20;
        assert_eq!((u64_at(&page, at), u64_at(&page, at + 8)), (Some(entry.start), Some(entry.size)));
        assert_eq!(u32_at(&page, at + 16), Some(entry.kind as u32));
    }
}

proptest! {
    #[test]
    fn damaged_images_never_panic(changes in proptest::collection::vec((0x1F0usize..0x270, any::<u8>()), 0..16), cut in 0usize..2561) {
        let mut bytes = sample();
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes.truncate(cut);
        if let Ok(header) = SetupHeader::parse(&bytes) {
            prop_assert!(header.kernel_offset < bytes.len());
            prop_assert_eq!(header.zero_page(&memory_map(1 << 30), None, 0).len(), 4096);
        }
    }
}
