//! Hits while many clients are slow and many answers are late: clients that have sent half a
//! body, and clients whose answers the provider holds back.

use crate::load::{Connection, Load, Requests};
use crate::peers::Settings;
use crate::peers::contender::{Contender, Role};
use crate::peers::rounds::{Provider, at_share, warm};
use crate::work::Work;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Connections that ask for cached answers.
const CONNECTIONS: usize = 16;

/// Requests whose answers are held back reach the provider within this time, if at all.
const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(5);

/// How often the provider is asked whether they have.
const LOOK: Duration = Duration::from_millis(50);

/// The results of hits.
pub(crate) struct Strain {
    pub(crate) name: &'static str,
    /// Of hits without any strain, in microseconds.
    pub(crate) calm_p99: f64,
    /// Of hits under strain, in microseconds.
    pub(crate) p99: f64,
    /// Of requests under strain, the share that reached the provider though their answer is known.
    pub(crate) misses: f64,
    /// Requests under strain that failed.
    pub(crate) failures: usize,
    /// Requests whose answers the provider kept back.
    pub(crate) waiting: u64,
}

/// Measures those that cache, one after the other, and leaves each without the strain.
///
/// # Errors
///
/// A cache does not answer even without strain.
pub(crate) async fn measure(
    contenders: &[Contender],
    provider: &Provider,
    settings: &Settings,
) -> Result<Vec<Strain>, String> {
    let mut all = Vec::new();
    for contender in contenders.iter().filter(|it| it.role == Role::Caches) {
        let strain = one(contender, provider, settings).await;
        all.push(strain.map_err(|why| format!("{}: {why}", contender.name))?);
    }
    Ok(all)
}

async fn one(
    contender: &Contender,
    provider: &Provider,
    settings: &Settings,
) -> Result<Strain, String> {
    let work = Work::named("4 KiB");
    let request = work.request(0);
    warm(contender, &work, std::slice::from_ref(&request), provider).await?;
    let load = Load {
        connections: CONNECTIONS,
        // Long enough for more than a hundred latencies beyond the 99th percentile.
        time: settings.round * 3,
        requests: Requests::Same(request.clone().into()),
    };
    let mut calm = load.run(&contender.address).await.latencies;
    calm.sort_by(f64::total_cmp);

    let halves = halves(contender, settings.slow_clients).await?;
    let before = provider.count().await;
    let waiting = waiting(contender, settings.slow_clients);
    let wanted = settings.slow_clients as u64;
    let deadline = Instant::now() + ARRIVAL_TIME_MAX;
    let mut arrived = 0;
    while arrived < wanted && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
        arrived = provider.count().await - before;
    }

    let before = provider.count().await;
    let mut strained = load.run(&contender.address).await;
    let asked = provider.count().await - before;
    strained.latencies.sort_by(f64::total_cmp);
    for task in waiting {
        task.abort();
    }
    drop(halves);
    let requests = strained.latencies.len() + strained.failures;
    Ok(Strain {
        name: contender.name,
        calm_p99: at_share(&calm, 0.99),
        p99: at_share(&strained.latencies, 0.99),
        misses: asked as f64 / requests.max(1) as f64,
        failures: strained.failures,
        waiting: arrived,
    })
}

/// Connections that have sent a head and half a body.
async fn halves(contender: &Contender, count: usize) -> Result<Vec<Connection>, String> {
    let work = Work::named("4 KiB");
    let failed = |error| format!("a slow client failed: {error}");
    let mut all = Vec::new();
    for number in 0..count as u64 {
        let request = work.request((1 << 40) + number);
        let mut connection = Connection::open(&contender.address).await.map_err(failed)?;
        let end = request.windows(4).position(|four| four == b"\r\n\r\n");
        let body = end.ok_or("a request without a head")? + 4;
        let half = body + (request.len() - body) / 2;
        connection.send(&request[..half]).await.map_err(failed)?;
        all.push(connection);
    }
    Ok(all)
}

/// Clients with requests whose answers the provider keeps back.
fn waiting(contender: &Contender, count: usize) -> Vec<JoinHandle<()>> {
    let work = Work::named("slow");
    let numbers = (1 << 40)..(1 << 40) + count as u64;
    let client = |number| {
        let (request, address) = (work.request(number), contender.address.clone());
        tokio::spawn(async move {
            // The task is ended before an answer comes; a refusal shows in the provider's count.
            if let Ok(mut connection) = Connection::open(&address).await {
                let _ = connection.ask(&request, |_| ()).await;
            }
        })
    };
    numbers.map(client).collect()
}
