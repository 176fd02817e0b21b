//! The listener is updated, and with it the filter's configuration: no request fails, memory stays
//! bounded, and the figures come down.

use super::trouble::Load;
use super::{apart, count, hits};
use reflex_tests::client::{Ask, Client};
use reflex_tests::envoy::{Envoy, EnvoyPlan};
use reflex_tests::upstream::Upstream;
use serde_json::json;
use tokio::task::JoinSet;

/// The tier's default.
const HOT_BYTES_MAX: usize = 64 << 20;

/// As large as an answer in the tier may be, but for its JSON.
const LONG: usize = 1_000_000;

/// Asks for so many long answers that are not cached yet.
async fn fill(envoy: &Envoy, round: usize, answers: usize) {
    const CLIENTS: usize = 4;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        // It connects now, so it meets the newest configuration.
        let connection = Client::new(&envoy.url);
        clients.spawn(async move {
            for number in (client..answers).step_by(CLIENTS) {
                let ask = Ask::chat(&format!("{round}: {number}"));
                let answer = connection.fetch(ask.mock(&format!("large={LONG}"))).await;
                assert_eq!(answer.status, 200);
                assert_eq!(answer.reflex(), "MISS");
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.expect("no panic");
    }
}

/// Each update began a tier of its own in the module's one memory, and each old one stayed for as long
/// as its listener drained. The thirteenth ended in a panic: requests hung, were cut, or got 503.
#[tokio::test]
async fn updates_of_the_configuration_under_load_fail_no_request() {
    const UPDATES: usize = 14;
    let upstream = Upstream::start().await;
    let plan = EnvoyPlan::new(&upstream.url()).updatable(600);
    let mut envoy = plan.start().await;
    let mut load = Load::start(&envoy);
    load.goes_on(20).await;
    for round in 0..UPDATES {
        envoy
            .update(&json!({ "ttl_seconds": 3600 + round + 1 }))
            .await;
        fill(&envoy, round, HOT_BYTES_MAX / LONG + 4).await;
        load.goes_on(20).await;
    }
    load.end().await;
    let log = envoy.log();
    assert!(!log.contains("panicked"), "{log}");
    envoy
        .until(
            "the newest tier is full, and nothing beside it",
            |metrics| {
                let hot = count(metrics, "reflex_hot_bytes");
                hot > 0.9 * HOT_BYTES_MAX as f64 && hot <= HOT_BYTES_MAX as f64
            },
        )
        .await;
    // The answers of the newest configuration are the ones that stay.
    let ask = Ask::chat(&format!("{}: 60", UPDATES - 1)).mock(&format!("large={LONG}"));
    let before = hits(&envoy.metrics().await, "hot");
    assert_eq!(apart(&envoy, ask).await.reflex(), "HIT_L1_EXACT");
    envoy
        .until("a hit", |metrics| hits(metrics, "hot") > before)
        .await;
}

/// `reflex_breaker_open` stayed at the number of all configurations so far, those of the main
/// thread included, and `reflex_hot_bytes` at their sum.
#[tokio::test]
async fn the_figures_come_down_when_the_old_configurations_have_drained() {
    const WORKERS: u32 = 2;
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let plan = EnvoyPlan::new(&upstream.url())
        .daemon(&folder.path().join("no.sock"))
        .workers(WORKERS);
    let mut envoy = plan.updatable(1).start().await;
    for round in 0..4 {
        envoy
            .update(&json!({ "ttl_seconds": 3600 + round + 1 }))
            .await;
        fill(&envoy, round, 16).await;
        envoy
            .until("a worker leaves the daemon alone", |metrics| {
                let open = count(metrics, "reflex_breaker_open");
                (1.0..=f64::from(WORKERS)).contains(&open)
            })
            .await;
    }
    // The last configuration keeps nothing and has no daemon.
    let last = json!({ "hot_bytes_max": 0, "daemon_cluster": "" });
    envoy.update(&last).await;
    assert_eq!(apart(&envoy, Ask::chat("last")).await.status, 200);
    envoy
        .until("the figures are those of the last one", |metrics| {
            let figures = ["reflex_breaker_open", "reflex_hot_bytes"];
            figures.iter().all(|name| count(metrics, name) == 0.0)
        })
        .await;
}

/// An operator sets a configuration, and then the one before it again.
#[tokio::test]
async fn a_configuration_that_comes_back_works_as_before() {
    let upstream = Upstream::start().await;
    let mut envoy = EnvoyPlan::new(&upstream.url()).updatable(600).start().await;
    for (round, seconds) in [100, 200, 100, 200].into_iter().enumerate() {
        envoy.update(&json!({ "ttl_seconds": seconds })).await;
        let ask = || Ask::chat(&format!("{seconds}"));
        let first = apart(&envoy, ask()).await;
        let second = apart(&envoy, ask()).await;
        let expected = if round < 2 { "MISS" } else { "HIT_L1_EXACT" };
        assert_eq!(first.reflex(), expected, "{round}");
        assert_eq!(second.reflex(), "HIT_L1_EXACT", "{round}");
        assert_eq!(first.body, second.body);
    }
    assert_eq!(upstream.call_count(), 2);
}

/// Two listeners whose filters differ share a module, and so its memory. Neither serves the other's
/// answers, which may have been kept by other rules.
#[tokio::test]
async fn two_listeners_with_one_vm_id_keep_to_their_own_answers() {
    let upstream = Upstream::start().await;
    let envoy = EnvoyPlan::new(&upstream.url())
        .plugin("hot_bytes_max", 4 << 20)
        .edit(|config| {
            let listeners = config["static_resources"]["listeners"].as_array_mut();
            let listeners = listeners.expect("listeners");
            let mut second = listeners[0].clone();
            second["name"] = "second".into();
            let plugin = second.pointer_mut(
                "/filter_chains/0/filters/0/typed_config/http_filters/0\
                 /typed_config/config/configuration/value",
            );
            let plugin = plugin.expect("the filter's");
            let text = plugin.as_str().expect("JSON in text");
            let mut fields: serde_json::Value = serde_json::from_str(text).expect("JSON");
            fields["ttl_seconds"] = 1000.into();
            fields["hot_bytes_max"] = (8 << 20).into();
            *plugin = fields.to_string().into();
            listeners.push(second);
        })
        .start()
        .await;
    let urls = envoy.listeners().await;
    assert_eq!(urls.len(), 2);
    let clients = [Client::new(&urls[0]), Client::new(&urls[1])];
    for client in &clients {
        let first = client.fetch(Ask::chat("both")).await;
        assert_eq!(first.reflex(), "MISS");
        let second = client.fetch(Ask::chat("both")).await;
        assert_eq!(second.reflex(), "HIT_L1_EXACT");
        assert_eq!(second.body, first.body);
    }
    for round in 0..40 {
        for client in &clients {
            let ask = Ask::chat(&format!("long {round}"));
            let answer = client.fetch(ask.mock(&format!("large={LONG}"))).await;
            assert_eq!(answer.status, 200);
        }
    }
    // The greater of the two bounds is for both together.
    envoy
        .until("the figures are told", |metrics| {
            let hot = count(metrics, "reflex_hot_bytes");
            hot > f64::from(6 << 20) && hot <= f64::from(8 << 20)
        })
        .await;
}
