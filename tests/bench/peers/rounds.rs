//! The measurement: contenders take turns, round after round, on each cell of the table.

use crate::bare::COUNT_PATH;
use crate::load::{Connection, Load, Requests, in_time};
use crate::median;
use crate::peers::Settings;
use crate::peers::contender::{Contender, Role};
use crate::peers::process::Cpu;
use crate::work::{Answer, Work};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A cache has an answer within so many looks after it has passed it on, [`LOOK`] apart.
const LOOKS_MAX: u32 = 500;
const LOOK: Duration = Duration::from_millis(10);

/// Of a cache's requests so many may reach the provider and still be called hits: entries that a
/// filter's memory has given up, or that a lookup met while they were written.
const MISSES_MAX: f64 = 0.01;

/// What is measured at once.
#[derive(Clone)]
pub(crate) struct Cell {
    pub(crate) work: Work,
    pub(crate) connections: usize,
    /// So many prompts, chosen at random.
    pub(crate) prompts: u64,
}

impl Cell {
    pub(crate) fn name(&self) -> String {
        match self.prompts {
            1 => self.work.name.to_owned(),
            many => format!("{}, {many} prompts", self.work.name),
        }
    }
}

/// The figures of a contender.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// Of the server, for each request, in microseconds.
    pub(crate) cpu: f64,
    /// In microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Requests in a second.
    pub(crate) rate: f64,
}

/// The provider, as one that counts.
pub(crate) struct Provider(pub(crate) String);

impl Provider {
    /// How many requests have reached it.
    pub(crate) async fn count(&self) -> u64 {
        let request = format!("GET {COUNT_PATH} HTTP/1.1\r\nhost: bench\r\n\r\n");
        let mut body = Vec::new();
        let counted = in_time(async {
            let mut connection = Connection::open(&self.0).await?;
            connection
                .ask(request.as_bytes(), |piece| body.extend_from_slice(piece))
                .await
        });
        counted.await.expect("the provider's count");
        String::from_utf8_lossy(&body).parse().expect("a number")
    }
}

/// Figures by contender, in their order; an error is the reason for a missing one.
pub(crate) async fn measure(
    cell: &Cell,
    contenders: &[Contender],
    provider: &Provider,
    settings: &Settings,
) -> Vec<Result<Figures, String>> {
    let requests: Vec<Vec<u8>> = (0..cell.prompts).map(|at| cell.work.request(at)).collect();
    let mut problems = Vec::new();
    for contender in contenders {
        problems.push(warm(contender, &cell.work, &requests, provider).await.err());
    }
    let load = Load {
        connections: cell.connections,
        time: settings.round,
        requests: Requests::AnyOf(requests.into()),
    };
    let mut rounds = vec![Vec::new(); contenders.len()];
    for _ in 0..settings.rounds {
        for (at, contender) in contenders.iter().enumerate() {
            if problems[at].is_none() {
                match round(contender, &load, provider).await {
                    Ok(figures) => rounds[at].push(figures),
                    Err(why) => problems[at] = Some(why),
                }
            }
        }
    }
    let middle = |rounds: Vec<Figures>| {
        let of = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure).collect());
        Figures {
            cpu: of(|it| it.cpu),
            p50: of(|it| it.p50),
            p99: of(|it| it.p99),
            rate: of(|it| it.rate),
        }
    };
    let all = problems.into_iter().zip(rounds);
    all.map(|(problem, rounds)| problem.map_or_else(|| Ok(middle(rounds)), Err))
        .collect()
}

/// Puts the load on a contender once.
pub(crate) async fn round(
    contender: &Contender,
    load: &Load,
    provider: &Provider,
) -> Result<Figures, String> {
    let asked = provider.count().await;
    let before = Cpu::of(&contender.roots);
    let began = Instant::now();
    let mut outcome = load.run(&contender.address).await;
    // The last answers may come after the time is up.
    let seconds = began.elapsed().as_secs_f64();
    let cpu = Cpu::of(&contender.roots).since(&before);
    let asked = provider.count().await - asked;
    let requests = outcome.latencies.len();
    if outcome.failures > 0 || requests == 0 {
        return Err(format!(
            "{} of {requests} requests failed",
            outcome.failures
        ));
    }
    let is_distinct = matches!(load.requests, Requests::Distinct(_));
    let misses = asked as f64 / requests as f64;
    if contender.role == Role::Caches && !is_distinct && misses > MISSES_MAX {
        return Err(format!(
            "{asked} of {requests} requests reached the provider"
        ));
    }
    if is_distinct && misses < 1.0 - MISSES_MAX {
        return Err(format!(
            "only {asked} of {requests} misses reached the provider"
        ));
    }
    outcome.latencies.sort_by(f64::total_cmp);
    Ok(Figures {
        cpu: cpu / requests as f64,
        p50: at_share(&outcome.latencies, 0.5),
        p99: at_share(&outcome.latencies, 0.99),
        rate: requests as f64 / seconds,
    })
}

/// The figure below which this share of all lies. They are sorted.
pub(crate) fn at_share(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at).or(sorted.last()).copied().unwrap_or(0.0)
}

/// Asks for everything once, and again until a cache answers it by itself; each answer must be the
/// one that is expected, byte for byte.
pub(crate) async fn warm(
    contender: &Contender,
    work: &Work,
    requests: &[Vec<u8>],
    provider: &Provider,
) -> Result<(), String> {
    let Answer::Bytes(expected) = &work.answer else {
        return Err("no answer that is always the same".into());
    };
    let failed = |error| format!("a request failed: {error}");
    let mut connection = Connection::open(&contender.address).await.map_err(failed)?;
    for _ in 0..LOOKS_MAX {
        let asked = provider.count().await;
        for request in requests {
            let mut body = Vec::new();
            let answer = connection.ask(request, |piece| body.extend_from_slice(piece));
            in_time(answer).await.map_err(failed)?;
            if body != *expected {
                return Err(format!("another answer, of {} bytes", body.len()));
            }
        }
        let asked = provider.count().await - asked;
        if contender.role != Role::Caches || (asked as f64) <= requests.len() as f64 * MISSES_MAX {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err("not cached".into())
}

/// Requests of this work, each new to every server.
pub(crate) fn distinct(work: &Work) -> Requests {
    // Beyond the numbers of prompts that are asked again.
    const FIRST: u64 = 1_000_000;
    let work = work.clone();
    Requests::Distinct(Arc::new(move |number| work.request(FIRST + number)))
}
