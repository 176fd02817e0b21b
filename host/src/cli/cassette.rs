//! `reflex-edge record`, `replay` and `auto`: an episode of exchanges in a folder.

use clap::{Args, ValueEnum};
use reflex_host::cassette::{Cassette, Mode, Options, Pace, Report};
use reflex_host::serve::config::LogFormat;
use reflex_host::serve::logs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// With `--ci`: a request was not found, or a recording not used or not written.
const EXIT_UNCLEAN: u8 = 1;
/// Invalid flags, or a folder that is no cassette: the same code that clap uses.
const EXIT_USAGE: u8 = 2;

/// Pass all requests on to the provider, and write every exchange into a folder in place of what it has
#[derive(Debug, Args)]
pub(crate) struct Record {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    asks: Asks,
}

/// Answer requests from a folder of recorded exchanges alone, without network or key
#[derive(Debug, Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    common: Common,
    /// At which pace streams are replayed
    #[arg(long, value_enum, default_value_t)]
    pace: PaceFlag,
}

/// Answer requests that were recorded from the folder; pass the rest on to the provider, and record it
#[derive(Debug, Args)]
pub(crate) struct Auto {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    asks: Asks,
    /// At which pace streams are replayed
    #[arg(long, value_enum, default_value_t)]
    pace: PaceFlag,
}

#[derive(Debug, Args)]
struct Common {
    /// The folder of the exchanges
    #[arg(long, value_name = "DIR")]
    cassette: PathBuf,
    /// Where clients connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Exit with code 1 when a request was not found, or a recording was not used or could not be written
    #[arg(long)]
    ci: bool,
    /// Write a report as JUnit's XML
    #[arg(long, value_name = "FILE.xml")]
    junit: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Asks {
    /// The provider's URL, such as `https://api.openai.com`
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// A configuration of the daemon's, of which the providers are used
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Record requests to paths of unknown APIs, too
    #[arg(long)]
    all: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum PaceFlag {
    /// At once
    #[default]
    Instant,
    /// With the delays of the recording
    Recorded,
}

impl From<PaceFlag> for Pace {
    fn from(pace: PaceFlag) -> Self {
        match pace {
            PaceFlag::Instant => Self::Instant,
            PaceFlag::Recorded => Self::Recorded,
        }
    }
}

impl Record {
    pub(crate) fn run(self) -> ExitCode {
        let options = self.asks.of(self.common.options(Mode::Record));
        self.common.run(options)
    }
}

impl Replay {
    pub(crate) fn run(self) -> ExitCode {
        let options = self.common.options(Mode::Replay).pace(self.pace.into());
        self.common.run(options)
    }
}

impl Auto {
    pub(crate) fn run(self) -> ExitCode {
        let options = self.asks.of(self.common.options(Mode::Auto));
        self.common.run(options.pace(self.pace.into()))
    }
}

impl Asks {
    fn of(self, options: Options) -> Options {
        let mut options = options.all(self.all);
        if let Some(upstream) = self.upstream {
            options = options.upstream(upstream);
        }
        if let Some(config) = self.config {
            options = options.config(config);
        }
        options
    }
}

impl Common {
    fn options(&self, mode: Mode) -> Options {
        Options::new(mode, self.cassette.clone()).listen(self.listen)
    }

    fn run(&self, options: Options) -> ExitCode {
        let _logs = logs::begin(LogFormat::default());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build();
        let ran = match runtime {
            Ok(runtime) => runtime.block_on(play(options)),
            Err(error) => Err(format!("cannot start threads: {error}")),
        };
        match ran {
            Ok(report) => self.end(&report),
            Err(errors) => {
                for error in errors.lines() {
                    eprintln!("reflex-edge: {error}");
                }
                ExitCode::from(EXIT_USAGE)
            }
        }
    }

    /// Tells what became of the episode.
    fn end(&self, report: &Report) -> ExitCode {
        // The reader may have closed the pipe.
        let _ = write!(std::io::stdout(), "{report}");
        if let Some(file) = &self.junit
            && let Err(error) = std::fs::write(file, report.junit())
        {
            eprintln!("reflex-edge: --junit {}: {error}", file.display());
            return ExitCode::FAILURE;
        }
        match self.ci && !report.is_clean() {
            true => ExitCode::from(EXIT_UNCLEAN),
            false => ExitCode::SUCCESS,
        }
    }
}

/// Answers requests until SIGTERM or Ctrl-C.
async fn play(options: Options) -> Result<Report, String> {
    let listened = |error: std::io::Error| format!("cannot listen for signals: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(listened)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(listened)?;
    let cassette = Cassette::start(options).await?;
    let mut out = std::io::stdout();
    let told = writeln!(out, "listening on {}", cassette.url()).and_then(|()| out.flush());
    told.map_err(|error| error.to_string())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(cassette.finish().await)
}
