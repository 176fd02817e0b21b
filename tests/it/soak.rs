//! Everything at once, for a while: hits, misses, streams, clients that leave, purges and reloads. No
//! request fails, no answer belongs to another request or tenant, and neither memory nor descriptors
//! grow.
//!
//! A minute by default; `REFLEX_SOAK_SECONDS=3600` makes it an hour. The figures go to stdout.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reflex_tests::client::{Answer, Ask, Client};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::unix::Unix;
use reflex_tests::upstream::Upstream;
use rustix::process::Signal;
use serde_json::Value;

/// How long the soak runs, in seconds.
const SECONDS: &str = "REFLEX_SOAK_SECONDS";
const SECONDS_DEFAULT: u64 = 60;
const CLIENTS: u64 = 6;
/// Prompts that several clients repeat.
const KNOWN_PROMPTS: u64 = 40;
/// Their answers may have different credentials, and are never each other's.
const TENANTS: [&str; 2] = ["Bearer soak-a", "Bearer soak-b"];
/// The cache evicts within seconds: misses alone write more than that.
const DISK_BYTES_MAX: u64 = 64 << 20;
/// What memory may grow after the first third: the allocator's waste, and the index of a full disk.
const GROWTH_BYTES_MAX: u64 = 48 << 20;
/// Descriptors beside those of the first third: connections come and go.
const GROWTH_DESCRIPTORS_MAX: usize = 32;

/// What a client does next.
enum Step {
    Chat { tenant: usize, prompt: String },
    Stream { tenant: usize, prompt: String },
    Leave { prompt: String },
}

/// Numbers that follow from a seed: a soak that fails can be run again.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        // Xorshift: Marsaglia, Journal of Statistical Software 8(14), 2003.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn step(&mut self) -> Step {
        let tenant = usize::from(self.below(2) == 1);
        let known = format!("known {}", self.below(KNOWN_PROMPTS));
        let unknown = format!("unknown {} {}", self.below(u64::MAX), "x".repeat(2000));
        let prompt = if self.below(10) == 0 { unknown } else { known };
        match self.below(10) {
            0..6 => Step::Chat { tenant, prompt },
            6..9 => Step::Stream { tenant, prompt },
            _ => Step::Leave { prompt },
        }
    }
}

/// What a client has seen.
#[derive(Default)]
struct Counts {
    requests: u64,
    hits: u64,
}

impl Counts {
    fn saw(&mut self, answer: &Answer) {
        self.hits += u64::from(answer.reflex().starts_with("HIT"));
    }
}

/// Which tenant an answer was made for, by its id.
type Owners = Arc<Mutex<HashMap<String, usize>>>;

fn is_of(answer: &Answer, text: &str, id: &str, prompt: &str, tenant: usize, owners: &Owners) {
    assert_eq!(answer.status, 200, "{text}");
    assert!(text.contains(prompt), "{prompt}: {text}");
    let mut owners = owners.lock().expect("no test has panicked");
    let owner = *owners.entry(id.to_owned()).or_insert(tenant);
    assert_eq!(owner, tenant, "{id} belongs to another tenant");
}

/// The id and the text of a stream that came to its end.
fn streamed(answer: &Answer) -> (String, String) {
    let body = String::from_utf8_lossy(&answer.body);
    assert!(
        body.ends_with("data: [DONE]\n\n"),
        "a stream was cut: {body}"
    );
    let events = body.lines().filter_map(|line| line.strip_prefix("data: {"));
    let events: Vec<Value> = events
        .map(|rest| serde_json::from_str(&format!("{{{rest}")).expect("an event"))
        .collect();
    let text = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    let id = events[0]["id"].as_str().expect("an id").to_owned();
    (id, text.collect())
}

async fn client(edge: Client, seed: u64, until: Instant, owners: Owners) -> Counts {
    let mut numbers = Numbers(seed);
    let mut counts = Counts::default();
    while Instant::now() < until {
        counts.requests += 1;
        match numbers.step() {
            Step::Chat { tenant, prompt } => {
                let answer = edge
                    .fetch(Ask::chat(&prompt).key(Some(TENANTS[tenant])))
                    .await;
                counts.saw(&answer);
                let json = answer.json();
                let text = json["choices"][0]["message"]["content"].as_str();
                let (text, id) = (text.unwrap_or_default(), json["id"].as_str());
                is_of(
                    &answer,
                    text,
                    id.unwrap_or_default(),
                    &prompt,
                    tenant,
                    &owners,
                );
            }
            Step::Stream { tenant, prompt } => {
                let ask = Ask::stream(&prompt).key(Some(TENANTS[tenant]));
                let answer = edge.fetch(ask).await;
                counts.saw(&answer);
                let (id, text) = streamed(&answer);
                is_of(&answer, &text, &id, &prompt, tenant, &owners);
            }
            Step::Leave { prompt } => {
                let mut begun = edge.send(Ask::stream(&prompt)).await;
                assert_eq!(begun.status, 200);
                begun.chunk().await.expect("the beginning of a stream");
            }
        }
    }
    counts
}

/// Purges and reloads while the clients ask. The sum of both.
async fn operator(edge: &Edge, until: Instant) -> u64 {
    let unix = Unix::http1(&edge.socket());
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    let mut count = 0;
    while Instant::now() < until {
        ticks.tick().await;
        match count % 4 {
            0 => {
                let purge = Ask::new(http::Method::DELETE, "/v1/entries", "");
                assert_eq!(unix.fetch(purge).await.status, 204);
            }
            _ => edge.signal(Signal::HUP),
        }
        count += 1;
    }
    count
}

/// Memory and descriptors.
fn taken(edge: &Edge) -> (u64, usize) {
    (edge.memory(), edge.descriptors())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soak_fails_no_request_and_grows_nothing() {
    let seconds = std::env::var(SECONDS).map_or(SECONDS_DEFAULT, |seconds| {
        seconds.parse().expect("REFLEX_SOAK_SECONDS, in seconds")
    });
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url())
        .edge_socket(true)
        .config(&format!("disk_bytes_max = {DISK_BYTES_MAX}"))
        .start()
        .await;
    let begun = Instant::now();
    let until = begun + Duration::from_secs(seconds);
    let owners = Owners::default();
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|seed| {
            let edge = Client::new(&edge.url);
            tokio::spawn(client(edge, seed, until, Arc::clone(&owners)))
        })
        .collect();

    let early = async {
        tokio::time::sleep_until((begun + Duration::from_secs(seconds / 3)).into()).await;
        taken(&edge)
    };
    let ((memory, descriptors), operations) = tokio::join!(early, operator(&edge, until));
    let Counts {
        mut requests,
        mut hits,
    } = Counts::default();
    for client in clients {
        let seen = client.await.expect("a client with all answers");
        requests += seen.requests;
        hits += seen.hits;
    }
    let (memory_after, descriptors_after) = taken(&edge);
    println!(
        "{seconds} s: {requests} requests, {hits} hits, {} calls, {operations} purges and reloads; \
         memory {} -> {} KiB, descriptors {descriptors} -> {descriptors_after}",
        upstream.call_count(),
        memory >> 10,
        memory_after >> 10,
    );
    assert!(memory_after < memory + GROWTH_BYTES_MAX, "memory grows");
    assert!(
        descriptors_after < descriptors + GROWTH_DESCRIPTORS_MAX,
        "descriptors grow"
    );
    assert!(hits > 0 && upstream.call_count() > 0);
    assert_eq!(edge.health().await["status"], "green");
}
