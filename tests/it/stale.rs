//! An expired answer in place of the provider's failure: only if the operator allows
//! it, only for so long, and never to a client that wants a fresh one.

use http::Method;
use reflex_llm::{Classified, Head, Policy, classify};
use reflex_tests::PATIENCE;
use reflex_tests::behaviour::Behaviour;
use reflex_tests::client::{Answer, Ask, CHAT};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::unix::Unix;
use reflex_tests::upstream::Upstream;
use serde_json::json;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::batches;

/// Longer than a test takes.
const ON: &str = "stale_if_error_seconds_max = 3600";

async fn edge_with(upstream: &Upstream, config: &str) -> Edge {
    let plan = Plan::new(&upstream.url()).edge_socket(true);
    plan.config(config).start().await
}

/// Has an answer stored, and waits until it has expired.
pub(crate) async fn expired(edge: &Edge, ask: &Ask) -> Answer {
    let stored = ask.clone().header("x-reflex-ttl", "1");
    let answer = edge.client.fetch(stored).await;
    assert_eq!((answer.status.as_u16(), answer.reflex()), (200, "MISS"));
    until_expired(edge, ask).await;
    answer
}

async fn until_expired(edge: &Edge, ask: &Ask) {
    let began = Instant::now();
    // The provider is not asked, and nothing is stored.
    let look = ask.clone().header("cache-control", "only-if-cached");
    while edge.client.fetch(look.clone()).await.status != 504 {
        assert!(began.elapsed() < PATIENCE, "it does not expire");
        tokio::task::yield_now().await;
    }
}

/// Checks that an answer is the expired one, and for how many seconds it says so.
#[track_caller]
fn check_stale(stale: &Answer, fresh: &Answer, said: &str) -> u64 {
    assert_eq!((stale.status.as_u16(), stale.reflex()), (200, "HIT_STALE"));
    assert_eq!(stale.body, fresh.body);
    let cache_status = stale.header("cache-status");
    let ttl = cache_status.strip_prefix(&format!("reflex; fwd=stale{said}; ttl="));
    let ttl: Option<i64> = ttl.and_then(|ttl| ttl.parse().ok());
    let ttl = ttl.unwrap_or_else(|| panic!("`{cache_status}`"));
    assert!(ttl <= 0, "{cache_status}");
    // It lived for one second. A second may pass between the two looks at the clock.
    let age: u64 = stale.header("age").parse().expect("an age");
    let lived = age - ttl.unsigned_abs();
    assert!((1..=2).contains(&lived), "{age} s, {cache_status}");
    ttl.unsigned_abs()
}

/// Checks that the client gets the provider's answer.
async fn check_reaches(upstream: &Upstream, edge: &Edge, ask: &Ask, status: u16) {
    upstream.behave(Behaviour::Status(status));
    let answer = edge.client.fetch(ask.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.reflex()), (status, "MISS"));
}

#[tokio::test]
async fn a_reload_decides_whether_an_expired_answer_is_served() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, "stale_if_error_max = \"0s\"").await;
    let ask = Ask::chat("whatever happens");
    let fresh = expired(&edge, &ask).await;
    check_reaches(&upstream, &edge, &ask, 503).await;
    edge.reload("stale_if_error_max = \"1h\"", "applied").await;
    let stale = edge.client.fetch(ask.clone()).await;
    check_stale(&stale, &fresh, "; fwd-status=503");
    edge.reload("stale_if_error_max = \"0s\"", "applied").await;
    check_reaches(&upstream, &edge, &ask, 503).await;
}

