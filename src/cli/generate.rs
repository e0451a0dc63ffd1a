//! Completion scripts and man pages, made from the command line's own definition.

use std::path::Path;

use clap::CommandFactory;

use super::args::Cli;
use super::error::{CliError, exit};
use super::output::write_out;

/// Print the completion script for a shell.
pub fn completions(shell: clap_complete::Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "amiable", &mut script);
    write_out(&String::from_utf8_lossy(&script))
}

/// Write a man page per command into `directory`.
pub fn man(directory: &Path) -> Result<(), CliError> {
    let failed = |e: std::io::Error| {
        let mut error = CliError::new(exit::OTHER, format!("can't write the man pages to {}", directory.display()));
        error.causes.push(e.to_string());
        error
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?;
    eprintln!("man pages written to {0}; read one with: man {0}/amiable.1", directory.display());
    Ok(())
}
