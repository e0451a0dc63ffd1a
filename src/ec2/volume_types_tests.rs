use super::*;

fn of(volume_type: &str, iops: u32, throughput: u32) -> Provisioned {
    let some = |value: u32| (value > 0).then_some(value);
    Provisioned { volume_type: volume_type.parse().unwrap(), iops: some(iops), throughput: some(throughput) }
}

#[test]
fn names_go_there_and_back() {
    for (of, name) in NAMES {
        assert_eq!((of.to_string().as_str(), name.parse()), (name, Ok(of)));
        assert_eq!(serde_json::to_value(of).unwrap(), name);
    }
    assert!("gp4".parse::<VolumeType>().is_err());
}

#[test]
fn rates_are_those_of_the_user_guide() {
    let iops = |p: Performance| p.operations.map(|r| (r.peak, r.credits.map(|c| c.rate)));
    let mib = |p: Performance| (p.bytes.peak / MIB, p.bytes.credits.map(|c| c.rate / MIB));
    for (provisioned, gib, expected_iops, expected_mib) in [
        (of("gp3", 0, 0), 8, Some((3000.0, None)), (125.0, None)),
        (of("gp3", 80_000, 2000), 160, Some((80_000.0, None)), (2000.0, None)),
        (of("gp2", 0, 0), 8, Some((3000.0, Some(100.0))), (128.0, None)),
        (of("gp2", 0, 0), 100, Some((3000.0, Some(300.0))), (128.0, None)),
        (of("gp2", 0, 0), 171, Some((3000.0, Some(513.0))), (250.0, None)),
        (of("gp2", 0, 0), 1000, Some((3000.0, None)), (250.0, None)),
        (of("gp2", 0, 0), 6000, Some((16_000.0, None)), (250.0, None)),
        (of("io1", 1000, 0), 100, Some((1000.0, None)), (250.0, None)),
        (of("io1", 32_000, 0), 1000, Some((32_000.0, None)), (500.0, None)),
        (of("io1", 64_000, 0), 2000, Some((64_000.0, None)), (1000.0, None)),
        (of("io2", 16_000, 0), 1000, Some((16_000.0, None)), (4000.0, None)),
        (of("st1", 0, 0), 1024, None, (250.0, Some(40.0))),
        (of("st1", 0, 0), 12_800, None, (500.0, None)),
        (of("sc1", 0, 0), 512, None, (40.0, Some(6.0))),
        (of("sc1", 0, 0), 16 << 10, None, (250.0, Some(192.0))),
    ] {
        let performance = provisioned.performance(gib * GIB);
        assert_eq!(
            (iops(performance), mib(performance)),
            (expected_iops, expected_mib),
            "{provisioned:?} of {gib} GiB"
        );
        provisioned.check(gib * GIB).unwrap();
    }
    // A bucket of gp2's lasts for half an hour at 3,000 a second when nothing comes in; one of st1's holds the volume's size.
    assert_eq!(of("gp2", 0, 0).performance(GIB).operations.unwrap().credits.unwrap().most, 3000.0 * 1800.0);
    assert_eq!(of("st1", 0, 0).performance(GIB << 9).bytes.credits.unwrap().most, TIB / 2.0);
}

#[test]
fn an_instance_does_its_most_for_half_an_hour() {
    let limits = |iops, throughput_mbytes| EbsLimits { bandwidth_mbps: 0, throughput_mbytes, iops };
    let performance = instance_performance(limits(1000, 21.75), limits(11_800, 260.625));
    let operations = performance.operations.unwrap();
    assert_eq!((operations.peak, operations.credits.unwrap().most), (11_800.0, 10_800.0 * 1800.0));
    assert_eq!((performance.bytes.peak, performance.bytes.credits.unwrap().rate), (260_625_000.0, 21_750_000.0));
    assert_eq!(instance_performance(limits(5, 1.0), limits(5, 1.0)).operations.unwrap().credits, None);
}

#[test]
fn what_a_type_does_not_have_is_refused_as_at_ec2() {
    let refused = |provisioned: Provisioned, gib: u64| {
        let error = provisioned.check(gib * GIB).unwrap_err();
        format!("{}: {}", error.code, error.message)
    };
    for (provisioned, gib, words) in [
        (of("gp2", 3000, 0), 8, "InvalidParameterCombination: The parameter iops is not supported for gp2 volumes."),
        (of("io2", 3000, 200), 8, "The parameter throughput is not supported for io2 volumes."),
        (of("io1", 0, 0), 8, "MissingParameter"),
        (of("gp3", 100, 0), 8, "Volume iops of 100 is too low; minimum is 3000."),
        (of("gp3", 90_000, 0), 800, "Volume iops of 90000 is too high; maximum is 80000."),
        (of("gp3", 16_000, 0), 8, "Iops to volume size ratio of 2000.000000 is too high; maximum is 500"),
        (of("gp3", 3000, 1000), 8, "Throughput (MiBps) to iops ratio of 0.333333 is too high"),
        (of("io1", 500, 0), 4, "ratio of 125.000000 is too high; maximum is 50"),
        (of("st1", 0, 0), 8, "Volume of 8GiB is too small; minimum is 125GiB."),
        (of("standard", 0, 0), 2000, "Volume of 2000GiB is too large; maximum is 1024GiB."),
    ] {
        let error = refused(provisioned, gib);
        assert!(error.contains(words), "{error}, not {words}");
    }
    of("gp3", 3000, 0).check(GIB).unwrap();
}