#[tokio::test]
async fn a_failing_provider_is_answered_by_a_stale_entry_within_the_limit() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, ON).await;
    for ask in [Ask::chat("whatever happens"), Ask::stream("what happens")] {
        let fresh = expired(&edge, &ask).await;
        for status in [503, 500, 429] {
            let calls = upstream.call_count();
            upstream.behave(Behaviour::Status(status));
            let stale = edge.client.fetch(ask.clone()).await;
            check_stale(&stale, &fresh, &format!("; fwd-status={status}"));
            assert_eq!(upstream.call_count(), calls + 1);
        }
        // A provider that works again is asked.
        upstream.behave(Behaviour::Answer);
        let again = edge.client.fetch(ask).await;
        assert_eq!(again.reflex(), "MISS");
        assert_ne!(again.body, fresh.body);
    }
    let metrics = edge.metrics().await;
    let count = metrics.sum("reflex_requests_total", &[("detail", "stale")]);
    assert!((count - 6.0).abs() < 0.5, "{metrics:#?}");
}

#[tokio::test]
async fn a_provider_that_is_down_is_answered_by_a_stale_entry_also_after_a_restart() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, ON).await;
    let ask = Ask::chat("are you there?");
    let fresh = expired(&edge, &ask).await;
    upstream.stop().await;
    let stale = edge.client.fetch(ask.clone()).await;
    check_stale(&stale, &fresh, "");
    let edge = edge.restart().await;
    let stale = edge.client.fetch(ask).await;
    check_stale(&stale, &fresh, "");
    // A request without a stored answer gets the error.
    let other = edge.client.fetch(Ask::chat("never asked")).await;
    assert_eq!(other.status, 502);
}

#[tokio::test]
async fn followers_of_a_failing_provider_get_the_stale_entry_as_well() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, ON).await;
    let ask = Ask::chat("all of us").header("x-hold", "1");
    upstream.release(1);
    let fresh = expired(&edge, &ask).await;
    let calls = upstream.call_count();
    let herd = || {
        let spawn = |_| {
            let (client, ask) = (edge.client.clone(), ask.clone());
            tokio::spawn(async move { client.fetch(ask).await })
        };
        (0..4).map(spawn).collect::<Vec<_>>()
    };
    let waiting = |metrics: &reflex_tests::metrics::Metrics| {
        (metrics.sum("reflex_fill_waiters", &[]) - 3.0).abs() < 0.5
    };
    upstream.behave(Behaviour::Status(503));
    let failing = herd();
    upstream.called(calls + 1).await;
    edge.until("3 wait", waiting).await;
    upstream.release(1);
    for answer in failing {
        let answer = answer.await.expect("an answer");
        check_stale(&answer, &fresh, "; fwd-status=503");
    }
    assert_eq!(upstream.call_count(), calls + 1);
    let failing = herd();
    upstream.called(calls + 2).await;
    edge.until("3 wait", waiting).await;
    upstream.stop().await;
    for answer in failing {
        check_stale(&answer.await.expect("an answer"), &fresh, "");
    }
}

#[tokio::test]
async fn a_failing_provider_is_not_answered_by_a_stale_entry_after_the_limit() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, "stale_if_error_seconds_max = 1").await;
    let ask = Ask::chat("how long?");
    let fresh = expired(&edge, &ask).await;
    upstream.behave(Behaviour::Status(503));
    let began = Instant::now();
    loop {
        let answer = edge.client.fetch(ask.clone()).await;
        if answer.status == 503 {
            assert_eq!(answer.reflex(), "MISS");
            break;
        }
        assert!(check_stale(&answer, &fresh, "; fwd-status=503") <= 1);
        assert!(began.elapsed() < PATIENCE, "the wait has no limit");
    }
    assert_eq!(edge.client.fetch(ask).await.status, 503);
}

#[tokio::test]
async fn a_failing_provider_is_not_answered_by_a_stale_entry_when_it_is_off() {
    let upstream = Upstream::start().await;
    for config in ["", "stale_if_error_seconds_max = 0"] {
        let edge = edge_with(&upstream, config).await;
        let ask = Ask::chat("by default?");
        upstream.behave(Behaviour::Answer);
        expired(&edge, &ask).await;
        for status in [503, 429] {
            check_reaches(&upstream, &edge, &ask, status).await;
        }
    }
}

