use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::boot::fs::FileKind;

const DEBIAN: &str = include_str!("fixtures/debian-12.cfg");
const UBUNTU: &str = include_str!("fixtures/ubuntu-24.04.cfg");
const FEDORA: &str = include_str!("fixtures/fedora.cfg");
const UUID: &str = "11111111-2222-3333-4444-555555555555";

/// Devices with their UUID and files.
#[derive(Default)]
struct Disk {
    uuids: Vec<(&'static str, &'static str)>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Disk {
    fn new(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| (path.to_string(), text.as_bytes().to_vec())).collect();
        Self { uuids: vec![(UUID, "hd0,gpt1")], files }
    }
    fn debian(environment: &str) -> Self {
        let names = ["vmlinuz", "initrd.img"];
        let mut disk = Self::new(&[("(hd0,gpt1)/boot/grub/grubenv", environment)]);
        for release in ["6.1.0-50-cloud-amd64", "6.1.0-49-cloud-amd64"] {
            names.iter().for_each(|n| drop(disk.files.insert(format!("(hd0,gpt1)/boot/{n}-{release}"), vec![1])));
        }
        disk
    }
    fn boot(&mut self, text: &str) -> Result<Loaded, GrubError> {
        let at = Place { device: "hd0,gpt1".into(), path: "/boot/grub/grub.cfg".into() };
        boot(self, text.as_bytes(), &at, &[])
    }
}

impl Host for Disk {
    fn stat(&mut self, device: &str, path: &str) -> Option<Stat> {
        let size = self.files.get(&format!("({device}){path}"))?.len() as u64;
        Some(Stat { kind: FileKind::File, size, stamp: 0 })
    }
    fn read(&mut self, device: &str, path: &str, _: u64) -> Option<Vec<u8>> {
        self.files.get(&format!("({device}){path}")).cloned()
    }
    fn list(&mut self, device: &str, path: &str) -> Vec<String> {
        let directory = format!("({device}){path}/");
        self.files.keys().filter_map(|f| f.strip_prefix(&directory).map(str::to_string)).collect()
    }
    fn search(&mut self, by: SearchBy, what: &str) -> Option<String> {
        match by {
            SearchBy::Uuid => self.uuids.iter().find(|(u, _)| *u == what).map(|(_, d)| d.to_string()),
            SearchBy::File => {
                let (device, _) = self.files.keys().find_map(|f| f[1..].split_once(')').filter(|(_, p)| *p == what))?;
                Some(device.to_string())
            }
            SearchBy::Label => None,
        }
    }
}

#[test]
fn debian_default_entry() {
    let loaded = Disk::debian("# GRUB Environment Block\n").boot(DEBIAN).unwrap();
    assert_eq!(loaded.title, "Debian GNU/Linux");
    assert_eq!(loaded.kernel, Place { device: "hd0,gpt1".into(), path: "/boot/vmlinuz-6.1.0-50-cloud-amd64".into() });
    assert_eq!(loaded.initrds.len(), 1);
    assert_eq!(loaded.initrds[0].path, "/boot/initrd.img-6.1.0-50-cloud-amd64");
    assert_eq!(
        loaded.cmdline,
        "BOOT_IMAGE=/boot/vmlinuz-6.1.0-50-cloud-amd64 root=UUID=11111111-2222-3333-4444-555555555555 ro console=tty0 \
         console=ttyS0,115200 consoleblank=0"
    );
}

