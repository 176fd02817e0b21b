//! `cargo xtask …`: everything a developer, a first-time user or CI types, set-up included.
//!
//! It changes the machine only where a build needs a standard library for wasm, or where no test may
//! be skipped, and says so.

mod janitor;

mod workspace;

mod collector;
mod compose;
mod debian;
mod engine;
mod envoy;
mod languages;
mod machine;
mod native;
mod node;
mod peers;
mod python;
mod wasm;

mod build;
mod fuzz;
mod instructions;
mod schedules;
mod test;

mod admin;
mod children;
mod gateway;
mod run;
mod sockets;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use reflex_skip::Skips;

/// Builds, tests and runs reflex-edge.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build and run the cache, and Envoy with it, in front of a provider; Ctrl-C stops both
    Run(Box<run::Args>),
    /// Build what is shipped (the daemon, the component, the filter and Envoy's native module) and say
    /// where it is
    Build,
    /// Run every check: formatting, lints, tests
    Test {
        /// Fail where a part cannot run on this machine; missing packages of Debian's are installed
        #[arg(long)]
        no_skips: bool,
    },
    /// Measure; arguments go to the benchmark
    Bench {
        /// The name of one benchmark; `peers [--quick]`: beside nginx, Varnish and Envoy; `compare`:
        /// beside other stores; `l1`: a repeated request; `instructions [--renew]`: what hot paths
        /// take; `store --entries 10M`: the store at sizes up to this one; `store --encryption`: a hit
        /// from an encrypted folder
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run the fuzz targets, or one of them, within bounds of time and memory
    Fuzz {
        /// Its name
        target: Option<String>,
        /// How long each runs
        #[arg(long, default_value_t = fuzz::SECONDS)]
        seconds: u64,
    },
    /// Get a standard library for wasm and build the guests
    Wasm,
    /// Make what the tests compose: their tool, and a guest in several languages
    Guests,
    /// Get an Envoy, unless one is installed, and say where it is
    Envoy,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    janitor::tidy();
    let done = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Build => build::build(),
        Command::Test { no_skips } => test::test(skips(no_skips)),
        Command::Bench { arguments } => build::bench(&arguments),
        Command::Fuzz { target, seconds } => fuzz::fuzz(target.as_deref(), seconds),
        Command::Wasm => wasm::guests(),
        Command::Guests => {
            let skips = skips(false);
            compose::set_up().and_then(|tool| languages::set_up(&tool, skips))
        }
        Command::Envoy => envoy::set_up().map(|path| println!("{}", path.display())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether parts may be skipped, by the flag or by the environment.
fn skips(refused: bool) -> Skips {
    if refused {
        Skips::Refused
    } else {
        Skips::of_environment()
    }
}