#[tokio::test]
async fn a_401_reaches_the_client_whatever_is_stale() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, ON).await;
    let ask = Ask::chat("with which key?");
    expired(&edge, &ask).await;
    for status in [401, 400, 403, 404, 408] {
        check_reaches(&upstream, &edge, &ask, status).await;
    }
}

#[tokio::test]
async fn another_tenant_is_not_given_a_stale_entry() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, ON).await;
    let ask = Ask::chat("mine");
    let fresh = expired(&edge, &ask).await;
    let theirs = ask.clone().key(Some("another"));
    check_reaches(&upstream, &edge, &theirs, 503).await;
    let stale = edge.client.fetch(ask).await;
    check_stale(&stale, &fresh, "; fwd-status=503");
}

#[tokio::test]
async fn no_cache_is_never_given_stale() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, ON).await;
    let ask = Ask::chat("fresh, please");
    let fresh = expired(&edge, &ask).await;
    upstream.behave(Behaviour::Status(503));
    for control in ["no-cache", "max-age=9999", "min-fresh=0", "no-store"] {
        let strict = ask.clone().header("cache-control", control);
        let answer = edge.client.fetch(strict).await;
        assert_eq!(answer.status, 503, "{control}");
    }
    let stale = edge.client.fetch(ask).await;
    check_stale(&stale, &fresh, "; fwd-status=503");
}

/// A purge that comes while the provider is asked counts as well.
#[tokio::test]
async fn a_failing_provider_is_not_answered_by_a_stale_entry_after_a_purge() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, ON).await;
    let unix = Unix::http1(&edge.socket());
    for of in ["entry", "tenant", "all"] {
        let ask = Ask::chat(of).header("x-hold", "1");
        let fetch = || {
            let (client, ask) = (edge.client.clone(), ask.clone());
            tokio::spawn(async move { client.fetch(ask).await })
        };
        upstream.behave(Behaviour::Answer);
        upstream.release(1);
        let fresh = expired(&edge, &ask).await;
        upstream.behave(Behaviour::Status(503));
        upstream.release(1);
        let stale = fetch().await.expect("an answer");
        check_stale(&stale, &fresh, "; fwd-status=503");
        let calls = upstream.call_count();
        let waiting = fetch();
        upstream.called(calls + 1).await;
        let path = match of {
            "entry" => names(&upstream, &ask).1,
            "tenant" => names(&upstream, &ask).0,
            _ => "/v1/entries".to_owned(),
        };
        let ask = Ask::new(Method::DELETE, &path, "").key(Some(&edge.token()));
        let purged = unix.fetch(ask).await;
        assert_eq!(purged.status, 204, "{of}");
        upstream.release(2);
        for answer in [waiting, fetch()] {
            let answer = answer.await.expect("an answer");
            assert_eq!(answer.status, 503, "{of}");
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs()
}

/// The provider's spoken answer, under an id that it forgets at this time.
pub(crate) fn spoken(expires_at: u64) -> String {
    let audio = json!({"id": "a", "data": "AAAA", "transcript": "x", "expires_at": expires_at});
    let message = json!({"role": "assistant", "content": null, "audio": audio});
    let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
    json!({"object": "chat.completion", "choices": [choice]}).to_string()
}

/// Asks until the provider's failure reaches the client, and checks that the answer stood in for it
/// until its own end and no longer.
async fn stale_until(edge: &Edge, ask: &Ask, end: u64) {
    let began = Instant::now();
    loop {
        let asked_at = now();
        let answer = edge.client.fetch(ask.clone()).await;
        if answer.status == 503 {
            break;
        }
        assert_eq!(answer.reflex(), "HIT_STALE");
        assert!(asked_at < end, "served after its end");
        assert!(began.elapsed() < PATIENCE, "it does not end");
    }
    assert!(now() >= end, "not served before its end");
}

/// A spoken answer was served stale after the provider had forgotten its id: conversations that
/// named it failed.
#[tokio::test]
async fn a_failing_provider_is_not_answered_by_what_has_ended() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, ON).await;
    // One ends as it expires, which is before the client wanted; the other some seconds later.
    for (ttl, life) in [("1000", 2), ("1", 6)] {
        let end = now() + life;
        let ask = Ask::chat("say it").header("x-mock-body", &spoken(end));
        let stored = ask.clone().header("x-reflex-ttl", ttl);
        upstream.behave(Behaviour::Answer);
        assert_eq!(edge.client.fetch(stored).await.reflex(), "MISS");
        until_expired(&edge, &ask).await;
        upstream.behave(Behaviour::Status(503));
        stale_until(&edge, &ask, end).await;
    }
}

