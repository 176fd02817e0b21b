//! Cassettes: an episode of exchanges with LLM providers in a folder, recorded once and replayed without network or
//! key. `docs/cassettes.md` is the manual, and describes the files.
//!
//! ```text
//! request ─► asked.rs, redact.rs ─► episode.rs: its next recorded answer ─► replaying.rs ─► client
//!                                       └► none: 504 with the difference to the nearest recording; or
//!                                          provider.rs ─► taping.rs ─► client, and folder.rs ◄─ file.rs
//! ```
//!
//! The daemon's cache has no part in this: a test wants what happened, errors and bypasses included, and a repeated
//! request gets its next answer.
//!
//! A Rust test runs the same server in its own process:
//!
//! ```no_run
//! use reflex_host::cassette::{Cassette, Options};
//!
//! # async fn test() -> Result<(), String> {
//! let cassette = Cassette::start(Options::replay("tests/cassettes/weather")).await?;
//! let base_url = format!("{}/v1", cassette.url());
//! // … the code under test asks `base_url` …
//! let report = cassette.finish().await;
//! assert!(report.is_clean(), "{report}");
//! # Ok(())
//! # }
//! ```

mod answering;
mod provider;
mod replaying;
mod taping;

mod episode;
mod report;

mod asked;
mod file;
mod folder;
mod version;

mod body;
mod events;
mod redact;
mod rules;
mod secrets;
mod text;

use crate::exchange::body::budget::Budget;
use crate::serve::config::{self, Config, Flags, NetLimits};
use crate::serve::listen;
use crate::serve::place::StreamLimits;
use crate::serve::stop::{self, Stop, Stopper};
use crate::serve::tls::{Stream, Tcp};
use answering::Deck;
use episode::Episode;
use folder::Folder;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use provider::Provider;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use report::Report;

/// For one client's connection. A test may ask many things at once.
const STREAMS: StreamLimits = StreamLimits {
    max: 256,
    reset_max: 20,
};
/// Bytes of requests that are held at once.
const HELD_BYTES_MAX: u64 = 1 << 30;
/// How long answers that are being recorded may go on once the episode is over.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// What becomes of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All go to the provider, and every exchange is written. Earlier recordings are removed.
    Record,
    /// All are answered from the folder.
    Replay,
    /// Those that were recorded are answered from the folder; the rest go to the provider and are written.
    Auto,
}

/// At which pace streams are replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    #[default]
    Instant,
    /// With the delays of the recording, in steps of 10 ms.
    Recorded,
}

/// A cassette and what is done with it.
#[derive(Clone, Debug)]
pub struct Options {
    folder: PathBuf,
    mode: Mode,
    listen: SocketAddr,
    pace: Pace,
    is_all: bool,
    upstream: Option<String>,
    config: Option<PathBuf>,
}

impl Options {
    /// Answers from the folder alone.
    pub fn replay(folder: impl Into<PathBuf>) -> Self {
        Self::new(Mode::Replay, folder.into())
    }

    /// Records what this provider answers, in place of what the folder has.
    pub fn record(folder: impl Into<PathBuf>, upstream: impl Into<String>) -> Self {
        Self::new(Mode::Record, folder.into()).upstream(upstream)
    }

    /// Replays what was recorded, and records the rest.
    pub fn auto(folder: impl Into<PathBuf>, upstream: impl Into<String>) -> Self {
        Self::new(Mode::Auto, folder.into()).upstream(upstream)
    }

    /// In this mode, on a loopback port that the system chooses. All but [`Mode::Replay`] need a provider.
    pub fn new(mode: Mode, folder: PathBuf) -> Self {
        Self {
            folder,
            mode,
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            pace: Pace::default(),
            is_all: false,
            upstream: None,
            config: None,
        }
    }

    /// Where clients connect.
    #[must_use]
    pub fn listen(self, listen: SocketAddr) -> Self {
        Self { listen, ..self }
    }

    /// At which pace streams are replayed.
    #[must_use]
    pub fn pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Whether requests to paths of unknown APIs are recorded, too. Others pass.
    #[must_use]
    pub fn all(self, is_all: bool) -> Self {
        Self { is_all, ..self }
    }

