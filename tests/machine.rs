//! The machine under a stock kernel with almost nothing in user space: devices, restarts, crashes.

mod common;

use base64::Engine;
use common::{Lab, lab, text};

/// Run a shell script in the tiny guest; answers the console.
fn tiny(lab: &Lab, script: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let run = format!("tiny.run={}", base64::engine::general_purpose::STANDARD.encode(script));
    let mut arguments = vec!["run", "tiny", "-t", "t2.micro", "--rm", "--timeout", "5m", "--append", &run];
    arguments.extend(more);
    let out = lab.run(&arguments);
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn devices_are_what_ec2_has_and_move_data() {
    let Some(lab) = lab("devices_are_what_ec2_has", "tiny") else { return };
    let script = r#"
set -e
for d in /sys/bus/pci/devices/*; do echo "PCI $(basename $d) $(cat $d/vendor) $(cat $d/device)"; done
cat /sys/class/nvme/nvme0/model
dd if=/dev/urandom of=/root/a bs=1M count=24 2>/dev/null
sync; echo 3 > /proc/sys/vm/drop_caches
cp /root/a /root/b; sync; echo 3 > /proc/sys/vm/drop_caches
cmp /root/a /root/b && echo "DISK same"
echo "PROC $(grep -c ^processor /proc/cpuinfo) $(grep -o hypervisor /proc/cpuinfo | head -1) vmx$(grep -cE 'vmx|svm' /proc/cpuinfo)"
dmesg | grep -iE 'acpi.*(error|warn)|pci.*(fail|conflict)|nvme.*(error|timeout)' | sed 's/^/COMPLAINT /' || true
"#;
    let (status, console, _) = tiny(lab, script, &["--throw-away"]);
    assert_eq!(status, Some(0));
    assert!(console.contains("PCI 0000:00:04.0 0x1d0f 0x8061"), "the root volume in slot 4");
    assert!(console.contains("PCI 0000:00:05.0 0x1af4 0x1041"), "the network interface in slot 5");
    assert!(console.contains("Amazon Elastic Block Store"));
    assert!(console.contains("DISK same"));
    assert!(console.contains("PROC 1 hypervisor vmx0"));
    assert!(!console.contains("COMPLAINT"));
    assert!(console.contains("TINY: exit 0"));
}

#[test]
fn a_guest_that_reboots_is_restarted_with_its_disk() {
    let Some(lab) = lab("a_guest_that_reboots", "tiny") else { return };
    let script =
        "if [ -e /root/once ]; then echo SECOND; exit 0; fi; touch /root/once; sync; echo FIRST; reboot -f; sleep 60";
    let (status, console, log) = tiny(lab, script, &[]);
    assert_eq!(status, Some(0));
    assert!(console.contains("FIRST") && console.contains("SECOND"));
    assert!(log.contains("reboot") && log.contains("power-off"));
}

#[test]
fn a_kernel_that_panics_is_reported() {
    let Some(lab) = lab("a_kernel_that_panics", "tiny") else { return };
    let crash = "echo 0 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger; sleep 60";
    let (status, _, log) = tiny(lab, crash, &[]);
    assert_eq!(status, Some(255));
    assert!(log.contains("Kernel panic - not syncing"));
}

#[test]
fn a_kernel_that_restarts_after_a_panic_finds_its_disk_again() {
    let Some(lab) = lab("a_kernel_that_restarts", "tiny") else { return };
    let crash = "if [ -e /root/once ]; then echo SECOND; exit 0; fi; touch /root/once; sync; echo 1 > /proc/sys/kernel/panic; \
                 echo c > /proc/sysrq-trigger; sleep 60";
    let (status, console, _) = tiny(lab, crash, &[]);
    assert_eq!(status, Some(0));
    assert!(console.contains("Kernel panic") && console.contains("SECOND"));
}

#[test]
fn a_kernel_without_an_image_s_own_is_started_with_its_words() {
    let Some(lab) = lab("a_kernel_given", "tiny") else { return };
    let kernel = common::target("images/emulated-host/vmlinuz");
    if !kernel.exists() {
        eprintln!("SKIPPED: a_kernel_given needs target/images/emulated-host: tests/run makes it");
        return;
    }
    // A bzImage by the 64-bit boot protocol, unpacking itself; without a root it panics, and restarts as told.
    let out = lab.run(&[
        "run",
        "tiny",
        "-t",
        "t2.micro",
        "--rm",
        "--kernel",
        kernel.to_str().unwrap(),
        "--append",
        "console=ttyS0 root=none panic=0 words=heard",
        "--timeout",
        "5m",
    ]);
    assert!(text(&out.stdout).contains("words=heard"));
    assert_eq!(out.status.code(), Some(255), "the panic is the end");
}

/// Looks at the instance-store disk behind the volume, marks it, and restarts; in the second boot it looks for the mark.
const STORE: &str = r#"
say() { echo "STORE $1=[$2]"; }
disk=/dev/nvme2n1
for i in $(seq 300); do [ -b $disk ] && break; usleep 100000; done
if [ "$(head -c 6 $disk)" = MARKED ]; then say reboot survived; exit; fi
say model "$(sed 's/ *$//' /sys/class/nvme/nvme2/model)"
say serial "$(cut -c 1-3 /sys/class/nvme/nvme2/serial)$(tr -d ' \n' < /sys/class/nvme/nvme2/serial | wc -c)"
say size "$(cat /sys/block/nvme2n1/size)"
say pci "$(cat /sys/class/nvme/nvme2/device/vendor):$(cat /sys/class/nvme/nvme2/device/device)"
say volume "$(sed 's/ *$//' /sys/class/nvme/nvme1/model)"
net-up >/dev/null 2>&1
say mapping "$(wget -q -O - http://169.254.169.254/latest/meta-data/block-device-mapping/ | tr '\n' ' ')"
printf MARKED | dd of=$disk conv=fsync 2>/dev/null
reboot -f
sleep 60
"#;

#[test]
fn instance_store_disks_survive_a_reboot_and_no_stop() {
    let Some(lab) = lab("instance_store_disks", "tiny") else { return };
    let run = format!("tiny.run={}", base64::engine::general_purpose::STANDARD.encode(STORE));
    let words = "run tiny -t c5d.large --name store --volume 1G --append".split(' ');
    let console = text(&lab.run(&words.chain([&*run]).collect::<Vec<_>>()).stdout);
    for line in [
        "STORE model=[Amazon EC2 NVMe Instance Storage]",
        "STORE serial=[AWS20]",
        "STORE size=[97656250]",
        "STORE pci=[0x1d0f:0xcd01]",
        "STORE volume=[Amazon Elastic Block Store]",
        "STORE mapping=[ami ebs1 root]",
        "STORE reboot=[survived]",
    ] {
        assert!(console.contains(line), "{line}");
    }
    // Stopped and started it is another, empty disk.
    lab.run(&["start", "store"]);
    let both = text(&lab.run(&["console", "store", "--follow"]).stdout);
    assert_eq!(both.matches("STORE model=").count(), 2);
    lab.run(&["terminate", "store"]);
}
