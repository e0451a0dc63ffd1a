//! User-data from the command line: read as it is, and checked before anything is launched.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::args::LintArgs;
use super::error::{CliError, exit};
use super::output::write_out;
use crate::ec2::user_data::{Finding, Severity, lint};

/// More than anybody means as user-data: enough to tell how far above EC2's limit a file is.
const MAX_READ: u64 = 1 << 20;

/// The bytes of a file, or of standard input for `-`.
pub fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let read = |from: &mut dyn Read, bytes: &mut Vec<u8>| from.take(MAX_READ).read_to_end(bytes);
    let result = if path.as_os_str() == "-" {
        read(&mut io::stdin().lock(), &mut bytes)
    } else {
        File::open(path).and_then(|mut file| read(&mut file, &mut bytes))
    };
    match result {
        Ok(_) => Ok(bytes),
        Err(e) => {
            let mut error = CliError::new(exit::USAGE, format!("can't read the user-data {}", path.display()));
            error.causes.push(e.to_string());
            Err(error)
        }
    }
}

/// Check user-data before a launch: findings are printed; with `strict` they end it.
pub fn check(path: &Path, data: &[u8], strict: bool) -> Result<(), CliError> {
    let findings = lint(data);
    for finding in &findings {
        eprintln!("{}: {finding}", path.display());
    }
    let grave = findings.iter().filter(|f| f.severity > Severity::Hint).count();
    if strict && grave > 0 {
        let what = format!("the user-data {} does not pass the checks ({grave} found, --strict)", path.display());
        return Err(CliError::new(exit::REGION, what).next(format!("amiable lint {}", path.display())));
    }
    Ok(())
}

/// `amiable lint`.
pub fn run(args: &LintArgs) -> Result<(), CliError> {
    let mut worst = None;
    let mut all = Vec::new();
    for path in &args.user_data {
        let findings = lint(&read(path)?);
        worst = worst.max(findings.iter().map(|f| f.severity).max());
        if args.json {
            all.push(serde_json::json!({ "File": path.display().to_string(), "Findings": findings }));
        } else {
            write_out(&report(path, &findings))?;
        }
    }
    if args.json {
        write_out(&format!("{}\n", serde_json::Value::from(all)))?;
    }
    let limit = if args.strict { Severity::Warning } else { Severity::Error };
    match worst {
        Some(severity) if severity >= limit => {
            Err(CliError::new(exit::REGION, "the user-data does not pass the checks"))
        }
        _ => Ok(()),
    }
}

fn report(path: &Path, findings: &[Finding]) -> String {
    if findings.is_empty() {
        return format!("{}: nothing found\n", path.display());
    }
    findings.iter().map(|f| format!("{}: {f}\n", path.display())).collect()
}