    /// The provider's URL.
    #[must_use]
    pub fn upstream(self, upstream: impl Into<String>) -> Self {
        let upstream = Some(upstream.into());
        Self { upstream, ..self }
    }

    /// A daemon's configuration, whose providers are asked.
    #[must_use]
    pub fn config(self, config: impl Into<PathBuf>) -> Self {
        let config = Some(config.into());
        Self { config, ..self }
    }

    /// The providers, and the bounds of connections.
    fn providers(&self) -> Result<Config, String> {
        let flags = Flags {
            upstream: self.upstream.clone(),
            listen: Some(self.listen),
            ..Flags::default()
        };
        let config = Config::load(self.config.as_deref(), flags);
        let config = config.map_err(|errors| config::lines(&errors))?;
        match config.providers.is_empty() {
            true => Err("--upstream: recording needs a provider".into()),
            false => Ok(config),
        }
    }
}

/// A cassette that answers requests.
#[derive(Debug)]
pub struct Cassette {
    address: SocketAddr,
    stopper: Stopper,
    answering: JoinHandle<()>,
    deck: Arc<Deck>,
}

impl Cassette {
    /// Reads the folder, and answers requests from now on.
    ///
    /// # Errors
    ///
    /// A line that names the file, the flag or the address, and what is wrong with it.
    pub async fn start(options: Options) -> Result<Self, String> {
        let mode = options.mode;
        let folder = match mode {
            Mode::Replay => Folder::open(&options.folder)?,
            Mode::Record | Mode::Auto => Folder::make(&options.folder)?,
        };
        let rules = folder.rules()?;
        let config = match mode {
            Mode::Replay => None,
            Mode::Record | Mode::Auto => Some(options.providers()?),
        };
        let exchanges = folder.load()?;
        let bound = TcpListener::bind(options.listen).await;
        let listener = bound.map_err(|error| format!("--listen {}: {error}", options.listen))?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let budget = Budget::new(HELD_BYTES_MAX);
        let provider = config.as_ref();
        let provider = provider.map(|config| Provider::new(config, address, &budget));
        let provider = provider.transpose()?;
        // Only now, when nothing else can be wrong.
        let (episode, next_number) = match mode {
            Mode::Record => {
                folder.clear()?;
                (Episode::of(Vec::new()), 1)
            }
            Mode::Replay | Mode::Auto => {
                let names: Vec<String> = exchanges.iter().map(|(name, _)| name.clone()).collect();
                (Episode::of(exchanges), Folder::next_number(&names))
            }
        };
        if mode != Mode::Replay {
            folder.mark()?;
        }
        let net = config.map_or_else(NetLimits::default, |config| config.net);
        let deck = Deck {
            folder,
            rules: Arc::new(rules),
            episode,
            provider,
            is_replay: mode == Mode::Replay,
            is_all: options.is_all,
            pace: options.pace,
            budget,
            idle_max: net.idle_max,
            request_max: net.request_max,
            tally: answering::Tally::from(next_number),
        };
        let deck = Arc::new(deck);
        let (stopper, stopped) = stop::channel();
        let tcp = Tcp {
            listener,
            tls: None,
        };
        let service = {
            let deck = Arc::clone(&deck);
            move |_: &Stream| {
                let deck = Arc::clone(&deck);
                service_fn(move |request: Request<Incoming>| {
                    let deck = Arc::clone(&deck);
                    Box::pin(async move { Ok(deck.answer(request).await) })
                })
            }
        };
        let answering = async move { listen::answer(tcp, service, &net, STREAMS, stopped).await };
        Ok(Self {
            address,
            stopper,
            answering: tokio::spawn(answering),
            deck,
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of [`address`](Self::address), without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets running requests end, and tells what became of the episode.
    pub async fn finish(self) -> Report {
        self.stopper.stop(Stop::Closes);
        let abort = self.answering.abort_handle();
        if tokio::time::timeout(DRAIN_MAX, self.answering)
            .await
            .is_err()
        {
            abort.abort();
        }
        let all_written = self.deck.tally.all_written();
        // What has not come to its end is told as not recorded.
        let _ = tokio::time::timeout(DRAIN_MAX, all_written).await;
        self.deck.report()
    }
}
