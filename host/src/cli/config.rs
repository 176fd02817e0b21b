//! `reflex-edge config`: a configuration before the daemon gets it.

use clap::{Args, Subcommand};
use reflex_host::serve::config::{self, ConfigError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The two files differ, as `diff` says it.
const EXIT_DIFFERENT: u8 = 1;
/// A file is no configuration: the same code that clap uses.
const EXIT_USAGE: u8 = 2;

/// Check, print or compare configurations
#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Name all mistakes of a file, each with its line; exit code 2 if it has any
    Check {
        /// The file, without environment and flags. It need not name the provider
        file: PathBuf,
    },
    /// Print a file with all settings, each with its meaning, its default and the reason
    Default {
        /// As the table of docs/settings.md
        #[arg(long, hide = true)]
        markdown: bool,
    },
    /// Name the settings that differ between two files, and whether a reload is enough for each; exit
    /// code 1 if any does
    Diff {
        /// The file that the daemon runs with
        from: PathBuf,
        /// The file that it is to get
        to: PathBuf,
    },
}

impl Config {
    pub(crate) fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Check { file } => check(&file),
            Command::Default { markdown } => Ok((
                match markdown {
                    true => config::markdown(),
                    false => config::default_file(),
                },
                ExitCode::SUCCESS,
            )),
            Command::Diff { from, to } => diff(&from, &to),
        };
        let (text, code) = match result {
            Ok(done) => done,
            Err(errors) => {
                eprintln!("{}", config::lines(&errors));
                return ExitCode::from(EXIT_USAGE);
            }
        };
        match std::io::stdout().lock().write_all(text.as_bytes()) {
            Ok(()) => code,
            Err(_) => ExitCode::FAILURE,
        }
    }
}

fn check(file: &Path) -> Result<(String, ExitCode), Vec<ConfigError>> {
    let config = config::Config::check(file)?;
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    let text = format!("{} is valid\n", file.display());
    Ok((text, ExitCode::SUCCESS))
}

fn diff(from: &Path, to: &Path) -> Result<(String, ExitCode), Vec<ConfigError>> {
    // Both, so that the mistakes of both are told at once.
    let (from, to) = match (config::Config::check(from), config::Config::check(to)) {
        (Ok(from), Ok(to)) => (from, to),
        (from, to) => {
            return Err([from.err(), to.err()]
                .into_iter()
                .flatten()
                .flatten()
                .collect());
        }
    };
    let changes = from.changes(&to);
    let lines = changes.iter().map(|change| format!("{change}\n"));
    let code = match changes.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_DIFFERENT),
    };
    Ok((lines.collect(), code))
}
