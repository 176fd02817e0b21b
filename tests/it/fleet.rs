//! Several daemons on one real Valkey: what one of them fetches all have, and what one purges none serves.
//! And an engine that freezes, dies, forgets or lies, which no client notices.

mod engine;
mod forgeries;
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
    engine: Engine,
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
        let folder = tempfile::tempdir().expect("a folder");
        engine::write_secret(&folder.path().join("secret"), SECRET);
        let mut fleet = Self {
            upstream: Upstream::start().await,
            engine,
            edges: Vec::new(),
            folder,
        };
        for _ in 0..count {
            let edge = fleet.plan(config).start().await;
            fleet.edges.push(edge);
        }
        fleet.all_know(count).await;
        Some(fleet)
    }

    /// How one more of them is started.
    fn plan(&self, config: &str) -> Plan {
        let secret = self.folder.path().join("secret");
        let config = format!("{}{config}", config_of(&self.engine, &secret));
        // The fleet is asked before a component is.
        let config = match config.contains("hits =") {
            true => config,
            false => format!("hits = \"native\"\n{config}"),
        };
        Plan::new(&self.upstream.url()).config(&config)
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

fn config_of(engine: &Engine, secret: &Path) -> String {
    format!(
        "fleet = \"{}\"\nfleet_secret_file = {secret:?}\nfleet_wait_max = \"2s\"\n",
        engine.url()
    )
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
    fleet.engine.freeze();
    for _ in 0..50 {
        assert_eq!(fleet.ask(0, "here").await.reflex(), HIT);
    }
    let metrics = fleet.edges[0].metrics().await;
    assert!(looked(&metrics, "late") + looked(&metrics, "open") < 0.5);
    fleet.engine.thaw();
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

#[tokio::test]
async fn the_engine_is_asked_with_plain_commands_alone() {
    let Some(fleet) = Fleet::of(2).await else {
        return;
    };
    fleet.share(0, "plain").await;
    assert_eq!(fleet.ask(1, "plain").await.reflex(), HIT);
    fleet
        .purge(0, &serde_json::json!({"all": true, "wait": true}))
        .await;
    let mut info = redis::cmd("INFO");
    info.arg("commandstats");
    let said: String = fleet.engine.say(&info);
    let used = said.lines().filter_map(|line| {
        let name = line.strip_prefix("cmdstat_")?;
        name.split(':').next()
    });
    // `info` and `ping` are this test's own.
    let plain = ["get", "set", "del", "publish", "subscribe", "ping", "info"];
    let other: Vec<_> = used.filter(|name| !plain.contains(name)).collect();
    assert!(other.is_empty(), "{other:?}");
}

#[tokio::test]
async fn a_value_that_outlives_its_answer_is_a_miss() {
    let Some(fleet) = Fleet::with(2, "ttl_default = \"1s\"\n").await else {
        return;
    };
    fleet.share(0, "short").await;
    for name in fleet.engine.names() {
        let mut persist = redis::cmd("PERSIST");
        persist.arg(name);
        fleet.engine.say::<i64>(&persist);
    }
    within("its end", async {
        let look = || Ask::chat("short").header("cache-control", "only-if-cached");
        while fleet.edges[0].client.fetch(look()).await.status == 200 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    let calls = fleet.upstream.call_count();
    assert_eq!(fleet.ask(1, "short").await.reflex(), "MISS");
    assert_eq!(fleet.upstream.call_count(), calls + 1);
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
