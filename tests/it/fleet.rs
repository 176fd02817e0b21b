//! Several daemons on one real Valkey: what one of them fetches all have, and what one purges none serves.
//! And an engine that freezes, dies, forgets or lies, which no client notices.

mod engine;
mod forgeries;
mod kinds;
mod lines;
mod purges;
mod troubles;

use engine::Engine;
use reflex_tests::client::{Answer, Ask};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::metrics::Metrics;
use reflex_tests::upstream::Upstream;
use reflex_tests::within;
use std::path::Path;

const HIT: &str = "HIT_L1_EXACT";
const SECRET: &str = "a secret of the tests' fleet";

/// A provider, an engine, and edges that share.
struct Fleet {
    upstream: Upstream,
    /// None if the edges share on something else.
    engine: Option<Engine>,
    /// Where the edges find it.
    url: String,
    edges: Vec<Edge>,
    /// With the file of the secret.
    folder: tempfile::TempDir,
}

impl Fleet {
    /// None, and the test is skipped, if this machine has no engine.
    async fn of(count: usize) -> Option<Self> {
        Self::with(count, "").await
    }

    /// With these lines in each configuration file.
    async fn with(count: usize, config: &str) -> Option<Self> {
        let engine = Engine::start().await?;
        let url = engine.url();
        Some(Self::at(Some(engine), url, count, config).await)
    }

    /// On this engine, which the edges find at that URL.
    async fn at(engine: Option<Engine>, url: String, count: usize, config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        engine::write_secret(&folder.path().join("secret"), SECRET);
        let mut fleet = Self {
            upstream: Upstream::start().await,
            engine,
            url,
            edges: Vec::new(),
            folder,
        };
        for _ in 0..count {
            let edge = fleet.plan(config).start().await;
            fleet.edges.push(edge);
        }
        fleet.all_know(count).await;
        fleet
    }

    /// How one more of them is started.
    fn plan(&self, config: &str) -> Plan {
        let secret = self.folder.path().join("secret");
        let config = format!("{}{config}", config_of(&self.url, &secret));
        // The machine may be busy.
        let config = match config.contains("fleet_wait_max") {
            true => config,
            false => format!("fleet_wait_max = \"2s\"\n{config}"),
        };
        // The fleet is asked before a component is.
        let config = match config.contains("hits =") {
            true => config,
            false => format!("hits = \"native\"\n{config}"),
        };
        Plan::new(&self.upstream.url()).config(&config)
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("an engine of its own")
    }

    fn engine_mut(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("an engine of its own")
    }

    /// Asks the first edge for one answer after another until that is done. Each is an answer.
    async fn under_load(&self, work: impl Future<Output = ()>) {
        let client = self.edges[0].client.clone();
        let load = async move {
            for number in 0_u32.. {
                let answer = client.fetch(Ask::chat(&format!("load {number}"))).await;
                assert_eq!(answer.status, 200);
            }
        };
        let load = tokio::spawn(load);
        work.await;
        assert!(!load.is_finished(), "a request has failed");
        load.abort();
    }

    /// Waits until the edges share again what they fetch.
    async fn until_well(&self) {
        for (number, edge) in self.edges.iter().enumerate() {
            let before = shared(&edge.metrics().await, "stored");
            within("an answer that is shared", async {
                let mut count = 0;
                while shared(&edge.metrics().await, "stored") <= before {
                    let prompt = format!("well {number} {before} {count}");
                    self.ask(number, &prompt).await;
                    count += 1;
                }
            })
            .await;
        }
    }

    /// Waits until each has heard of the fleet, and all are known to one of them.
    async fn all_know(&self, count: usize) {
        for edge in &self.edges {
            edge.until("news of the fleet", |metrics| {
                metrics.sum("reflex_fleet_connected", &[]) > 0.5
                    && metrics.sum("reflex_fleet_edges", &[]) > 0.5
            })
            .await;
        }
        assert!(count == 0 || !self.edges.is_empty());
    }

    async fn ask(&self, edge: usize, prompt: &str) -> Answer {
        let answer = self.edges[edge].client.fetch(Ask::chat(prompt)).await;
        assert_eq!(answer.status, 200);
        answer
    }

