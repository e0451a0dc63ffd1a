use super::super::paths::Paths;
use super::super::store::InstanceRow;
use super::*;

fn filters(text: &str) -> Filters {
    Filters(text.split(' ').map(|filter| filter.parse().unwrap()).collect())
}

#[test]
fn volumes_and_snapshots_are_found_by_what_they_are() {
    let home = tempfile::tempdir().unwrap();
    let mut region = Region::open(Paths::under(home.path())).unwrap();
    let tag = |value: &str| vec![Tag { key: "env".to_owned(), value: value.to_owned() }];
    let small = region.create_volume(Some(1 << 30), None, tag("dev"), Default::default()).unwrap().volume_id;
    let large = region.create_volume(Some(5 << 30), None, tag("prod"), Default::default()).unwrap().volume_id;
    let snapshot = region.create_snapshot(&large, "nightly", Vec::new()).unwrap().snapshot_id;
    let found = |text: &str| {
        let volumes = region.volumes_that_fit(&filters(text)).unwrap();
        volumes.into_iter().map(|volume| volume.volume_id).collect::<Vec<_>>()
    };
    for text in ["size=5", "tag:env=p*", "status=available size=5", "volume-id=vol-* tag-value=prod"] {
        assert_eq!(found(text), std::slice::from_ref(&large), "{text}");
    }
    assert_eq!(found("volume-type=gp3,io1 size=1"), [small]);
    assert_eq!(found("attachment.device=*"), [""; 0]);
    assert_eq!(region.volumes_that_fit(&filters("colour=red")).unwrap_err().code(), Some("InvalidParameterValue"));
    let found = region.snapshots_that_fit(&filters(&format!("volume-id={large} description=night*"))).unwrap();
    assert_eq!(found[0].snapshot_id, snapshot);
}

#[test]
fn every_filter_of_instances_is_of_something() {
    let home = tempfile::tempdir().unwrap();
    let mut region = Region::open(Paths::under(home.path())).unwrap();
    let body = serde_json::json!({
        "InstanceId": "i-1", "ImageId": "ami-1", "InstanceType": "t3.micro", "KeyName": "k",
        "State": { "Code": 80, "Name": "stopped" }, "StateReason": { "Code": "Client.X", "Message": "Client.X: y" },
        "StateTransitionReason": "User initiated", "LaunchTime": "2026-11-20T22:25:12Z",
        "PrivateIpAddress": "172.31.0.10", "PrivateDnsName": "ip-172-31-0-10.ec2.internal", "PublicIpAddress": "198.18.0.10",
        "PublicDnsName": "ec2-198-18-0-10.compute-1.amazonaws.com", "NetworkInterfaceId": "eni-1",
        "MacAddress": "02:00:00:00:00:01", "ReservationId": "r-1", "AmiLaunchIndex": 0, "RootVolumeId": "vol-1",
        "RootDeviceName": "/dev/xvda", "Architecture": "x86_64", "Tags": [{ "Key": "Name", "Value": "web" }],
        "MetadataOptions": {}, "Amiable": { "Published": [], "UserDataBytes": null },
    });
    let row =
        InstanceRow { instance_id: "i-1", image_id: "ami-1", state: "stopped", private_ip: None, launched: "2026" };
    region.store.tables().put_instance(row, &body).unwrap();
    let volume = region.create_volume(Some(1 << 30), None, Vec::new(), Default::default()).unwrap().volume_id;
    let instance = region.instance("i-1").unwrap();
    region.edit(&volume, |volume| super::super::attachments::attach_root(volume, &instance)).unwrap();
    for name in INSTANCE {
        let fits = |value: &str| region.instances_that_fit(&filters(&format!("{name}={value}"))).unwrap().len();
        assert_eq!((fits("?*"), fits("none-such")), (1, 0), "{name}");
    }
    let found = |text: &str| region.instances_that_fit(&filters(text)).unwrap().len();
    assert_eq!(found("instance-state-name=stopped,running tag:Name=w?b metadata-options.http-tokens=optional"), 1);
    assert_eq!(
        found(&format!("block-device-mapping.volume-id={volume} block-device-mapping.device-name=/dev/xvda")),
        1
    );
    assert_eq!(found("launch-time=2026-11-20T*"), 1);
}
