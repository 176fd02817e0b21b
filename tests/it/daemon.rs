//! The daemon's life: what survives it, how it stops, and what it does without its provider.

use std::fs;
use std::path::{Path, PathBuf};

use reflex_tests::client::{Ask, CHAT};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::metrics::Metrics;
use reflex_tests::mount::Disk;
use reflex_tests::upstream::Upstream;
use reflex_tests::within;

#[tokio::test]
async fn a_restart_keeps_the_entries() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let document = edge.client.fetch(Ask::chat("keep this")).await;
    let stream = edge.client.fetch(Ask::stream("keep this")).await;
    edge.recorded(2, 0).await;

    let edge = edge.restart().await;
    let again = edge.client.fetch(Ask::chat("keep this")).await;
    assert_eq!(
        (again.reflex(), &again.body),
        ("HIT_L1_EXACT", &document.body)
    );
    let again = edge.client.fetch(Ask::stream("keep this")).await;
    assert_eq!(
        (again.reflex(), &again.body),
        ("HIT_L1_EXACT", &stream.body)
    );
    assert_eq!(upstream.call_count(), 2);
}

#[tokio::test]
async fn a_kill_costs_no_answer_that_the_system_has() {
    let upstream = Upstream::start().await;
    let mut edge = Edge::before(&upstream).await;
    let first = edge.client.fetch(Ask::chat("survive this")).await;
    edge.recorded(1, 0).await;
    edge.written().await;
    edge.kill().await;

    let edge = edge.start_again().await;
    let again = edge.client.fetch(Ask::chat("survive this")).await;
    assert_eq!((again.reflex(), &again.body), ("HIT_L1_EXACT", &first.body));
}

#[tokio::test]
async fn a_flipped_byte_on_disk_is_a_miss_and_never_an_answer() {
    let upstream = Upstream::start().await;
    let mut edge = Edge::before(&upstream).await;
    let prompts = [
        "flip the first byte",
        "flip one in the middle",
        "flip the last byte",
        "leave",
    ];
    let mut stored = Vec::new();
    for prompt in prompts {
        stored.push(edge.client.fetch(Ask::chat(prompt)).await.body);
    }
    edge.recorded(4, 0).await;
    edge.terminate();
    assert_eq!(edge.ended().await, Some(0));

    for (body, at) in stored
        .iter()
        .zip([0, stored[1].len() / 2, stored[2].len() - 1])
    {
        flip(&edge.data_dir(), body, at);
    }
    let edge = edge.start_again().await;
    for (prompt, body) in prompts.iter().zip(&stored).take(3) {
        let answer = edge.client.fetch(Ask::chat(prompt)).await;
        assert_eq!(answer.reflex(), "MISS", "{prompt}");
        assert_ne!(answer.body, *body, "{prompt}");
        assert_eq!(answer.json()["object"], "chat.completion", "{prompt}");
    }
    let untouched = edge.client.fetch(Ask::chat(prompts[3])).await;
    assert_eq!(untouched.reflex(), "HIT_L1_EXACT");
    assert_eq!(upstream.call_count(), 7);
}

