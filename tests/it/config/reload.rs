//! SIGHUP: another configuration for all requests that begin after it, and for none before.

use reflex_tests::behaviour::Behaviour;
use reflex_tests::client::{Answer, Ask};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::upstream::Upstream;
use reflex_tests::within;

const APPLIED: &str = "applied";
const REFUSED: &str = "refused";

async fn edge_with(upstream: &Upstream, config: &str) -> Edge {
    Plan::new(&upstream.url()).config(config).start().await
}

async fn ask(edge: &Edge, ask: &Ask, expected: &str) -> Answer {
    let answer = edge.client.fetch(ask.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.reflex()), (200, expected));
    answer
}

/// Has an answer stored, and the request known by its bytes.
async fn known(edge: &Edge, request: &Ask, stored: u32) -> Answer {
    let answer = ask(edge, request, "MISS").await;
    edge.recorded(stored, 0).await;
    for _ in 0..2 {
        assert_eq!(ask(edge, request, "HIT_L1_EXACT").await.body, answer.body);
    }
    answer
}

/// A rule that is gone has left answers of requests that count as different now.
#[tokio::test]
async fn no_answer_outlives_the_rule_that_it_was_found_by() {
    let upstream = Upstream::start().await;
    let rule = "ignored_headers = [\"x-lang\"]";
    let edge = edge_with(&upstream, rule).await;
    let german = Ask::chat("hello").header("x-lang", "de");
    let plain = Ask::chat("hello");
    let first = known(&edge, &german, 1).await;
    assert_eq!(ask(&edge, &plain, "HIT_L1_EXACT").await.body, first.body);

    edge.reload("samples = 1", APPLIED).await;
    ask(&edge, &plain, "MISS").await;
    ask(&edge, &german, "MISS").await;
    edge.recorded(3, 0).await;
    ask(&edge, &german, "HIT_L1_EXACT").await;

    // Another rule is another matter, too; the first one finds its answers again.
    edge.reload("ignored_headers = [\"x-lang\", \"x-other\"]", APPLIED)
        .await;
    ask(&edge, &plain, "MISS").await;
    edge.reload(rule, APPLIED).await;
    assert_eq!(ask(&edge, &plain, "HIT_L1_EXACT").await.body, first.body);
    assert_eq!(upstream.call_count(), 4);
}

#[tokio::test]
async fn a_field_that_counts_from_now_on_has_no_earlier_answer() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, "samples = 1").await;
    let body = r#"{"model":"m","messages":[{"role":"user","content":"a"}],"user":"red"}"#;
    let (red, plain) = (
        Ask::body(body),
        Ask::body(body.replace(",\"user\":\"red\"", "")),
    );
    known(&edge, &red, 1).await;
    edge.reload("keyed_fields = [\"user\"]", APPLIED).await;
    ask(&edge, &plain, "MISS").await;
    ask(&edge, &red, "MISS").await;
}

#[tokio::test]
async fn a_request_that_is_known_by_its_bytes_obeys_new_rules() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, "samples = 1").await;
    let body = r#"{"model":"m-x","messages":[{"role":"user","content":"a"}],"temperature":0.9}"#;
    let request = Ask::body(body);
    let first = known(&edge, &request, 1).await;
    for (config, expected) in [
        ("bypass_models = [\"*-x\"]", "BYPASS"),
        ("temperature_max = 0.5", "BYPASS"),
        ("[[path]]\npath = \"/v1/chat/*\"\napi = \"none\"", "BYPASS"),
        ("namespace = \"other\"", "MISS"),
    ] {
        edge.reload(config, APPLIED).await;
        ask(&edge, &request, expected).await;
        edge.reload("samples = 1", APPLIED).await;
        assert_eq!(ask(&edge, &request, "HIT_L1_EXACT").await.body, first.body);
    }
}

#[tokio::test]
async fn tenants_share_as_long_as_they_are_one_group() {
    let upstream = Upstream::start().await;
    let alone = "tenant_header = \"x-team\"";
    let group = format!("{alone}\n[[group]]\nname = \"all\"\ntrusted = [\"red\", \"blue\"]");
    let edge = edge_with(&upstream, &group).await;
    let of = |team: &str| Ask::chat("hello").header("x-team", team);
    let first = known(&edge, &of("red"), 1).await;
    assert_eq!(
        ask(&edge, &of("blue"), "HIT_L1_EXACT").await.body,
        first.body
    );
    edge.reload(alone, APPLIED).await;
    ask(&edge, &of("blue"), "MISS").await;
    ask(&edge, &of("red"), "MISS").await;
    edge.recorded(3, 0).await;
    ask(&edge, &of("blue"), "HIT_L1_EXACT").await;
    // Without the header's meaning, both are the same credential with another header.
    edge.reload("samples = 1", APPLIED).await;
    ask(&edge, &of("red"), "MISS").await;
}

