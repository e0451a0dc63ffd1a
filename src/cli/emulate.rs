//! `amiable emulate`: the emulated host that stays up between commands.

use super::args::EmulateCommand;
use super::error::{CliError, exit};
use super::output::print_value;
use super::paths;
use crate::emulate::SharedHost;

/// Run the command.
pub fn run(command: EmulateCommand) -> Result<(), CliError> {
    let directory = paths()?.emulate_state();
    let failed = |e: crate::emulate::Error| CliError::from_error(exit::OTHER, &e);
    match command {
        EmulateCommand::Status(output) => {
            let value = match SharedHost::status(&directory).map_err(failed)? {
                Some(status) => serde_json::to_value(&status).map_err(|e| CliError::from_error(exit::OTHER, &e))?,
                None => serde_json::json!({ "Phase": "off" }),
            };
            print_value(&output, value)
        }
        EmulateCommand::Stop { grace } => {
            if !SharedHost::stop(&directory, grace).map_err(failed)? {
                eprintln!("the emulated host was not up");
            }
            Ok(())
        }
    }
}