/// Finds a payload in the files under `folder` and flips one bit of its byte `at`.
fn flip(folder: &Path, payload: &[u8], at: usize) {
    for path in files(folder) {
        let mut bytes = fs::read(&path).expect("a readable file");
        let found = bytes
            .windows(payload.len())
            .position(|window| window == payload);
        if let Some(start) = found {
            bytes[start + at] ^= 1;
            fs::write(&path, bytes).expect("a writable file");
            return;
        }
    }
    panic!("the payload lies in no file under {}", folder.display());
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a readable folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[tokio::test]
async fn sigterm_lets_a_running_stream_end() {
    let upstream = Upstream::start().await;
    let mut edge = Edge::before(&upstream).await;
    let mut stream = edge
        .client
        .send(Ask::stream("to the end").mock("gated"))
        .await;
    upstream.release(1);
    stream.until("assistant").await;

    edge.terminate();
    let address = edge.url.trim_start_matches("http://").to_owned();
    let refused = async {
        while tokio::net::TcpStream::connect(&address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    within("the end of listening", refused).await;
    upstream.release_all();
    let rest = stream.whole().await;
    assert!(rest.body.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(edge.ended().await, Some(0), "{}", edge.log());
}

#[tokio::test]
async fn sigterm_ends_an_idle_daemon() {
    let upstream = Upstream::start().await;
    let mut edge = Edge::before(&upstream).await;
    // A connection kept open for another request does not delay the end.
    edge.client
        .fetch(Ask::chat("and keep the connection"))
        .await;
    edge.terminate();
    assert_eq!(edge.ended().await, Some(0), "{}", edge.log());
}

#[tokio::test]
async fn without_its_provider_a_miss_is_a_502_and_hits_go_on() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let known = edge.client.fetch(Ask::chat("known")).await;
    upstream.stop().await;

    for ask in [Ask::chat("unknown"), Ask::stream("unknown")] {
        for _ in 0..2 {
            let answer = edge.client.fetch(ask.clone()).await;
            assert_eq!(answer.status, 502);
            assert_eq!(answer.header("content-type"), "application/json");
            let error = &answer.json()["error"];
            assert!(
                error["message"]
                    .as_str()
                    .is_some_and(|text| text.contains("provider"))
            );
            assert!(error["type"].is_string(), "{error}");
            assert!(
                error.get("param").is_some() && error.get("code").is_some(),
                "{error}"
            );
        }
    }
    let hit = edge.client.fetch(Ask::chat("known")).await;
    assert_eq!((hit.reflex(), &hit.body), ("HIT_L1_EXACT", &known.body));
}

#[tokio::test]
async fn health_and_metrics_say_what_happened() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for _ in 0..3 {
        edge.client.fetch(Ask::chat("count me")).await;
    }
    edge.client.fetch(Ask::get("/v1/models")).await;

    let health = edge.health().await;
    assert_eq!(health["status"], "green");
    assert_eq!(health["entries"], 1);
    let metrics = edge.metrics().await;
    let check = |name: &str, labels: &[(&str, &str)], count: f64| {
        let counted = metrics.sum(name, labels);
        assert!(
            (counted - count).abs() < 0.5,
            "{name} {labels:?}: {metrics:#?}"
        );
    };
    check("reflex_requests_total", &[("status", "MISS")], 1.0);
    check("reflex_requests_total", &[("status", "HIT_L1_EXACT")], 2.0);
    check(
        "reflex_requests_total",
        &[("status", "BYPASS"), ("detail", "path")],
        1.0,
    );
    let took = "reflex_request_duration_seconds_count";
    check(took, &[("outcome", "hit")], 2.0);
    check(took, &[("outcome", "miss")], 1.0);
    check("reflex_entries", &[], 1.0);
    check("reflex_store_errors_total", &[], 0.0);
}

/// BerriAI/litellm#29414: the whole prompt stood in keys and logs.
#[tokio::test]
async fn neither_prompts_nor_credentials_are_logged() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let ask = || Ask::chat("my private question").key(Some("sk-private"));
    edge.client.fetch(ask()).await;
    edge.client.fetch(ask()).await;
    edge.client.fetch(ask().mock("status=500")).await;
    upstream.stop().await;
    edge.client
        .fetch(Ask::chat("my private other question").key(Some("sk-private")))
        .await;
    let log = edge.log();
    assert!(!log.contains("private"), "{log}");
    let in_answer = edge.client.fetch(Ask::get(CHAT)).await;
    assert!(!String::from_utf8_lossy(&in_answer.body).contains("private"));
}

const HEALTHY: &str = "reflex_store_healthy";

/// Its own answers are served, and its health shows.
async fn check_serves(edge: &Edge, health: &str, prompt: &str) {
    assert_eq!(edge.health().await["status"], health, "{}", edge.log());
    let healthy = edge.metrics().await.sum(HEALTHY, &[]);
    assert_eq!(healthy > 0.5, health == "green");
    let first = edge.client.fetch(Ask::chat(prompt)).await;
    assert_eq!((first.status.as_u16(), first.reflex()), (200, "MISS"));
    edge.recorded(1, 0).await;
    let again = edge.client.fetch(Ask::chat(prompt)).await;
    assert_eq!((again.reflex(), &again.body), ("HIT_L1_EXACT", &first.body));
}

#[tokio::test]
async fn a_quota_without_room_for_an_entry_means_memory() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream.url()).config("disk_bytes_max = 1000");
    let edge = plan.start().await;
    check_serves(&edge, "yellow", "in memory").await;
    assert!(edge.log().contains("disk_bytes_max = 1000 is too small"));
}

#[tokio::test]
async fn a_disk_that_is_read_only_at_first_is_used_as_soon_as_it_is_not() {
    let Some(disk) = Disk::mount("ro,size=64m") else {
        return;
    };
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream.url()).data_dir(&disk.data_dir());
    let edge = plan.start().await;
    check_serves(&edge, "yellow", "before the disk").await;

    disk.remount("rw");
    let is_healthy = |metrics: &Metrics| metrics.sum(HEALTHY, &[]) > 0.5;
    edge.until("the disk in use", is_healthy).await;
    let kept = edge.client.fetch(Ask::chat("on the disk")).await;
    edge.recorded(2, 0).await;
    let before = edge.client.fetch(Ask::chat("before the disk")).await;
    assert_eq!(before.reflex(), "HIT_L1_EXACT");

    let mut edge = edge.restart().await;
    let again = edge.client.fetch(Ask::chat("on the disk")).await;
    assert_eq!((again.reflex(), &again.body), ("HIT_L1_EXACT", &kept.body));
    edge.terminate();
    assert_eq!(edge.ended().await, Some(0));
}