#[test]
fn debian_entries_by_number_id_and_title() {
    let advanced = format!("gnulinux-advanced-{UUID}");
    for choice in [
        "1>1".to_string(),
        format!("{advanced}>gnulinux-6.1.0-49-cloud-amd64-advanced-{UUID}"),
        "Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 6.1.0-49-cloud-amd64".to_string(),
        format!("{advanced}>1"),
    ] {
        let loaded =
            Disk::debian(&format!("# GRUB Environment Block\nnext_entry={choice}\n####")).boot(DEBIAN).unwrap();
        assert_eq!(loaded.kernel.path, "/boot/vmlinuz-6.1.0-49-cloud-amd64", "{choice}");
        assert!(loaded.title.starts_with("Advanced options for Debian GNU/Linux>Debian"), "{}", loaded.title);
    }
    let submenu_alone = Disk::debian("next_entry=1\n").boot(DEBIAN).unwrap();
    assert_eq!(submenu_alone.kernel.path, "/boot/vmlinuz-6.1.0-50-cloud-amd64");
    let unknown = Disk::debian("next_entry=nothing like this\n").boot(DEBIAN).unwrap();
    assert_eq!(unknown.title, "Debian GNU/Linux");
}

#[test]
fn saved_entry() {
    let text = DEBIAN.replace("set default=\"0\"", "set default=\"${saved_entry}\"");
    let loaded = Disk::debian(&format!("saved_entry=gnulinux-advanced-{UUID}>1\n")).boot(&text).unwrap();
    assert_eq!(loaded.kernel.path, "/boot/vmlinuz-6.1.0-49-cloud-amd64");
    assert_eq!(Disk::debian("").boot(&text).unwrap().title, "Debian GNU/Linux");
}

#[test]
fn a_missing_kernel_is_said_and_fallback_followed() {
    let mut disk = Disk::debian("");
    disk.files.remove("(hd0,gpt1)/boot/vmlinuz-6.1.0-50-cloud-amd64");
    let error = disk.boot(DEBIAN).unwrap_err().to_string();
    assert!(error.contains("kernel (hd0,gpt1)/boot/vmlinuz-6.1.0-50-cloud-amd64 does not exist"), "{error}");
    let text = DEBIAN.replace("set default=\"0\"", "set default=\"0\"\nset fallback=\"5>0 1>1\"");
    assert_eq!(disk.boot(&text).unwrap().kernel.path, "/boot/vmlinuz-6.1.0-49-cloud-amd64");
}

#[test]
fn ubuntu_with_and_without_its_trial_boot() {
    let mut disk = Disk::new(&[
        ("(hd0,gpt1)/boot/vmlinuz-6.8.0-1021-aws", "k"),
        ("(hd0,gpt1)/boot/microcode.cpio", "m"),
        ("(hd0,gpt1)/boot/initrd.img-6.8.0-1021-aws", "i"),
        ("(hd0,gpt1)/boot/grub/grubenv", "# GRUB Environment Block\n"),
    ]);
    let at = Place { device: "hd0,gpt1".into(), path: "/boot/grub/grub.cfg".into() };
    let loaded = boot(&mut disk, UBUNTU.as_bytes(), &at, &[]).unwrap();
    assert!(loaded.initrds.is_empty() && loaded.cmdline.ends_with("panic=-1"));
    let loaded = boot(&mut disk, UBUNTU.as_bytes(), &at, &[("initrdfail", "1")]).unwrap();
    let paths: Vec<_> = loaded.initrds.iter().map(|i| i.path.as_str()).collect();
    assert_eq!(paths, ["/boot/microcode.cpio", "/boot/initrd.img-6.8.0-1021-aws"]);
    assert!(loaded.cmdline.ends_with(" ro console=tty1 console=ttyS0 nvme_core.io_timeout=4294967295"));
}

fn fedora() -> Disk {
    let entry = |release: &str| {
        format!(
            "title Fedora Linux ({release}) 41 (Cloud Edition)\nversion {release}\nlinux /vmlinuz-{release}\n\
             initrd /initramfs-{release}.img $tuned_initrd\noptions $kernelopts $tuned_params\ngrub_users $grub_users\n"
        )
    };
    let (old, new) = (entry("6.9.9-200.fc41.x86_64"), entry("6.11.4-301.fc41.x86_64"));
    Disk::new(&[
        ("(hd0,gpt1)/loader/entries/abc-6.9.9-200.fc41.x86_64.conf", &old),
        ("(hd0,gpt1)/loader/entries/abc-6.11.4-301.fc41.x86_64.conf", &new),
        ("(hd0,gpt1)/vmlinuz-6.9.9-200.fc41.x86_64", "k"),
        ("(hd0,gpt1)/initramfs-6.9.9-200.fc41.x86_64.img", "i"),
        ("(hd0,gpt1)/vmlinuz-6.11.4-301.fc41.x86_64", "k"),
        ("(hd0,gpt1)/initramfs-6.11.4-301.fc41.x86_64.img", "i"),
    ])
}

