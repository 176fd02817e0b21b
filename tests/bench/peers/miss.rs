//! The cost of a miss behind each contender: time to the first byte,
//! the delay of a stream's events, and the server's CPU.

use crate::load::{Connection, Load, in_time};
use crate::median;
use crate::peers::Settings;
use crate::peers::contender::{Contender, Role};
use crate::peers::rounds::{Provider, at_share, distinct, round};
use crate::work::{DRIPS, Work, now_ns, sent_at_ns};
use std::time::Instant;

/// Connections that bring misses when CPU is measured.
const CONNECTIONS: usize = 16;

/// The cost of a miss behind one contender.
pub(crate) struct Miss {
    pub(crate) name: &'static str,
    /// From the request to the first byte of the answer, in microseconds: the median.
    pub(crate) first_byte: f64,
    /// From the provider's sending of an event to its arrival, in microseconds.
    pub(crate) event_p50: f64,
    pub(crate) event_p99: f64,
    /// Of the server, for each miss of 4 KiB, in microseconds; none without a server.
    pub(crate) cpu: Option<f64>,
}

#[derive(Default)]
struct Seen {
    first_bytes: Vec<f64>,
    delays: Vec<f64>,
    cpu: Vec<f64>,
}

/// The first is the provider itself, with nothing in between.
///
/// # Errors
///
/// A request failed, or a stream lost an event.
pub(crate) async fn measure(
    contenders: &[Contender],
    provider: &Provider,
    settings: &Settings,
) -> Result<Vec<Miss>, String> {
    let between = || contenders.iter().filter(|it| it.role != Role::Answers);
    let mut seen: Vec<Seen> = (0..=between().count()).map(|_| Seen::default()).collect();
    let load = Load {
        connections: CONNECTIONS,
        time: settings.round,
        requests: distinct(&Work::named("4 KiB")),
    };
    for number in 0..settings.rounds {
        streams("the provider", &provider.0, number, settings, &mut seen[0]).await?;
        for (at, contender) in between().enumerate() {
            let seen = &mut seen[at + 1];
            streams(contender.name, &contender.address, number, settings, seen).await?;
            let figures = round(contender, &load, provider).await;
            let figures = figures.map_err(|why| format!("{}: {why}", contender.name))?;
            seen.cpu.push(figures.cpu);
        }
    }
    let names = ["the provider itself"].into_iter();
    let names = names.chain(between().map(|contender| contender.name));
    Ok(names
        .zip(seen)
        .map(|(name, seen)| seen.miss(name))
        .collect())
}

impl Seen {
    fn miss(mut self, name: &'static str) -> Miss {
        self.delays.sort_by(f64::total_cmp);
        Miss {
            name,
            first_byte: median(self.first_bytes),
            event_p50: at_share(&self.delays, 0.5),
            event_p99: at_share(&self.delays, 0.99),
            cpu: Some(self.cpu).filter(|cpu| !cpu.is_empty()).map(median),
        }
    }
}

/// Streams one after the other, each to a prompt of its own, for as long as a round lasts.
async fn streams(
    name: &str,
    address: &str,
    round: usize,
    settings: &Settings,
    seen: &mut Seen,
) -> Result<(), String> {
    let work = Work::named("drip");
    let failed = |error| format!("{name}: a stream failed: {error}");
    let mut connection = Connection::open(address).await.map_err(failed)?;
    let until = Instant::now() + settings.round;
    for number in 0_u64.. {
        if number > 0 && Instant::now() > until {
            break;
        }
        // Another number in each round, and in each run of a contender: no prompt repeats.
        let request = work.request((round as u64) << 32 | number);
        let mut delays = Vec::new();
        let began = Instant::now();
        let answer = connection.ask(&request, |piece| {
            let now = now_ns();
            let late = |sent| now.saturating_sub(sent) as f64 / 1e3;
            delays.extend(sent_at_ns(piece).into_iter().map(late));
        });
        let first = in_time(answer).await.map_err(failed)?;
        if delays.len() != DRIPS {
            return Err(format!("{name}: {} of {DRIPS} events", delays.len()));
        }
        seen.first_bytes.push((first - began).as_secs_f64() * 1e6);
        seen.delays.extend(delays);
    }
    Ok(())
}