    /// Asks one edge, and waits until what it has fetched is shared.
    async fn share(&self, edge: usize, prompt: &str) -> Answer {
        let before = shared(&self.edges[edge].metrics().await, "stored");
        let answer = self.ask(edge, prompt).await;
        assert_eq!(answer.reflex(), "MISS", "{prompt}");
        self.edges[edge]
            .until("an answer that is shared", |metrics| {
                shared(metrics, "stored") > before
            })
            .await;
        answer
    }

    /// What this edge answers without asking the provider: 504 where it has nothing.
    async fn look(&self, edge: usize, prompt: &str) -> u16 {
        let look = Ask::chat(prompt).header("cache-control", "only-if-cached");
        self.edges[edge].client.fetch(look).await.status.as_u16()
    }

    /// Looks until that is the status.
    async fn until_looked(&self, edge: usize, prompt: &str, status: u16) {
        within("a hit or a miss", async {
            while self.look(edge, prompt).await != status {}
        })
        .await;
    }

    /// What a purge through this edge says.
    async fn purge(&self, edge: usize, what: &serde_json::Value) -> serde_json::Value {
        let edge = &self.edges[edge];
        let ask = Ask::new(http::Method::POST, "/v1/purge", what.to_string());
        let ask = ask.key(Some(&edge.token()));
        let admin = reflex_tests::client::Client::new(&edge.admin_url);
        let answer = within("a purge", admin.fetch(ask)).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        answer.json()
    }
}

fn config_of(url: &str, secret: &Path) -> String {
    format!("fleet = {url:?}\nfleet_secret_file = {secret:?}\n")
}

fn looked(metrics: &Metrics, outcome: &str) -> f64 {
    metrics.sum("reflex_fleet_lookups_total", &[("outcome", outcome)])
}

fn shared(metrics: &Metrics, outcome: &str) -> f64 {
    metrics.sum("reflex_fleet_shared_total", &[("outcome", outcome)])
}

#[tokio::test]
async fn what_one_edge_has_fetched_is_a_hit_on_all_others() {
    let Some(fleet) = Fleet::of(5).await else {
        return;
    };
    for stream in [false, true] {
        let prompt = format!("shared {stream}");
        let ask = || match stream {
            true => Ask::stream(&prompt),
            false => Ask::chat(&prompt),
        };
        let calls = fleet.upstream.call_count();
        let first = fleet.edges[0].client.fetch(ask()).await;
        assert_eq!(first.reflex(), "MISS");
        let count = 1.0 + f64::from(u8::from(stream));
        fleet.edges[0]
            .until("it is shared", |metrics| shared(metrics, "stored") >= count)
            .await;
        for edge in &fleet.edges[1..] {
            let answer = edge.client.fetch(ask()).await;
            assert_eq!(answer.reflex(), HIT, "{}", edge.log());
            assert_eq!(answer.body, first.body);
            assert_eq!(answer.header("content-type"), first.header("content-type"));
            // From now on it is in this edge's own cache.
            let lookups = edge.metrics().await.sum("reflex_fleet_lookups_total", &[]);
            assert_eq!(edge.client.fetch(ask()).await.reflex(), HIT);
            let after = edge.metrics().await.sum("reflex_fleet_lookups_total", &[]);
            assert!((lookups - after).abs() < 0.5, "a local hit asked the fleet");
        }
        assert_eq!(fleet.upstream.call_count(), calls + 1);
    }
}

#[tokio::test]
async fn a_local_hit_needs_no_engine() {
    let Some(fleet) = Fleet::of(1).await else {
        return;
    };
    fleet.share(0, "here").await;
    fleet.engine().freeze();
    for _ in 0..50 {
        assert_eq!(fleet.ask(0, "here").await.reflex(), HIT);
    }
    let metrics = fleet.edges[0].metrics().await;
    assert!(looked(&metrics, "late") + looked(&metrics, "open") < 0.5);
    fleet.engine().thaw();
}

#[tokio::test]
async fn tenants_share_nothing_through_the_fleet() {
    let Some(fleet) = Fleet::of(2).await else {
        return;
    };
    fleet.share(0, "mine").await;
    let other = Ask::chat("mine").key(Some("another"));
    let answer = fleet.edges[1].client.fetch(other).await;
    assert_eq!(answer.reflex(), "MISS");
    assert_eq!(fleet.ask(1, "mine").await.reflex(), HIT);
}