/// The stream began under rules that are not in place at its end: its answer belongs to them.
#[tokio::test]
async fn a_stream_goes_on_through_a_reload_and_is_kept_for_its_own_configuration() {
    let upstream = Upstream::start_with(Behaviour::Gated).await;
    let rule = "ignored_headers = [\"x-lang\"]";
    let edge = edge_with(&upstream, rule).await;
    let request = Ask::stream("long").header("x-lang", "de");
    let mut stream = edge.client.send(request.clone()).await;
    upstream.release(1);
    let begun = within("the first frame", stream.chunk())
        .await
        .expect("a body");
    let begun = begun.expect("a frame");
    edge.reload("samples = 1", APPLIED).await;
    upstream.release_all();
    let rest = stream.whole().await;
    let whole = [&begun[..], &rest.body[..]].concat();
    assert!(String::from_utf8_lossy(&whole).contains("[DONE]"));
    edge.recorded(1, 0).await;
    upstream.behave(Behaviour::Answer);
    ask(&edge, &Ask::stream("long"), "MISS").await;
    edge.reload(rule, APPLIED).await;
    let hit = ask(&edge, &request, "HIT_L1_EXACT").await;
    assert_eq!(&hit.body[..], &whole[..]);
}

#[tokio::test]
async fn a_configuration_with_a_mistake_changes_nothing() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, "samples = 1").await;
    let request = Ask::chat("hello");
    let first = known(&edge, &request, 1).await;
    edge.reload(
        "namespace = \"other\"\nidle_maxx = \"1s\"\nsamples = 0",
        REFUSED,
    )
    .await;
    let log = edge.log();
    assert!(log.contains("line 2: unknown field `idle_maxx`"), "{log}");
    assert!(log.contains("line 3: samples"), "{log}");
    assert_eq!(ask(&edge, &request, "HIT_L1_EXACT").await.body, first.body);
    std::fs::remove_file(edge.config_file()).expect("a file");
    edge.hang_up(REFUSED).await;
    assert_eq!(ask(&edge, &request, "HIT_L1_EXACT").await.body, first.body);
    edge.reload("namespace = \"other\"", APPLIED).await;
    ask(&edge, &request, "MISS").await;
}

#[tokio::test]
async fn what_needs_a_restart_is_told_and_the_rest_applies() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, "samples = 1").await;
    let request = Ask::chat("hello");
    known(&edge, &request, 1).await;
    edge.reload("namespace = \"other\"\ndisk_max = \"1GiB\"", APPLIED)
        .await;
    let log = edge.log();
    assert!(log.contains("not applied: disk_max"), "{log}");
    assert!(log.contains("applied: namespace"), "{log}");
    ask(&edge, &request, "MISS").await;
}

#[tokio::test]
async fn prices_hold_from_the_next_hit_on() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, "samples = 1").await;
    let request = Ask::chat("hello");
    known(&edge, &request, 1).await;
    let money = async || edge.metrics().await.sum("reflex_saved_money_total", &[]);
    assert!(money().await < 1e-12);
    let price = "[[price]]\nmodel = \"mock\"\ninput_per_million = 1\noutput_per_million = 1";
    edge.reload(price, APPLIED).await;
    ask(&edge, &request, "HIT_L1_EXACT").await;
    let saved = money().await;
    assert!(saved > 0.0);
    // What was saved stays saved.
    edge.reload("samples = 1", APPLIED).await;
    ask(&edge, &request, "HIT_L1_EXACT").await;
    assert!((money().await - saved).abs() < 1e-12);
}

#[tokio::test]
async fn another_provider_has_answers_of_its_own() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let plan = Plan::new("http://ignored.invalid").config("samples = 1");
    let edge = plan.provider_in_file(&first.url()).start().await;
    let request = Ask::chat("hello");
    known(&edge, &request, 1).await;
    let to = |upstream: &Upstream| format!("upstream = \"{}\"", upstream.url());
    edge.reload(&to(&second), APPLIED).await;
    ask(&edge, &request, "MISS").await;
    assert_eq!((first.call_count(), second.call_count()), (1, 1));
    edge.reload(&to(&first), APPLIED).await;
    ask(&edge, &request, "HIT_L1_EXACT").await;
}

#[tokio::test]
async fn no_request_fails_while_configurations_come_and_go() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, "samples = 1").await;
    let ended = std::sync::atomic::AtomicBool::new(false);
    let ended = &ended;
    let requests = async |client: usize| {
        let mut count = 0;
        while !ended.load(std::sync::atomic::Ordering::Relaxed) || count < 20 {
            let request = Ask::chat(&format!("{} of {client}", count % 5));
            let answer = edge.client.fetch(request).await;
            assert_eq!(answer.status.as_u16(), 200);
            assert!(["HIT_L1_EXACT", "MISS"].contains(&answer.reflex()));
            count += 1;
        }
        count
    };
    let reloads = async {
        for turn in 0..12 {
            let config = format!("namespace = \"{}\"\nsamples = {}", turn % 3, turn % 2 + 1);
            edge.reload(&config, APPLIED).await;
        }
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (_, a, b, c) = tokio::join!(reloads, requests(0), requests(1), requests(2));
    assert!(a + b + c >= 60);
    let metrics = edge.metrics().await;
    assert_eq!(
        metrics.sum("reflex_requests_total", &[("status", "ERROR")]) as u64,
        0
    );
}
