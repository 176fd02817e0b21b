//! `reflex-edge envoy`: what an operator asks about an Envoy that is to have the filter.
//!
//! The work is `reflex-envoy-check`'s; here are the words.

use clap::{Args, Subcommand};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Something in the configuration must be changed.
const EXIT_FINDINGS: u8 = 1;
/// The configuration cannot be read: the same code that clap uses.
const EXIT_USAGE: u8 = 2;

/// Look at a configuration of Envoy that has the filter
#[derive(Debug, Args)]
pub(crate) struct Envoy {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Name what does not go together with the filter: access control and limits that a hit would
    /// skip, replies that Envoy would rewrite, buffers that are too small, settings that are
    /// missing; exit code 1 when something must be changed
    Check {
        /// A bootstrap, the output of /config_dump, or resources of Istio or Envoy Gateway, as YAML
        /// or JSON; `-` is standard input
        config: PathBuf,
    },
}

impl Envoy {
    pub(crate) fn run(self) -> ExitCode {
        let Command::Check { config } = &self.command;
        check(config).unwrap_or_else(|error| {
            eprintln!("reflex-edge: {error}");
            ExitCode::from(EXIT_USAGE)
        })
    }
}

fn check(config: &Path) -> Result<ExitCode, String> {
    let text = match config == Path::new("-") {
        true => io::read_to_string(io::stdin().lock()),
        false => std::fs::read_to_string(config),
    };
    let text = text.map_err(|error| format!("{}: {error}", config.display()))?;
    let report = reflex_envoy_check::check(&text)
        .map_err(|error| format!("{}: {error}", config.display()))?;
    let mut lines: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    lines.push(match report.filters {
        0 => "error: no filter of reflex-edge in this configuration".into(),
        filters => format!("{filters} filters, {} findings", report.findings.len()),
    });
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}").map_err(|error| error.to_string())?;
    }
    Ok(match report.fails() {
        true => ExitCode::from(EXIT_FINDINGS),
        false => ExitCode::SUCCESS,
    })
}
