//! `amiable key`: key pairs.

use serde_json::json;

use super::args::{KeyCommand, OutputForm};
use super::error::{CliError, exit};
use super::output::{print_list, write_out};
use super::{launch, open_region, region_error};

/// Run the command.
pub fn run(command: KeyCommand) -> Result<(), CliError> {
    let mut region = open_region()?;
    match command {
        KeyCommand::Create { name } => {
            region.create_key_pair(&name).map_err(|e| region_error(&e))?;
            let path =
                region.private_key(&name).ok_or_else(|| CliError::new(exit::OTHER, "the private key is gone"))?;
            write_out(&format!("{}\n", path.display()))
        }
        KeyCommand::Import { name, file } => {
            let line = launch::read_public_key(&file)?;
            let pair = region.import_key_pair(&name, &line).map_err(|e| region_error(&e))?;
            write_out(&format!("{}\n", pair.key_pair_id))
        }
        KeyCommand::Ls(output) => {
            let pairs = region.key_pairs().map_err(|e| region_error(&e))?;
            if pairs.is_empty() && output.output == OutputForm::Table {
                eprintln!("no key pairs; the first `amiable run` makes one");
            }
            print_list(
                &output,
                "KeyPairs",
                &pairs,
                &[
                    ("NAME", &|k| k.key_name.clone()),
                    ("TYPE", &|k| k.key_type.clone()),
                    ("FINGERPRINT", &|k| k.key_fingerprint.clone()),
                    ("CREATED", &|k| k.create_time.clone()),
                ],
                |k| json!(k),
            )
        }
        KeyCommand::Rm { names } => {
            for name in names {
                region.delete_key_pair(&name).map_err(|e| region_error(&e))?;
            }
            Ok(())
        }
    }
}
