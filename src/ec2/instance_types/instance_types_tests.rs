use super::*;
use serde_json::Value;

const HOST: HostFacts = HostFacts { architecture: Architecture::X86_64, memory_mib: 16 * 1024, cpus: 4 };

#[test]
fn every_line_parses_and_is_found() {
    let all: Vec<_> = all().collect();
    assert_eq!(all.len(), CATALOGUE.lines().count());
    assert!(all.len() > 1300, "{}", all.len());
    assert!(all.windows(2).all(|pair| pair[0].name < pair[1].name), "sorted by name");
    for of in &all {
        assert_eq!(find(of.name).as_ref(), Some(of));
        assert!(of.vcpus > 0 && of.memory_mib > 0 && !of.network.cards.is_empty(), "{}", of.name);
        let kinds = ["nitro", "xen"].contains(&of.hypervisor);
        assert_eq!(kinds, !of.is_bare_metal(), "{}", of.name);
    }
}

#[test]
fn misses() {
    for name in ["", "t3", "t3.micr", "t3.microo", "zzz.large", "a", "T3.MICRO", "\n", "t3.micro\t"] {
        assert!(find(name).is_none(), "{name:?}");
    }
    let error = require("t3.mirco").unwrap_err();
    assert_eq!(error.code, "InvalidParameterValue");
    assert!(error.message.contains("t3.micro"), "{error}");
    assert_eq!(suggestions("T3.Micro").first(), Some(&"t3.micro"));
    assert_eq!(suggestions("something-else-entirely"), Vec::<&str>::new());
    assert_eq!(suggestions(""), Vec::<&str>::new());
}

#[test]
fn facts_of_some_types() {
    let c5 = find("c5.xlarge").unwrap();
    assert_eq!((c5.vcpus, c5.cores, c5.threads_per_core, c5.memory_mib), (4, 2, 2, 8192));
    assert_eq!((c5.family(), c5.size()), ("c5", "xlarge"));
    let t3 = find("t3.micro").unwrap();
    assert!(t3.is_burstable() && t3.is_current_generation());
    assert_eq!((t3.network.max_interfaces, t3.network.ipv4_per_interface), (2, 2));
    assert_eq!(t3.network.cards[0].baseline_gbps, 0.064);
    let i3 = find("i3.large").unwrap();
    assert_eq!(i3.instance_store.unwrap().size_gb, 475);
    let p4 = find("p4d.24xlarge").unwrap();
    assert_eq!(p4.valid_cores, (1..=24).map(|n| n * 2).collect::<Vec<_>>());
    assert_eq!((p4.network.cards.len(), p4.accelerators[0].name), (4, "A100"));
}

#[test]
fn describe_has_ec2s_shape() {
    let json = serde_json::to_value(find("t3.micro").unwrap()).unwrap();
    for (pointer, value) in [
        ("/InstanceType", Value::from("t3.micro")),
        ("/VCpuInfo/DefaultVCpus", 2.into()),
        ("/MemoryInfo/SizeInMiB", 1024.into()),
        ("/EbsInfo/EbsOptimizedInfo/BaselineThroughputInMBps", 10.875.into()),
        ("/NetworkInfo/NetworkCards/0/PeakBandwidthInGbps", 5.0.into()),
        ("/ProcessorInfo/SupportedArchitectures/0", "x86_64".into()),
        ("/SupportedBootModes/1", "uefi".into()),
        ("/Hypervisor", "nitro".into()),
    ] {
        assert_eq!(json.pointer(pointer), Some(&value), "{pointer}");
    }
    let gpu = find("p4d.24xlarge").unwrap().describe();
    assert_eq!(gpu.pointer("/GpuInfo/TotalGpuMemoryInMiB"), Some(&327_680.into()));
    assert_eq!(find("a1.metal").unwrap().describe().get("Hypervisor"), None);
}

#[test]
fn filters() {
    let filter = Filter {
        vcpus: Some(2),
        memory_gib: Some(4.0),
        architecture: Some(Architecture::X86_64),
        current_generation: Some(true),
        ..Filter::default()
    };
    let names: Vec<_> = filter.select().iter().map(|of| of.name).collect();
    assert!(names.contains(&"t3.medium") && !names.contains(&"c5.large") && names.contains(&"c7i.large"), "{names:?}");
    assert!(!names.contains(&"t4g.medium") && !names.contains(&"t3.large"));
    let by_name = |pattern: &str| Filter { name: Some(pattern.into()), ..Filter::default() }.select();
    assert_eq!(by_name("t3.*").len(), 7);
    assert_eq!(by_name("t3.micro").len(), 1);
    assert_eq!(by_name("*").len(), all().count());
    assert_eq!(by_name("t3.?????").len(), 3, "micro, small, large");
    let store = Filter { instance_store: Some(true), family: Some("m5d".into()), ..Filter::default() }.select();
    assert!(!store.is_empty() && store.iter().all(|of| of.instance_store.is_some()));
    assert!(store.windows(2).all(|pair| pair[0].vcpus <= pair[1].vcpus), "by size");
}

#[test]
fn what_this_host_can_run() {
    assert_eq!(check_runnable(&find("t3.micro").unwrap(), &HOST), Ok(vec![]));
    for (name, word) in [
        ("t4g.micro", "arm64"),
        ("m5.metal", "bare-metal"),
        ("g5.xlarge", "GPU"),
        ("inf1.xlarge", "learning"),
        ("mac1.metal", "metal"),
    ] {
        let error = check_runnable(&find(name).unwrap(), &HOST).unwrap_err();
        assert_eq!(error.code, "Unsupported", "{name}");
        assert!(error.message.contains(word), "{error}");
        assert!(error.message.contains("Would fit: "), "{error}");
    }
    let error = check_runnable(&find("m5.2xlarge").unwrap(), &HOST).unwrap_err();
    assert_eq!(error.code, "InsufficientInstanceCapacity");
    assert!(error.message.contains("Would fit: m5.xlarge (4 vCPU, 16 GiB)"), "{error}");
    let warnings = check_runnable(&find("c5.2xlarge").unwrap(), &HOST).unwrap();
    assert_eq!(warnings[0].kind, WarningKind::MoreVcpusThanHost);
    let warnings = check_runnable(&find("t2.micro").unwrap(), &HOST).unwrap();
    assert_eq!(warnings[0].kind, WarningKind::XenOnEc2);
    let tiny = HostFacts { memory_mib: 100, ..HOST };
    let error = check_runnable(&find("t3.nano").unwrap(), &tiny).unwrap_err();
    assert!(!error.message.contains("Would fit"), "{error}");
}

#[test]
fn glob_patterns() {
    for (pattern, text, fits) in [
        ("", "", true),
        ("*", "", true),
        ("a*b*c", "aXXbYYc", true),
        ("a*b*c", "aXXbYY", false),
        ("**", "x", true),
        ("?", "", false),
        ("*.metal*", "m5.metal-48xl", true),
        ("*aaaaaaaaab", "aaaaaaaaaaaaaaaaaaaaaaaa", false),
    ] {
        assert_eq!(filter::glob(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
    }
}
