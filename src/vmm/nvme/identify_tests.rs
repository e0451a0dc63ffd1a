use super::*;
use crate::vmm::nvme::testing::identity;

fn text(page: &Page, offset: usize, length: usize) -> &str {
    std::str::from_utf8(&page[offset..offset + length]).unwrap()
}

#[test]
fn an_ebs_volume_is_what_ec2_tools_look_for() {
    let page = controller(&identity());
    assert_eq!(page[..4], [0x0f, 0x1d, 0x0f, 0x1d]);
    assert_eq!(text(&page, 4, 20), "vol0123456789abcdef0");
    assert_eq!(text(&page, 24, 40), "Amazon Elastic Block Store              ");
    assert_eq!(text(&page, 64, 8), "1.0     ");
    assert_eq!(text(&page, 3072, 32), "xvda                            ");
    assert_eq!(page[3104..], [0; 4096 - 3104]);
    assert!(text(&page, 768, 256).starts_with("nqn.2014.08.org.nvmexpress:1d0f1d0fvol0123456789abcdef0Amazon"));
}

#[test]
fn an_instance_store_disk() {
    let page = controller(&VolumeIdentity::InstanceStore { serial: "AWS0123456789ABCDEF01".into() });
    assert_eq!(text(&page, 4, 20), "AWS0123456789ABCDEF0");
    assert_eq!(text(&page, 24, 40), "Amazon EC2 NVMe Instance Storage        ");
}

#[test]
fn names_that_do_not_fit_are_cut_and_cleaned() {
    let page = controller(&VolumeIdentity::Ebs { volume_id: "v\n".repeat(99), device_name: "é".repeat(99) });
    assert_eq!(text(&page, 4, 20), "v?".repeat(10));
    assert_eq!(text(&page, 3072, 32), "?".repeat(32));
}

#[test]
fn capabilities() {
    let page = controller(&identity());
    assert_eq!(page[77], 8);
    assert_eq!(page[80..84], [0, 4, 1, 0]);
    assert_eq!(page[256..258], [0, 1]);
    assert_eq!(page[512..514], [0x66, 0x44]);
    assert_eq!((page[516], page[520], page[525]), (1, 0b1100, 7));
    assert_eq!(page[536..540], [0; 4]);
}

#[test]
fn the_namespace_has_blocks_of_512_bytes() {
    let page = namespace(8 << 30);
    assert_eq!(page[..8], (8u64 << 21).to_le_bytes());
    assert_eq!((page[25], page[26]), (0, 0));
    assert_eq!(page[128..132], [0, 0, 9, 0]);
    // NGUID and EUI-64.
    assert_eq!(page[104..128], [0; 24]);
}
