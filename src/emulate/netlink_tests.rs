use super::*;

#[test]
fn messages_have_the_kernels_layout() {
    let route = message(RTM_NEWROUTE, NLM_F_CREATE, &default_route(2, Ipv4Addr::new(10, 0, 2, 2)));
    assert_eq!(route.len(), 16 + 12 + 8 + 8);
    assert_eq!(route[..4], 44u32.to_ne_bytes());
    assert_eq!(route[6..8], 0x405u16.to_ne_bytes());
    assert_eq!(route[28..36], [8, 0, 5, 0, 10, 0, 2, 2]);
    assert_eq!(link_up(7).len(), 16);
    assert_eq!(new_address(2, Ipv4Addr::new(10, 0, 2, 15), 24)[..2], [2, 24]);
}

#[test]
fn answers_are_acknowledgements_or_errors() {
    let mut ack = message(NLMSG_ERROR, 0, &[0; 20]);
    assert!(answer(&ack).is_ok());
    ack[16..20].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
    assert_eq!(answer(&ack).unwrap_err().raw_os_error(), Some(libc::EPERM));
    assert!(answer(&[]).is_err());
    assert!(answer(&message(RTM_NEWLINK, 0, &[0; 20])).is_err());
}
