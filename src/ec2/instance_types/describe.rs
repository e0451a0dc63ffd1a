//! An instance type as the API's `InstanceTypeInfo`.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{EbsLimits, InstanceType};

impl Serialize for InstanceType {
    /// The item of `DescribeInstanceTypes`, with EC2's field names.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.describe().serialize(serializer)
    }
}

fn supported(yes: bool) -> &'static str {
    if yes { "supported" } else { "unsupported" }
}

impl InstanceType {
    /// The item of `DescribeInstanceTypes`, with EC2's field names.
    pub fn describe(&self) -> Value {
        let mut item = json!({
            "InstanceType": self.name,
            "CurrentGeneration": self.is_current_generation(),
            "FreeTierEligible": self.flags.has(b'f'),
            "SupportedUsageClasses": self.words(&[(b'C', "capacity-block"), (b'O', "on-demand"), (b'S', "spot")]),
            "SupportedRootDeviceTypes": self.root_device_types(),
            "SupportedVirtualizationTypes": if self.flags.has(b'v') { vec!["hvm", "paravirtual"] } else { vec!["hvm"] },
            "BareMetal": self.is_bare_metal(),
            "ProcessorInfo": self.processor_info(),
            "VCpuInfo": self.vcpu_info(),
            "MemoryInfo": { "SizeInMiB": self.memory_mib },
            "InstanceStorageSupported": self.instance_store.is_some(),
            "EbsInfo": self.ebs_info(),
            "NetworkInfo": self.network_info(),
            "PlacementGroupInfo": { "SupportedStrategies": self.placement_strategies() },
            "HibernationSupported": self.can_hibernate(),
            "BurstablePerformanceSupported": self.is_burstable(),
            "DedicatedHostsSupported": self.flags.has(b'd'),
            "AutoRecoverySupported": self.flags.has(b'a'),
            "SupportedBootModes": self.boot_modes(),
            "NitroEnclavesSupport": supported(self.flags.has(b'e')),
            "NitroTpmSupport": supported(self.flags.has(b't')),
            "PhcSupport": supported(self.flags.has(b'p')),
            "RebootMigrationSupport": supported(self.flags.has(b'r')),
        });
        if let Some(map) = item.as_object_mut() {
            self.add_optional(map);
        }
        item
    }

    fn add_optional(&self, map: &mut Map<String, Value>) {
        if !self.hypervisor.is_empty() {
            map.insert("Hypervisor".into(), self.hypervisor.into());
        }
        if self.flags.has(b't') {
            map.insert("NitroTpmInfo".into(), json!({ "SupportedVersions": ["2.0"] }));
        }
        if let Some(store) = &self.instance_store {
            map.insert(
                "InstanceStorageInfo".into(),
                json!({
                    "TotalSizeInGB": store.size_gb.saturating_mul(store.count.into()),
                    "Disks": [{ "SizeInGB": store.size_gb, "Count": store.count, "Type": store.kind }],
                    "NvmeSupport": store.nvme,
                    "EncryptionSupport": store.encryption,
                }),
            );
        }
        for (kind, outer, inner, total) in [
            ("gpu", "GpuInfo", "Gpus", "TotalGpuMemoryInMiB"),
            ("fpga", "FpgaInfo", "Fpgas", "TotalFpgaMemoryInMiB"),
            ("inference", "InferenceAcceleratorInfo", "Accelerators", "TotalInferenceMemoryInMiB"),
            ("neuron", "NeuronInfo", "NeuronDevices", "TotalNeuronDeviceMemoryInMiB"),
            ("media", "MediaAcceleratorInfo", "Accelerators", "TotalMediaMemoryInMiB"),
        ] {
            let found: Vec<_> = self.accelerators.iter().filter(|item| item.kind == kind).collect();
            if found.is_empty() {
                continue;
            }
            // A part of a GPU counts 0 GPUs and has its own memory.
            let memory: u64 = found.iter().map(|item| item.memory_mib * u64::from(item.count.max(1))).sum();
            let items: Vec<Value> = found
                .iter()
                .map(|item| {
                    let mut value = json!({ "Count": item.count, "Name": item.name,
                        "MemoryInfo": { "SizeInMiB": item.memory_mib } });
                    if let (Some(map), false) = (value.as_object_mut(), item.manufacturer.is_empty()) {
                        map.insert("Manufacturer".into(), item.manufacturer.into());
                    }
                    value
                })
                .collect();
            map.insert(outer.into(), json!({ inner: items, total: memory }));
        }
    }

