//! Official cloud images by name. The newest build is found at the distributor at the time of the pull, nothing is pinned
//! here: images are rebuilt every few weeks, and an outdated one is of no use.

use super::PullError;
use super::checksum::{Checksum, parse_manifest};
use super::client::{Client, Remote, join};

/// An image of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogueImage {
    /// What a person calls it.
    pub name: &'static str,
    /// One line about it.
    pub description: &'static str,
    /// The user that cloud-init gives the SSH key to.
    pub default_user: &'static str,
    /// Where to look.
    source: Source,
    /// The file's name begins with this …
    prefix: &'static str,
    /// … and ends with this. Between them there may be a version; the newest counts.
    suffix: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// A file of checksums beside the images.
    Manifest(&'static str),
    /// A folder of images, each with its checksum in a file beside it: this ending is added.
    Folder(&'static str, &'static str),
}

use Source::{Folder, Manifest};

macro_rules! images {
    ($($name:literal, $description:literal, $user:literal, $source:expr, $prefix:literal, $suffix:literal;)*) => {
        &[$(CatalogueImage {
            name: $name, description: $description, default_user: $user, source: $source, prefix: $prefix, suffix: $suffix,
        }),*]
    };
}

/// All images, x86_64.
pub const IMAGES: &[CatalogueImage] = images![
    "debian-12", "Debian 12 (bookworm), genericcloud", "debian",
        Manifest("https://cloud.debian.org/images/cloud/bookworm/latest/SHA512SUMS"),
        "debian-12-genericcloud-amd64", ".qcow2";
    "debian-13", "Debian 13 (trixie), genericcloud", "debian",
        Manifest("https://cloud.debian.org/images/cloud/trixie/latest/SHA512SUMS"),
        "debian-13-genericcloud-amd64", ".qcow2";
    "ubuntu-22.04", "Ubuntu Server 22.04 LTS (jammy)", "ubuntu",
        Manifest("https://cloud-images.ubuntu.com/releases/22.04/release/SHA256SUMS"),
        "ubuntu-22.04-server-cloudimg-amd64", ".img";
    "ubuntu-24.04", "Ubuntu Server 24.04 LTS (noble)", "ubuntu",
        Manifest("https://cloud-images.ubuntu.com/releases/24.04/release/SHA256SUMS"),
        "ubuntu-24.04-server-cloudimg-amd64", ".img";
    "ubuntu-26.04", "Ubuntu Server 26.04 LTS (resolute)", "ubuntu",
        Manifest("https://cloud-images.ubuntu.com/releases/26.04/release/SHA256SUMS"),
        "ubuntu-26.04-server-cloudimg-amd64", ".img";
    // "latest" redirects to the folder of a date, and so do the names in it.
    "amazonlinux-2023", "Amazon Linux 2023, KVM image", "ec2-user",
        Manifest("https://cdn.amazonlinux.com/al2023/os-images/latest/kvm/SHA256SUMS"),
        "al2023-kvm-2023.", "-x86_64.xfs.gpt.qcow2";
    "fedora-42", "Fedora Cloud 42, image for EC2 (archived)", "fedora",
        Manifest("https://archives.fedoraproject.org/pub/archive/fedora/linux/releases/42/Cloud/x86_64/images/Fedora-Cloud-42-1.1-x86_64-CHECKSUM"),
        "Fedora-Cloud-Base-AmazonEC2-42-", ".x86_64.raw.xz";
    "fedora-43", "Fedora Cloud 43, image for EC2", "fedora",
        Manifest("https://dl.fedoraproject.org/pub/fedora/linux/releases/43/Cloud/x86_64/images/Fedora-Cloud-43-1.6-x86_64-CHECKSUM"),
        "Fedora-Cloud-Base-AmazonEC2-43-", ".x86_64.raw.xz";
    "rocky-9", "Rocky Linux 9, image for EC2", "rocky",
        Manifest("https://dl.rockylinux.org/pub/rocky/9/images/x86_64/CHECKSUM"),
        "Rocky-9-EC2-Base", ".x86_64.qcow2";
    "rocky-10", "Rocky Linux 10, image for EC2", "rocky",
        Manifest("https://dl.rockylinux.org/pub/rocky/10/images/x86_64/CHECKSUM"),
        "Rocky-10-EC2-Base", ".x86_64.qcow2";
    "almalinux-9", "AlmaLinux 9, generic cloud image", "almalinux",
        Manifest("https://repo.almalinux.org/almalinux/9/cloud/x86_64/images/CHECKSUM"),
        "AlmaLinux-9-GenericCloud-9", ".x86_64.qcow2";
    "almalinux-10", "AlmaLinux 10, generic cloud image", "almalinux",
        Manifest("https://repo.almalinux.org/almalinux/10/cloud/x86_64/images/CHECKSUM"),
        "AlmaLinux-10-GenericCloud-10", ".x86_64.qcow2";
    "alpine-3.22", "Alpine Linux 3.22, image for EC2 with cloud-init", "alpine",
        Folder("https://dl-cdn.alpinelinux.org/alpine/v3.22/releases/cloud/", ".sha512"),
        "aws_alpine-3.22.", "-x86_64-uefi-cloudinit-r0.vhd";
];

