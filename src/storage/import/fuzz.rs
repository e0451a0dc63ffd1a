//! Entries for fuzzers: any bytes as an image. Bounded in time and space by a small largest disk size.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use super::{Format, Input, Writer, copy};

/// Fuzzed images may describe disks up to this many bytes.
const MAX_SIZE: u64 = 8 << 20;

/// Import `bytes` as a qcow2 image and throw the result away. Answers whether they were one.
pub fn fuzz_qcow2(bytes: &[u8]) -> bool {
    import_bytes(bytes, Format::Qcow2)
}

/// Import `bytes` as a VMDK image and throw the result away. Answers whether they were one.
pub fn fuzz_vmdk(bytes: &[u8]) -> bool {
    import_bytes(bytes, Format::Vmdk)
}

fn import_bytes(bytes: &[u8], format: Format) -> bool {
    let Ok(mut file) = tempfile::tempfile() else { return false };
    if file.write_all(bytes).is_err() {
        return false;
    }
    let input = Input { file, path: Path::new("fuzz"), max_size: MAX_SIZE };
    let mut progress = |_, _| ControlFlow::Continue(());
    let Ok(mut writer) = Writer::new(&std::env::temp_dir().join("fuzz"), &mut progress) else { return false };
    copy(&input, format, &mut writer).is_ok()
}