    fn root_device_types(&self) -> Vec<&'static str> {
        if self.flags.has(b'i') { vec!["ebs", "instance-store"] } else { vec!["ebs"] }
    }

    fn placement_strategies(&self) -> Vec<&'static str> {
        if self.flags.has(b'g') { vec!["cluster", "partition", "spread"] } else { vec!["partition", "spread"] }
    }

    fn processor_info(&self) -> Value {
        let mut info = json!({ "SupportedArchitectures": self.architectures, "Manufacturer": self.manufacturer });
        if let Some(map) = info.as_object_mut() {
            if let Some(clock) = self.clock_ghz {
                map.insert("SustainedClockSpeedInGhz".into(), clock.into());
            }
            if !self.processor_features.is_empty() {
                map.insert("SupportedFeatures".into(), self.processor_features.clone().into());
            }
        }
        info
    }

    fn vcpu_info(&self) -> Value {
        let mut info = json!({ "DefaultVCpus": self.vcpus, "DefaultCores": self.cores,
            "DefaultThreadsPerCore": self.threads_per_core });
        if let Some(map) = info.as_object_mut() {
            if !self.valid_cores.is_empty() {
                map.insert("ValidCores".into(), self.valid_cores.clone().into());
            }
            if !self.valid_threads_per_core.is_empty() {
                map.insert("ValidThreadsPerCore".into(), self.valid_threads_per_core.clone().into());
            }
        }
        info
    }

    fn ebs_info(&self) -> Value {
        let mut info = json!({
            "EbsOptimizedSupport": self.ebs.optimized,
            "EncryptionSupport": "supported",
            "NvmeSupport": self.ebs.nvme,
            "MaximumEbsAttachments": self.ebs.max_attachments,
            "AttachmentLimitType": if self.flags.has(b'D') { "dedicated" } else { "shared" },
        });
        if let (Some(map), Some((baseline, maximum))) = (info.as_object_mut(), &self.ebs.limits) {
            let mut limits = Map::new();
            for (kind, of) in [("Baseline", baseline), ("Maximum", maximum)] {
                let EbsLimits { bandwidth_mbps, throughput_mbytes, iops } = *of;
                limits.insert(format!("{kind}BandwidthInMbps"), bandwidth_mbps.into());
                limits.insert(format!("{kind}ThroughputInMBps"), throughput_mbytes.into());
                limits.insert(format!("{kind}Iops"), iops.into());
            }
            map.insert("EbsOptimizedInfo".into(), limits.into());
        }
        info
    }

    fn network_info(&self) -> Value {
        let net = &self.network;
        let cards: Vec<Value> = net
            .cards
            .iter()
            .enumerate()
            .map(|(index, card)| {
                json!({
                    "NetworkCardIndex": index,
                    "NetworkPerformance": card.performance,
                    "MaximumNetworkInterfaces": card.max_interfaces,
                    "BaselineBandwidthInGbps": card.baseline_gbps,
                    "PeakBandwidthInGbps": card.peak_gbps,
                })
            })
            .collect();
        let mut info = json!({
            "NetworkPerformance": net.performance,
            "MaximumNetworkInterfaces": net.max_interfaces,
            "MaximumNetworkCards": net.cards.len(),
            "DefaultNetworkCardIndex": 0,
            "NetworkCards": cards,
            "Ipv4AddressesPerInterface": net.ipv4_per_interface,
            "Ipv6AddressesPerInterface": net.ipv6_per_interface,
            "Ipv6Supported": self.flags.has(b'6'),
            "EnaSupport": net.ena,
            "EfaSupported": net.max_efa_interfaces > 0,
            "EncryptionInTransitSupported": self.flags.has(b'X'),
            "EnaSrdSupported": self.flags.has(b'Q'),
        });
        if let (Some(map), true) = (info.as_object_mut(), net.max_efa_interfaces > 0) {
            map.insert("EfaInfo".into(), json!({ "MaximumEfaInterfaces": net.max_efa_interfaces }));
        }
        info
    }
}
