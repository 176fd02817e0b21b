//! The daemon beside a bare hyper server that returns the same bytes, both over loopback.

use crate::bare::Server;
use crate::clock::cpu_seconds;
use crate::load::{Load, Requests};
use crate::work::Work;
use crate::{ROUNDS, median, report};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const CONNECTIONS: usize = 32;
pub(crate) const ROUND: Duration = Duration::from_secs(2);
pub(crate) const ANSWER_BYTES: usize = 4096;

/// Whether all requests are the same.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Prompts {
    Same,
    Distinct,
}

pub(crate) fn run() -> ExitCode {
    let this = std::env::current_exe().expect("a path");
    let edge = this.with_file_name("reflex-edge");
    if !edge.exists() {
        eprintln!(
            "{} is missing: run `cargo xtask bench`, which builds it",
            edge.display()
        );
        return ExitCode::FAILURE;
    }
    println!(
        "serve: {CONNECTIONS} connections, HTTP/1.1, 1 KiB prompt, {ANSWER_BYTES} byte answer"
    );
    let dir = tempfile::tempdir().expect("a folder");
    let bare = Server::bare();
    let ours = Server::start(
        Command::new(&edge)
            .arg("serve")
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--upstream")
            .arg(format!("http://{}", bare.address))
            .arg("--data-dir")
            .arg(dir.path()),
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (mut theirs_rate, mut ours_rate, mut theirs_latency, mut ours_latency) =
        (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        for (server, rates, latencies) in [
            (&bare, &mut theirs_rate, &mut theirs_latency),
            (&ours, &mut ours_rate, &mut ours_latency),
        ] {
            let before = cpu_seconds(server.child.id());
            let load = runtime.block_on(load(&server.address, Prompts::Same));
            let cpu = cpu_seconds(server.child.id()) - before;
            rates.push(load.len() as f64 / cpu);
            latencies.push(median(load));
        }
    }
    let (theirs, hits) = (median(theirs_rate), median(ours_rate));
    report("bare hyper, requests per second of one core", theirs, "/s");
    report("reflex-edge, hits per second of one core", hits, "/s");
    report("ours / bare", hits / theirs, "x");
    report(
        "bare hyper, median latency under this load",
        median(theirs_latency),
        "µs",
    );
    report(
        "reflex-edge, median latency of a hit under this load",
        median(ours_latency),
        "µs",
    );

    let one = |server: &Server| {
        median(
            (0..ROUNDS)
                .map(|_| median(runtime.block_on(alone(&server.address))))
                .collect(),
        )
    };
    report(
        "bare hyper, median latency, one connection",
        one(&bare),
        "µs",
    );
    report(
        "reflex-edge, median latency of a hit, one connection",
        one(&ours),
        "µs",
    );
    ExitCode::SUCCESS
}

/// Latencies in microseconds, from all connections at once.
pub(crate) async fn load(address: &str, prompts: Prompts) -> Vec<f64> {
    latencies(address, CONNECTIONS, ROUND, prompts).await
}

async fn alone(address: &str) -> Vec<f64> {
    latencies(address, 1, ROUND / 4, Prompts::Same).await
}

async fn latencies(
    address: &str,
    connections: usize,
    time: Duration,
    prompts: Prompts,
) -> Vec<f64> {
    let work = Work::named("4 KiB");
    let requests = match prompts {
        Prompts::Same => Requests::Same(work.request(0).into()),
        Prompts::Distinct => Requests::Distinct(Arc::new(move |number| work.request(number))),
    };
    let load = Load {
        connections,
        time,
        requests,
    };
    let outcome = load.run(address).await;
    assert_eq!(outcome.failures, 0, "requests failed");
    outcome.latencies
}