#[test]
fn fedora_takes_the_newest_entry_or_the_saved_one() {
    let mut disk = fedora();
    let loaded = disk.boot(FEDORA).unwrap();
    assert_eq!(loaded.title, "Fedora Linux (6.11.4-301.fc41.x86_64) 41 (Cloud Edition)");
    assert_eq!(loaded.initrds.len(), 1);
    assert_eq!(
        loaded.cmdline,
        "BOOT_IMAGE=(hd0,gpt1)/vmlinuz-6.11.4-301.fc41.x86_64 root=UUID=99999999-0000-4000-8000-000000000000 ro \
         console=tty0 console=ttyS0,115200n8"
    );
    let environment = "# GRUB Environment Block\nsaved_entry=abc-6.9.9-200.fc41.x86_64\nboot_success=1\n\
                       kernelopts=root=LABEL=x ro rootflags=subvol=root\ntuned_params=nosmt\n";
    disk.files.insert("(hd0,gpt1)/boot/grub/grubenv".into(), environment.into());
    let loaded = disk.boot(FEDORA).unwrap();
    assert_eq!(
        loaded.cmdline,
        "BOOT_IMAGE=(hd0,gpt1)/vmlinuz-6.9.9-200.fc41.x86_64 root=LABEL=x ro rootflags=subvol=root nosmt"
    );
}

#[test]
fn entries_below_boot_on_the_root_file_system() {
    let entry = "title Amazon Linux\nlinux /vmlinuz-6.1\ninitrd /initramfs-6.1.img\noptions root=UUID=x ro\n";
    let mut disk = Disk::new(&[
        ("(hd0,gpt1)/boot/loader/entries/a.conf", entry),
        ("(hd0,gpt1)/boot/vmlinuz-6.1", "k"),
        ("(hd0,gpt1)/boot/initramfs-6.1.img", "i"),
    ]);
    let loaded = disk.boot(FEDORA).unwrap();
    assert_eq!(loaded.kernel.path, "/boot/vmlinuz-6.1");
    assert_eq!(loaded.cmdline, "BOOT_IMAGE=(hd0,gpt1)/boot/vmlinuz-6.1 root=UUID=x ro");
}

#[test]
fn the_esp_stub_leads_to_the_real_file() {
    let stub =
        format!("search.fs_uuid {UUID} root hd0,gpt1 \nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n");
    let mut disk = Disk::debian("");
    disk.files.insert("(hd0,gpt1)/boot/grub/grub.cfg".into(), DEBIAN.into());
    let at = Place { device: "hd0,gpt15".into(), path: "/EFI/debian/grub.cfg".into() };
    let loaded = boot(&mut disk, stub.as_bytes(), &at, &[]).unwrap();
    assert_eq!((loaded.title.as_str(), loaded.kernel.device.as_str()), ("Debian GNU/Linux", "hd0,gpt1"));
    disk.files.remove("(hd0,gpt1)/boot/grub/grub.cfg");
    let error = boot(&mut disk, stub.as_bytes(), &at, &[]).unwrap_err().to_string();
    assert!(error.contains("configfile (hd0,gpt1)/boot/grub/grub.cfg: no such file"), "{error}");
}

#[test]
fn a_file_that_loads_itself_ends() {
    let text = "configfile ($root)/boot/grub/grub.cfg\nsource ($root)/boot/grub/grub.cfg\n";
    let mut disk = Disk::new(&[("(hd0,gpt1)/boot/grub/grub.cfg", text)]);
    assert!(disk.boot(text).is_err());
    let endless = "while true; do set a=\"x$a$a\"; done\nfunction f { f; f; }\nf\n";
    assert_eq!(disk.boot(endless), Err(GrubError::TooLong));
}

