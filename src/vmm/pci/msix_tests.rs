use proptest::prelude::*;

use super::super::config::Identity;
use super::super::testing::TestRouter;
use super::*;

fn function(vectors: u16) -> (Msix, ConfigSpace, Arc<TestRouter>, u16) {
    let router = TestRouter::new();
    let mut config = ConfigSpace::new(Identity::default());
    let mut msix = Msix::new(vectors, 2, 0x1000, 0x2000, router.clone()).unwrap();
    let offset = msix.add_capability(&mut config).unwrap();
    (msix, config, router, offset)
}

fn control(msix: &mut Msix, config: &mut ConfigSpace, offset: u16, bits: u16) {
    config.write(offset + 2, &bits.to_le_bytes());
    msix.config_written(config);
}

fn set_message(msix: &mut Msix, vector: u64, data: u32) {
    assert!(msix.write_bar(0x1000 + vector * 16, &0xfee0_1000_u64.to_le_bytes()));
    assert!(msix.write_bar(0x1008 + vector * 16, &data.to_le_bytes()));
}

fn set_mask(msix: &mut Msix, vector: u64, masked: bool) {
    assert!(msix.write_bar(0x100c + vector * 16, &u32::from(masked).to_le_bytes()));
}

fn pending(msix: &Msix) -> u64 {
    let mut bits = [0; 8];
    assert!(msix.read_bar(0x2000, &mut bits));
    u64::from_le_bytes(bits)
}

#[test]
fn capability_describes_the_layout() {
    let (_, config, _, offset) = function(5);
    assert_eq!(config.read_u32(offset), 0x0004_0011);
    assert_eq!(config.read_u32(offset + 4), 0x1002);
    assert_eq!(config.read_u32(offset + 8), 0x2002);
}

#[test]
fn lines_are_given_back() {
    let (mut msix, mut config, router, offset) = function(3);
    let handle = msix.handle();
    control(&mut msix, &mut config, offset, CONTROL_ENABLE);
    set_message(&mut msix, 1, 77);
    set_mask(&mut msix, 1, false);
    let line = router.line(77).unwrap();
    msix.release();
    assert_eq!(router.allocated(), 0);
    handle.signal(1);
    set_mask(&mut msix, 0, false);
    set_mask(&mut msix, 1, false);
    control(&mut msix, &mut config, offset, 0);
    control(&mut msix, &mut config, offset, CONTROL_ENABLE);
    handle.signal(1);
    assert_eq!((router.allocated(), line.fd.read().is_err()), (0, true));
}

#[test]
fn a_masked_vector_is_pending_until_it_is_unmasked() {
    let (mut msix, mut config, router, offset) = function(3);
    let handle = msix.handle();
    handle.signal(1);
    assert_eq!(pending(&msix), 0, "disabled: dropped");

    control(&mut msix, &mut config, offset, CONTROL_ENABLE);
    set_message(&mut msix, 1, 77);
    assert_eq!(router.allocated(), 0, "lines are allocated on unmask");
    handle.signal(1);
    handle.signal(1);
    assert_eq!(pending(&msix), 0b10);

    set_mask(&mut msix, 1, false);
    assert_eq!((pending(&msix), router.take(77), router.allocated()), (0, 1, 1));
    handle.signal(1);
    assert_eq!((pending(&msix), router.take(77)), (0, 1));

    control(&mut msix, &mut config, offset, CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
    handle.signal(1);
    assert_eq!((pending(&msix), router.take(77)), (0b10, 0));
    control(&mut msix, &mut config, offset, CONTROL_ENABLE);
    assert_eq!((pending(&msix), router.take(77)), (0, 1));

    control(&mut msix, &mut config, offset, CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
    handle.signal(1);
    control(&mut msix, &mut config, offset, 0);
    control(&mut msix, &mut config, offset, CONTROL_ENABLE);
    assert_eq!((pending(&msix), router.take(77)), (0, 0), "disabling forgets");
}

#[test]
fn a_changed_message_is_routed_anew_on_the_same_line() {
    let (mut msix, mut config, router, offset) = function(1);
    control(&mut msix, &mut config, offset, CONTROL_ENABLE);
    set_message(&mut msix, 0, 1);
    set_mask(&mut msix, 0, false);
    set_message(&mut msix, 0, 2);
    msix.handle().signal(0);
    assert!(router.line(1).is_none());
    assert_eq!((router.take(2), router.allocated()), (1, 1));
}

#[test]
fn signals_race_with_unmasking_without_loss() {
    let (mut msix, mut config, router, offset) = function(1);
    control(&mut msix, &mut config, offset, CONTROL_ENABLE);
    set_message(&mut msix, 0, 9);
    let handle = msix.handle();
    for _ in 0..200 {
        std::thread::scope(|scope| {
            scope.spawn(|| handle.signal(0));
            set_mask(&mut msix, 0, false);
        });
        assert_eq!((router.take(9), pending(&msix)), (1, 0));
        set_mask(&mut msix, 0, true);
    }
}

#[test]
fn overlapping_or_crooked_layouts_are_refused() {
    let router = TestRouter::new();
    let new = |vectors, bar, table, pba| Msix::new(vectors, bar, table, pba, router.clone()).is_ok();
    assert!(new(2048, 0, 0, 0x8000));
    assert!(!new(2048, 0, 0, 0x7ff8));
    assert!(!new(0, 0, 0, 0x8000));
    assert!(!new(2049, 0, 0, 0x10000));
    assert!(!new(1, 6, 0, 0x8000));
    assert!(!new(1, 0, 4, 0x8000));
}

proptest! {
    #[test]
    fn garbage_in_the_bar_is_harmless(
        accesses in proptest::collection::vec((0u64..0x3000, any::<[u8; 8]>(), 0usize..=8, any::<u16>()), 0..200),
    ) {
        let (mut msix, mut config, _router, offset) = function(67);
        let handle = msix.handle();
        for (at, bytes, length, word) in accesses {
            let mut data = bytes;
            let claimed = (0x1000..0x1000 + 67 * 16).contains(&at) || (0x2000..0x2010).contains(&at);
            prop_assert_eq!(msix.write_bar(at, &bytes[..length]), claimed);
            prop_assert_eq!(msix.read_bar(at, &mut data[..length]), claimed);
            handle.signal(word % 80);
            if word & 7 == 0 {
                control(&mut msix, &mut config, offset, word);
            }
        }
    }
}