/// The same for answers that came through the edge API, of which an edge may know more.
#[tokio::test]
async fn a_failing_provider_is_not_answered_by_what_an_edge_says_has_ended() {
    let upstream = Upstream::start_with(Behaviour::Status(503)).await;
    upstream.release_all();
    let edge = edge_with(&upstream, ON).await;
    let unix = Unix::http1(&edge.socket());
    let put = async |prompt: &str, body: &str, more: &[(&str, &str)]| {
        let ask = Ask::chat(prompt).header("x-hold", "1");
        let path = names(&upstream, &ask).1;
        let put = Ask::new(Method::PUT, &path, body.to_owned());
        let put = put
            .header("content-type", "application/json")
            .header("x-reflex-ttl", "1");
        let add = |put: Ask, (name, value): &(&str, &str)| put.header(name, value);
        let stored = unix.fetch(more.iter().fold(put, add)).await;
        assert_eq!(stored.status, 201, "{prompt}");
        until_expired(&edge, &ask).await;
        ask
    };
    let shape = ("x-reflex-shape", "chat-completions");
    let end = now() + 6;
    let ask = put("spoken", &spoken(end), &[shape]).await;
    stale_until(&edge, &ask, end).await;

    let plain = json!({"object": "chat.completion", "choices": [{"index": 0,
        "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]});
    let plain = plain.to_string();
    let ask = put("plain", &plain, &[shape]).await;
    assert_eq!(edge.client.fetch(ask).await.reflex(), "HIT_STALE");
    let ended = put("ended", &plain, &[shape, ("x-reflex-end", "1")]).await;
    let unseen = put("unseen", &plain, &[]).await;
    for ask in [ended, unseen] {
        assert_eq!(edge.client.fetch(ask).await.status, 503);
    }
}

/// The rules ignored `must-revalidate`, and `s-maxage` has its meaning for shared caches.
#[tokio::test]
async fn a_failing_provider_is_not_answered_against_its_own_word() {
    let upstream = Upstream::start().await;
    let config = format!("{ON}\nprovider_control = \"obey\"");
    let edge = edge_with(&upstream, &config).await;
    for (control, status) in [
        ("max-age=60", 200),
        ("max-age=60, must-revalidate", 503),
        ("s-maxage=60", 503),
    ] {
        let head = format!("cache-control: {control}");
        for ask in [
            Ask::chat("whose word?"),
            batches::ask(json!([control, "both"])),
        ] {
            let ask = ask.header("x-mock-head", &head);
            upstream.behave(Behaviour::Answer);
            expired(&edge, &ask).await;
            upstream.behave(Behaviour::Status(503));
            assert_eq!(edge.client.fetch(ask).await.status, status, "{control}");
        }
    }
}

/// It never worked for batches: the key of the whole batch was looked up, and a batch is kept text
/// by text.
#[tokio::test]
async fn a_batch_is_filled_with_stale_texts_when_the_provider_fails() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, ON).await;
    let ask = |input: serde_json::Value| batches::ask(input);
    let old = expired(&edge, &ask(json!(["a", "b"]))).await;
    let fresh = edge.client.fetch(ask(json!(["c"]))).await;
    for status in [503, 500, 429] {
        upstream.behave(Behaviour::Status(status));
        let said = format!("; fwd-status={status}");
        check_stale(
            &edge.client.fetch(ask(json!(["a", "b"]))).await,
            &old,
            &said,
        );
        // In another order, twice, alone, and beside what is fresh.
        for texts in [&["b", "a", "b"][..], &["b"], &["c", "a"]] {
            let calls = upstream.call_count();
            let stale = edge.client.fetch(ask(json!(texts))).await;
            assert_eq!((stale.status.as_u16(), stale.reflex()), (200, "HIT_STALE"));
            let said = format!("reflex; fwd=stale{said}; ttl=");
            assert!(stale.header("cache-status").starts_with(&said));
            batches::check(&stale, texts);
            assert_ne!(stale.header("x-reflex-saved-tokens"), "");
            assert_eq!(upstream.call_count(), calls + 1);
        }
        // Not if a text has no entry at all, nor for a client that wants it fresh.
        for texts in [&["a", "new"][..], &["c", "new"]] {
            check_reaches(&upstream, &edge, &ask(json!(texts)), status).await;
        }
        let strict = ask(json!(["a", "b"])).header("cache-control", "no-cache");
        assert_eq!(edge.client.fetch(strict).await.status, status);
        let other = ask(json!(["a", "b"])).key(Some("another"));
        check_reaches(&upstream, &edge, &other, status).await;
    }
    upstream.stop().await;
    check_stale(&edge.client.fetch(ask(json!(["a", "b"]))).await, &old, "");
    let hit = edge.client.fetch(ask(json!(["c"]))).await;
    assert_eq!((hit.reflex(), &hit.body), ("HIT_L1_EXACT", &fresh.body));
    let missing = edge.client.fetch(ask(json!(["a", "new"]))).await;
    assert_eq!(missing.status, 502);
}

#[tokio::test]
async fn followers_with_a_batch_for_a_failing_provider_get_the_stale_texts() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, ON).await;
    let ask = batches::ask(json!(["a", "b"])).header("x-hold", "1");
    upstream.release(1);
    let old = expired(&edge, &ask).await;
    let calls = upstream.call_count();
    upstream.behave(Behaviour::Status(503));
    let herd: Vec<_> = (0..3)
        .map(|_| {
            let (client, ask) = (edge.client.clone(), ask.clone());
            tokio::spawn(async move { client.fetch(ask).await })
        })
        .collect();
    upstream.called(calls + 1).await;
    edge.until("2 wait", |metrics| {
        metrics.sum("reflex_fill_waiters", &[]) > 1.5
    })
    .await;
    upstream.release(1);
    for answer in herd {
        let answer = answer.await.expect("an answer");
        check_stale(&answer, &old, "; fwd-status=503");
    }
    assert_eq!(upstream.call_count(), calls + 1);
}

#[tokio::test]
async fn a_batch_is_not_filled_with_stale_texts_where_that_is_off() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, "").await;
    let ask = batches::ask(json!(["a", "b"]));
    expired(&edge, &ask).await;
    check_reaches(&upstream, &edge, &ask, 503).await;
}

/// What the edge API calls the tenant of [`Ask::chat`], and the entry of what is asked and held.
fn names(upstream: &Upstream, ask: &Ask) -> (String, String) {
    let head = Head {
        method: "POST",
        upstream: &upstream.url(),
        path: CHAT,
        headers: &[
            ("content-type", b"application/json"),
            ("authorization", b"Bearer test"),
            ("x-hold", b"1"),
        ],
    };
    let Classified::Cacheable(exchange) = classify(&head, &Policy::default(), ask.sent()) else {
        panic!("it is not cacheable");
    };
    let hex = |bytes: [u8; 32]| bytes.map(|byte| format!("{byte:02x}")).concat();
    let tenant = format!("/v1/entries/{}", hex(exchange.key.tenant.0));
    let entry = format!("{tenant}/{}", hex(exchange.key.digest));
    (tenant, entry)
}