#[tokio::test]
async fn an_edge_of_envoys_finds_what_another_daemon_has_fetched() {
    let Some(mut fleet) = Fleet::of(1).await else {
        return;
    };
    let edge = fleet.plan("").edge_socket(true).start().await;
    fleet.edges.push(edge);
    fleet.all_know(2).await;
    let unix = reflex_tests::unix::Unix::http1(&fleet.edges[1].socket());
    fleet.share(0, "for Envoy").await;
    let path = entry_path(&fleet.upstream.url(), &Ask::chat("for Envoy"));
    let found = unix.fetch(Ask::get(&path)).await;
    assert_eq!(found.status, 200, "{}", fleet.edges[1].log());
    assert_eq!(found.body, fleet.ask(0, "for Envoy").await.body);
}

/// The commands that an engine has been told so far.
fn told(engine: &Engine) -> Vec<String> {
    let mut info = redis::cmd("INFO");
    info.arg("commandstats");
    let said: String = engine.say(&info);
    let used = said.lines().filter_map(|line| {
        let name = line.strip_prefix("cmdstat_")?;
        name.split(':').next().map(str::to_owned)
    });
    used.collect()
}

#[tokio::test]
async fn the_engine_is_asked_with_plain_commands_alone() {
    let Some(engine) = Engine::start().await else {
        return;
    };
    // Its own at its start, and this test's.
    told(&engine);
    let others = told(&engine);
    let url = engine.url();
    let fleet = Fleet::at(Some(engine), url, 2, "").await;
    fleet.share(0, "plain").await;
    assert_eq!(fleet.ask(1, "plain").await.reflex(), HIT);
    fleet
        .purge(0, &serde_json::json!({"all": true, "wait": true}))
        .await;
    let used = told(fleet.engine());
    let plain = ["get", "set", "del", "publish", "subscribe", "ping"];
    let is_ours = |name: &&String| !others.contains(name) && !plain.contains(&name.as_str());
    let other: Vec<_> = used.iter().filter(is_ours).collect();
    assert!(other.is_empty(), "{other:?}");
    assert!(used.iter().any(|name| name == "subscribe"), "{used:?}");
}

#[tokio::test]
async fn a_value_that_outlives_its_answer_is_a_miss() {
    let Some(fleet) = Fleet::with(2, "ttl_default = \"1s\"\n").await else {
        return;
    };
    fleet.share(0, "short").await;
    for name in fleet.engine().names() {
        let mut persist = redis::cmd("PERSIST");
        persist.arg(name);
        fleet.engine().say::<i64>(&persist);
    }
    fleet.until_looked(0, "short", 504).await;
    let calls = fleet.upstream.call_count();
    assert_eq!(fleet.ask(1, "short").await.reflex(), "MISS");
    assert_eq!(fleet.upstream.call_count(), calls + 1);
}

#[tokio::test]
async fn a_fresh_answer_replaces_the_shared_one() {
    let Some(fleet) = Fleet::of(3).await else {
        return;
    };
    let old = fleet.share(0, "refreshed").await;
    let refresh = || Ask::chat("refreshed").header("cache-control", "no-cache");
    let new = fleet.edges[1].client.fetch(refresh()).await;
    assert_ne!(new.body, old.body);
    fleet.edges[1]
        .until("it is shared in place of the old one", |metrics| {
            shared(metrics, "replaced") > 0.5
        })
        .await;
    let answer = fleet.ask(2, "refreshed").await;
    assert_eq!((answer.reflex(), &answer.body), (HIT, &new.body));
}

/// Where the edge API has the answer to a request.
fn entry_path(upstream: &str, ask: &Ask) -> String {
    use reflex_llm::{Classified, Head, Policy, classify};
    use std::fmt::Write as _;
    let headers: Vec<(&str, &[u8])> = vec![
        ("content-type", b"application/json"),
        ("authorization", b"Bearer test"),
    ];
    let head = Head {
        method: "POST",
        upstream,
        path: ask.path(),
        headers: &headers,
    };
    let Classified::Cacheable(exchange) = classify(&head, &Policy::default(), ask.sent()) else {
        panic!("not cacheable");
    };
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let (tenant, digest) = (hex(&exchange.key.tenant.0), hex(&exchange.key.digest));
    format!("/v1/entries/{tenant}/{digest}")
}
