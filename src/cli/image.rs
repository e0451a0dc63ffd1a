//! `amiable image`: AMIs imported, pulled, listed, described, removed.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::args::{ExportForm, ImageCommand, ListArgs, OutputArgs, OutputForm};
use super::error::{CliError, exit};
use super::output::{human_size, print_list, print_value, write_out};
use super::{lifecycle, open_region, region_error};
use crate::region::model::Image;
use crate::region::{ImportRequest, Region};
use crate::storage::export::ExportFormat;
use crate::storage::import::Format;
use crate::storage::pull::catalogue::{self, IMAGES};
use crate::storage::pull::{Checksum, Client, Remote};

/// Run the command.
pub fn run(command: ImageCommand, emulate: bool, started: Instant) -> Result<(), CliError> {
    match command {
        ImageCommand::Import { file, name, format, checksum, root_device_name, replace } => {
            let format =
                format.as_deref().map(str::parse::<Format>).transpose().map_err(|e| CliError::new(exit::USAGE, e))?;
            if let Some(expected) = parse_checksum(checksum.as_deref())? {
                verify(&file, &expected)?;
            }
            let request = ImportRequest {
                file: &file,
                name: &name,
                source: None,
                format,
                root_device_name: &root_device_name,
                replace,
            };
            import(&mut open_region()?, &request)
        }
        ImageCommand::Pull { list: true, .. } => list_catalogue(),
        ImageCommand::Pull { source: None, .. } => {
            Err(CliError::new(exit::USAGE, "which image?").next("amiable image pull --list"))
        }
        ImageCommand::Pull { source: Some(source), name, checksum, replace, .. } => {
            pull(&source, name.as_deref(), checksum.as_deref(), replace)
        }
        ImageCommand::Ls(wanted) => list(&open_region()?, &wanted),
        ImageCommand::Describe { image, output } => {
            let region = open_region()?;
            let image = region.image(&image).map_err(|e| region_error(&e).next("amiable image ls"))?;
            print_value(&output, describe(&region, &image)?)
        }
        ImageCommand::Create { from, name, no_reboot } => {
            lifecycle::create_image(&from, &name, !no_reboot, emulate, started)
        }
        ImageCommand::Copy { image, name } => {
            let mut region = open_region()?;
            let image = region.image(&image).map_err(|e| region_error(&e).next("amiable image ls"))?;
            let copy = region.copy_image(&image, &name).map_err(|e| region_error(&e))?;
            write_out(&format!("{}\n", copy.image_id))
        }
        ImageCommand::Export { image, file, format } => {
            let region = open_region()?;
            let image = region.image(&image).map_err(|e| region_error(&e).next("amiable image ls"))?;
            let format = match format {
                ExportForm::Raw => ExportFormat::Raw,
                ExportForm::Qcow2 => ExportFormat::Qcow2,
                ExportForm::Vmdk => ExportFormat::Vmdk,
            };
            let sum = region.export_image(&image, &file, format).map_err(|e| region_error(&e))?;
            // As sha256sum prints it, for sha256sum -c.
            write_out(&format!("{sum}  {}\n", file.display()))
        }
        ImageCommand::Rm { images } => {
            let mut region = open_region()?;
            for image in images {
                let removed = region.remove_image(&image).map_err(|e| region_error(&e).next("amiable image ls"))?;
                write_out(&format!("{}\n", removed.image_id))?;
            }
            Ok(())
        }
    }
}

fn import(region: &mut Region, request: &ImportRequest<'_>) -> Result<(), CliError> {
    let mut meter = Meter::new("importing");
    let image = region.import_image(request, &mut |done, total| meter.show(done, total)).map_err(|e| {
        let error = region_error(&e);
        match e.code() {
            Some("InvalidAMIName.Duplicate") => error.next("the same command with --replace, or another --name"),
            _ => error,
        }
    })?;
    meter.done();
    eprintln!("{}: {}, boots {}", image.name, human_size(image.amiable.size_in_bytes), image.amiable.boot.entry);
    write_out(&format!("{}\n", image.image_id))
}

fn parse_checksum(hex: Option<&str>) -> Result<Option<Checksum>, CliError> {
    hex.map(str::parse).transpose().map_err(|e: String| CliError::new(exit::USAGE, e))
}

fn verify(file: &Path, expected: &Checksum) -> Result<(), CliError> {
    let found = expected
        .of_file(file)
        .map_err(|e| CliError::new(exit::OTHER, format!("can't read {}: {e}", file.display())))?;
    if found != *expected {
        let text =
            format!("{} has the checksum {found}, not {expected}: it is another file, or damaged", file.display());
        return Err(CliError::new(exit::OTHER, text).next("copy the file once more"));
    }
    Ok(())
}