#[test]
fn deep_nesting_stays_on_a_small_stack() {
    let nested =
        |n: usize| format!("function f {{ {} f; {} }}\nf\nlinux /k\n", "if true; then ".repeat(n), "fi; ".repeat(n));
    let run = |text: String| std::thread::Builder::new().stack_size(1 << 20).spawn(move || fuzz(text.as_bytes()));
    for text in [nested(15), nested(5000), "submenu a { ".repeat(5000), "{".repeat(5000)] {
        run(text).unwrap().join().unwrap();
    }
}

/// The command line that a one-line script with this `linux` command gives.
fn cmdline(script: &str) -> String {
    Disk::new(&[("(hd0,gpt1)/k", "k"), ("(hd0,gpt1)/i", "i")]).boot(script).unwrap().cmdline
}

#[test]
fn words_and_quotes() {
    assert_eq!(cmdline("linux /k a 'b c' \"d\\\"e\" f\\ g ''"), "BOOT_IMAGE=/k a \"b c\" d\\\"e \"f g\" ");
    assert_eq!(cmdline("set x='1 2'; linux /k $x \"$x\" ${x}3 $none \"$none\"z"), "BOOT_IMAGE=/k 1 2 \"1 2\" 1 23 z");
    assert_eq!(cmdline("linux /k a=$root # comment\nboot"), "BOOT_IMAGE=/k a=hd0,gpt1");
    assert_eq!(cmdline("linux /k a \\\n  b"), "BOOT_IMAGE=/k a b");
    assert_eq!(cmdline("linux (hd0,gpt1)/k a"), "BOOT_IMAGE=(hd0,gpt1)/k a");
}

#[test]
fn control_flow() {
    assert_eq!(
        cmdline("for i in a b c; do if [ $i = b ]; then continue; fi; set l=\"$l$i\"; done; linux /k $l"),
        "BOOT_IMAGE=/k ac"
    );
    assert_eq!(cmdline("set n=0; until [ $n -ge 3 ]; do increment n; done; linux /k $n"), "BOOT_IMAGE=/k 3");
    assert_eq!(
        cmdline("function f { if [ \"$1\" = x ]; then return; fi; set r=$1$#; }; f y z; f x; linux /k $r"),
        "BOOT_IMAGE=/k y2"
    );
    assert_eq!(
        cmdline(
            "if unknown_command; then set a=1; elif test -f /k -a ! -d /k; then set a=2; else set a=3; fi; linux /k $a"
        ),
        "BOOT_IMAGE=/k 2"
    );
    assert_eq!(cmdline("if [ -s /k -a ( x = y ) -o -z \"\" ]; then set a=1; fi; linux /k $a"), "BOOT_IMAGE=/k 1");
    assert_eq!(cmdline("menuentry a --id=q { linux /k $1 $2; initrd /i; } "), "BOOT_IMAGE=/k a");
}

#[test]
fn environment_blocks() {
    let block = grubenv(b"# GRUB Environment Block\na=1\nb=x=y\nc=two\\\nlines\n\n#######");
    let pairs: Vec<_> = block.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(pairs, [("a", "1"), ("b", "x=y"), ("c", "two\nlines")]);
}

proptest! {
    #[test]
    fn any_bytes_end_in_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        fuzz(&bytes);
    }

    #[test]
    fn any_words_end_in_an_answer(words in proptest::collection::vec(prop::sample::select(vec![
        "if", "then", "elif", "else", "fi", "while", "until", "do", "done", "for", "in", "function", "f", "{", "}", ";", "\n",
        "menuentry", "submenu", "a", "'a>b'", "set", "default=1", "$a", "\"$b$b\"", "b=$b$b", "[", "]", "!", "-f", "/x", "=",
        "configfile", "source", "linux", "initrd", "blscfg", "search", "--set=root", "true", "false", "return", "break", "${", "'",
    ]), 0..120)) {
        fuzz(words.join(" ").as_bytes());
    }
}
