#!/usr/bin/env python3
"""Make catalogue.tsv from the answers of the real DescribeInstanceTypes that the moto project publishes.

Usage:  pip download --no-deps moto && ./generate.py moto-*.whl        (or the instance_types.json[.gz] in it)

Source: moto (https://github.com/getmoto/moto), file moto/ec2/resources/instance_types.json.gz, Apache License 2.0.
parse.rs reads the columns in the order of row() below. Lines are sorted by type name, as bytes.
"""
import gzip
import json
import pathlib
import sys
import zipfile

MEMBER = "moto/ec2/resources/instance_types.json.gz"


def load(path):
    raw = pathlib.Path(path).read_bytes()
    if path.endswith(".whl"):
        raw = zipfile.ZipFile(path).read(MEMBER)
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    return json.loads(raw)


def number(value):
    """A number in its shortest form: 5.0 is 5."""
    return "" if value is None else format(value, "g") if isinstance(value, float) else str(value)


def ranges(values):
    """[1,2,3,4] is 1-4, [2,4,6] is 2-6/2, anything else a list: 1,4,9."""
    if len(values) > 2:
        step = values[1] - values[0]
        if step > 0 and values == list(range(values[0], values[-1] + 1, step)):
            return f"{values[0]}-{values[-1]}" + (f"/{step}" if step > 1 else "")
    return ",".join(map(str, values))


FLAGS = [
    ("c", lambda t: t["CurrentGeneration"]),
    ("f", lambda t: t["FreeTierEligible"]),
    ("m", lambda t: t["BareMetal"]),
    ("b", lambda t: t["BurstablePerformanceSupported"]),
    ("h", lambda t: t["HibernationSupported"]),
    ("d", lambda t: t["DedicatedHostsSupported"]),
    ("a", lambda t: t["AutoRecoverySupported"]),
    ("r", lambda t: t["RebootMigrationSupport"] == "supported"),
    ("e", lambda t: t["NitroEnclavesSupport"] == "supported"),
    ("t", lambda t: t["NitroTpmSupport"] == "supported"),
    ("p", lambda t: t["PhcSupport"] == "supported"),
    ("g", lambda t: "cluster" in t["PlacementGroupInfo"]["SupportedStrategies"]),
    ("i", lambda t: "instance-store" in t["SupportedRootDeviceTypes"]),
    ("v", lambda t: "paravirtual" in t["SupportedVirtualizationTypes"]),
    ("O", lambda t: "on-demand" in t["SupportedUsageClasses"]),
    ("S", lambda t: "spot" in t["SupportedUsageClasses"]),
    ("C", lambda t: "capacity-block" in t["SupportedUsageClasses"]),
    ("L", lambda t: "legacy-bios" in t["SupportedBootModes"]),
    ("U", lambda t: "uefi" in t["SupportedBootModes"]),
    ("6", lambda t: t["NetworkInfo"]["Ipv6Supported"]),
    ("X", lambda t: t["NetworkInfo"]["EncryptionInTransitSupported"]),
    ("Q", lambda t: t["NetworkInfo"]["EnaSrdSupported"]),
    ("D", lambda t: t["EbsInfo"]["AttachmentLimitType"] == "dedicated"),
]


def ebs(t):
    info = t["EbsInfo"]
    head = [info["EbsOptimizedSupport"], info["NvmeSupport"], info["MaximumEbsAttachments"]]
    limits = info.get("EbsOptimizedInfo")
    if limits:
        for kind in ("Baseline", "Maximum"):
            for what in ("BandwidthInMbps", "ThroughputInMBps", "Iops"):
                head.append(number(limits[kind + what]))
    return ":".join(map(str, head))


def storage(t):
    info = t.get("InstanceStorageInfo")
    if not info:
        return ""
    (disk,) = info["Disks"]
    return ":".join(map(str, [disk["Count"], disk["SizeInGB"], disk["Type"], info["NvmeSupport"],
                              info.get("EncryptionSupport", "unsupported")]))


def cards(t):
    out = []
    for card in t["NetworkInfo"]["NetworkCards"]:
        out.append(":".join([number(card["BaselineBandwidthInGbps"]), number(card["PeakBandwidthInGbps"]),
                             str(card["MaximumNetworkInterfaces"]), card["NetworkPerformance"]]))
    # Cards that are all the same are written once, with their number.
    runs = []
    for card in out:
        if runs and runs[-1][1] == card:
            runs[-1][0] += 1
        else:
            runs.append([1, card])
    return ",".join(card if count == 1 else f"{count}*{card}" for count, card in runs)


def accelerators(t):
    out = []
    for kind, outer, inner in (("gpu", "GpuInfo", "Gpus"), ("fpga", "FpgaInfo", "Fpgas"),
                               ("inference", "InferenceAcceleratorInfo", "Accelerators"),
                               ("neuron", "NeuronInfo", "NeuronDevices"),
                               ("media", "MediaAcceleratorInfo", "Accelerators")):
        for item in t.get(outer, {}).get(inner, []):
            out.append(":".join(map(str, [kind, item["Count"], item["Name"], item.get("Manufacturer", ""),
                                          item["MemoryInfo"]["SizeInMiB"]])))
    return ",".join(out)


def row(name, t):
    cpu, net, proc = t["VCpuInfo"], t["NetworkInfo"], t["ProcessorInfo"]
    return [
        name,
        "".join(letter for letter, test in FLAGS if test(t)),
        t.get("Hypervisor", ""),
        ",".join(proc["SupportedArchitectures"]),
        proc["Manufacturer"],
        number(proc.get("SustainedClockSpeedInGhz")),
        ",".join(proc.get("SupportedFeatures", [])),
        str(cpu["DefaultVCpus"]),
        str(cpu["DefaultCores"]),
        str(cpu["DefaultThreadsPerCore"]),
        ranges(cpu.get("ValidCores", [])),
        ranges(cpu.get("ValidThreadsPerCore", [])),
        str(t["MemoryInfo"]["SizeInMiB"]),
        ebs(t),
        storage(t),
        net["NetworkPerformance"],
        str(net["MaximumNetworkInterfaces"]),
        str(net["Ipv4AddressesPerInterface"]),
        str(net["Ipv6AddressesPerInterface"]),
        net["EnaSupport"],
        str(net.get("EfaInfo", {}).get("MaximumEfaInterfaces", 0)) if net["EfaSupported"] else "",
        cards(t),
        accelerators(t),
    ]


def main():
    types = load(sys.argv[1])
    lines = []
    for name in sorted(types, key=lambda n: n.encode()):
        fields = row(name, types[name])
        assert not any("\t" in f or "\n" in f for f in fields), name
        lines.append("\t".join(fields))
    target = pathlib.Path(__file__).with_name("catalogue.tsv")
    target.write_text("\n".join(lines) + "\n")
    print(f"{target}: {len(lines)} types, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