fn pull(source: &str, name: Option<&str>, checksum: Option<&str>, replace: bool) -> Result<(), CliError> {
    let failed = |e: &crate::storage::pull::PullError| CliError::from_error(exit::OTHER, e);
    let checksum = parse_checksum(checksum)?;
    let client = Client::new();
    let (mut remote, name) = if source.contains("://") {
        let remote = Remote::from_url(source, None).map_err(|e| CliError::from_error(exit::USAGE, &e))?;
        let stem = remote.file_name.split('.').next().unwrap_or_default().to_owned();
        (remote, name.map_or(stem, str::to_owned))
    } else {
        let entry = catalogue::find(source)
            .map_err(|e| CliError::from_error(exit::USAGE, &e).next("amiable image pull --list"))?;
        (entry.resolve(&client).map_err(|e| failed(&e))?, name.unwrap_or(source).to_owned())
    };
    if checksum.is_some() {
        remote.checksum = checksum;
    }
    if remote.checksum.is_none() {
        eprintln!(
            "warning: no checksum is known for {}: what arrives is trusted as it is (--checksum HEX)",
            remote.url
        );
    }
    let mut region = open_region()?;
    // Told before the download, not after it.
    if !replace && region.image(&name).is_ok_and(|image| image.name == name) {
        return Err(CliError::new(exit::REGION, format!("the AMI name {name} is already in use"))
            .code("InvalidAMIName.Duplicate")
            .next("the same command with --replace, or another --name"));
    }
    let folder = region.paths().downloads();
    std::fs::create_dir_all(&folder).map_err(|e| CliError::from_error(exit::OTHER, &e))?;
    let file = folder.join(&remote.file_name);
    let mut meter = Meter::new("downloading");
    client.download(&remote, &file, &mut |done, total| meter.show(done, total)).map_err(|e| failed(&e))?;
    meter.done();
    let request = ImportRequest {
        file: &file,
        name: &name,
        source: Some(&remote.url),
        format: None,
        root_device_name: "/dev/xvda",
        replace,
    };
    import(&mut region, &request)?;
    // The image is kept raw; the download has served.
    let _ = std::fs::remove_file(&file);
    Ok(())
}

fn list_catalogue() -> Result<(), CliError> {
    let output = OutputArgs { output: OutputForm::Table, query: None };
    print_list(
        &output,
        "Images",
        IMAGES,
        &[
            ("NAME", &|i| i.name.to_owned()),
            ("DESCRIPTION", &|i| i.description.to_owned()),
            ("DEFAULT USER", &|i| i.default_user.to_owned()),
        ],
        |_| serde_json::Value::Null,
    )
}

fn list(region: &Region, wanted: &ListArgs) -> Result<(), CliError> {
    let output = &wanted.output;
    let images = region.images_that_fit(&wanted.filters()).map_err(|e| region_error(&e))?;
    if images.is_empty() && wanted.filters.is_empty() && output.output == OutputForm::Table {
        eprintln!("no images yet; try: amiable image pull debian-12, or: amiable image import FILE --name NAME");
    }
    print_list(
        output,
        "Images",
        &images,
        &[
            ("NAME", &|i| i.name.clone()),
            ("IMAGE ID", &|i| i.image_id.clone()),
            ("SIZE", &|i| human_size(i.amiable.size_in_bytes)),
            ("ON DISK", &|i| stored(region, i).map_or("?".into(), human_size)),
            ("KERNEL", &|i| i.amiable.boot.release.clone()),
            ("CREATED", &|i| i.creation_date.clone()),
        ],
        |i| describe(region, i).unwrap_or_default(),
    )
}

fn stored(region: &Region, image: &Image) -> Option<u64> {
    region.image_bytes(image)
}

fn describe(region: &Region, image: &Image) -> Result<serde_json::Value, CliError> {
    let mut value = serde_json::to_value(image).map_err(|e| CliError::from_error(exit::OTHER, &e))?;
    let gib = |bytes: u64| bytes.div_ceil(1 << 30);
    let of = &image.amiable;
    let mut mapping = vec![json!({ "DeviceName": image.root_device_name, "Ebs": {
        "VolumeSize": gib(of.size_in_bytes), "VolumeType": "gp3", "DeleteOnTermination": true, "Encrypted": false } })];
    mapping.extend(of.volumes.iter().map(|volume| {
        json!({ "DeviceName": volume.device_name, "Ebs": { "SnapshotId": volume.snapshot_id,
            "VolumeSize": gib(volume.size_in_bytes), "VolumeType": "gp3",
            "DeleteOnTermination": volume.delete_on_termination, "Encrypted": false } })
    }));
    value["BlockDeviceMappings"] = mapping.into();
    if let Some(stored) = stored(region, image) {
        value["Amiable"]["StoredInBytes"] = stored.into();
    }
    Ok(value)
}

/// How far a long copy is: a line that renews itself on a terminal, else a line every ten seconds.
struct Meter {
    what: &'static str,
    terminal: bool,
    started: Instant,
    shown: Instant,
    lines: bool,
}

impl Meter {
    fn new(what: &'static str) -> Self {
        let now = Instant::now();
        Meter { what, terminal: std::io::stderr().is_terminal(), started: now, shown: now, lines: false }
    }

    fn show(&mut self, done: u64, total: Option<u64>) -> ControlFlow<()> {
        let pause = if self.terminal { 100 } else { 10_000 };
        if self.shown.elapsed().as_millis() >= pause {
            self.shown = Instant::now();
            self.lines = true;
            let rate = done as f64 / self.started.elapsed().as_secs_f64().max(0.001);
            let of = total
                .filter(|t| *t > 0)
                .map_or(String::new(), |t| format!(" of {} ({:.0} %)", human_size(t), done as f64 * 100.0 / t as f64));
            let text = format!("{}: {}{of}, {}/s", self.what, human_size(done), human_size(rate as u64));
            let _ = if self.terminal {
                write!(std::io::stderr(), "\r\x1b[K{text}")
            } else {
                writeln!(std::io::stderr(), "{text}")
            };
        }
        ControlFlow::Continue(())
    }

    fn done(&self) {
        if self.terminal && self.lines {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