/// The image of that name.
pub fn find(name: &str) -> Result<&'static CatalogueImage, PullError> {
    IMAGES.iter().find(|image| image.name == name).ok_or_else(|| PullError::UnknownImage {
        name: name.into(),
        known: IMAGES.iter().map(|image| image.name).collect::<Vec<_>>().join(", "),
    })
}

impl CatalogueImage {
    /// Ask the distributor which file is the newest, and for its checksum.
    pub fn resolve(&self, client: &Client) -> Result<Remote, PullError> {
        match self.source {
            Manifest(url) => self.newest_in_manifest(client, url),
            Folder(url, ending) => self.newest_in_folder(client, url, ending),
        }
    }

    pub(super) fn newest_in_manifest(&self, client: &Client, url: &str) -> Result<Remote, PullError> {
        let (text, url) = client.text(url)?;
        let names = parse_manifest(&text);
        let (name, checksum) = names
            .into_iter()
            .filter(|(name, _)| self.fits(name))
            .max_by(|(a, _), (b, _)| version_order(a, b))
            .ok_or_else(|| self.not_there(&url))?;
        Ok(Remote { url: join(&url, &name), file_name: name, checksum: Some(checksum) })
    }

    pub(super) fn newest_in_folder(&self, client: &Client, url: &str, ending: &str) -> Result<Remote, PullError> {
        let (page, url) = client.text(url)?;
        let name = page
            .split("href=\"")
            .filter_map(|rest| Some(rest.split_once('"')?.0.trim_start_matches("./")))
            .filter(|name| self.fits(name))
            .max_by(|a, b| version_order(a, b))
            .ok_or_else(|| self.not_there(&url))?;
        let url = join(&url, name);
        let (sums, sums_url) = client.text(&format!("{url}{ending}"))?;
        let checksum = parse_manifest(&sums).into_iter().find(|(of, _)| of.is_empty() || of == name);
        let (_, checksum): (String, Checksum) = checksum.ok_or_else(|| self.not_there(&sums_url))?;
        Ok(Remote { url, file_name: name.into(), checksum: Some(checksum) })
    }

    fn fits(&self, name: &str) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
        name.chars().all(plain) && name.strip_prefix(self.prefix).is_some_and(|rest| rest.ends_with(self.suffix))
    }

    fn not_there(&self, url: &str) -> PullError {
        PullError::BadAnswer {
            url: url.into(),
            reason: format!(
                "no file \"{}…{}\" is listed there: the distributor has changed something; download the image of {} by hand \
                 and use `amiable image import FILE`",
                self.prefix, self.suffix, self.name
            ),
        }
    }
}

/// Compare names so that numbers in them count as numbers: 3.22.10 comes after 3.22.9.
pub(super) fn version_order(a: &str, b: &str) -> std::cmp::Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let number = |s: &str| s.len() - s.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (n, m) = (number(a), number(b));
        if n > 0 && m > 0 {
            let (x, y) = (a[..n].trim_start_matches('0'), b[..m].trim_start_matches('0'));
            let order = x.len().cmp(&y.len()).then(x.cmp(y));
            if order.is_ne() {
                return order;
            }
            (a, b) = (&a[n..], &b[m..]);
            continue;
        }
        let (mut left, mut right) = (a.chars(), b.chars());
        match (left.next(), right.next()) {
            (Some(x), Some(y)) if x == y => (a, b) = (left.as_str(), right.as_str()),
            (x, y) => return x.cmp(&y),
        }
    }
}
