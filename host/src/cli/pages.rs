//! What shells and `man` know of the commands, made from the flags themselves.

use clap::{Args, Command};
use clap_complete::Shell;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

/// Print a script that completes the commands and flags of reflex-edge in a shell
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Its shell
    shell: Shell,
}

/// Print the manual page of reflex-edge, or write those of all commands
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// A folder for reflex-edge.1, reflex-edge-serve.1 and so on
    folder: Option<PathBuf>,
}

impl Completions {
    pub(crate) fn run(self, mut command: Command) -> ExitCode {
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        done(io::stdout().write_all(&script))
    }
}

impl Man {
    pub(crate) fn run(self, command: Command) -> ExitCode {
        done(match self.folder {
            Some(folder) => clap_mangen::generate_to(command, folder),
            None => {
                let mut page = Vec::new();
                // As `generate_to` has it: the help of `help` needs no page.
                let command = command.disable_help_subcommand(true);
                let rendered = clap_mangen::Man::new(command).render(&mut page);
                rendered.and_then(|()| io::stdout().write_all(&page))
            }
        })
    }
}

fn done(written: io::Result<()>) -> ExitCode {
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reflex-edge: {error}");
            ExitCode::FAILURE
        }
    }
}
