//! A stand-in for a provider, to try reflex-edge out: plausible answers to chat
//! completions, at a plausible pace, for no account.
//!
//! Its first line on stdout is `listening on http://127.0.0.1:PORT`. SIGTERM or Ctrl-C ends it.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use reflex_tests::behaviour::Behaviour;
use reflex_tests::upstream::Upstream;
use tokio::signal::unix::{SignalKind, signal};

/// Thirty tokens a second: about what a large model says.
const TOKEN_PAUSE: Duration = Duration::from_millis(30);

/// How long answers may go on after a signal. The longest takes about two seconds.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo-provider: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut upstream = Upstream::start_with(Behaviour::Paced(TOKEN_PAUSE)).await;
    writeln!(std::io::stdout(), "listening on {}", upstream.url())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    // A terminal's Ctrl-C reaches the cache at the same time, which lets its requests end.
    let _ = tokio::time::timeout(DRAIN_TIME_MAX, upstream.drain()).await;
    Ok(())
}
