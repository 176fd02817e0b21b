//! Transparent mode: a host's outgoing HTTP that answers guests' LLM calls from the cache. Here
//! the tests hand it requests as a guest would; guests are in `embedding` and `wasi02`.

use crate::batches::{self, check, inputs, vectors};
use http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use reflex_host::cache::{Cache, CacheOptions};
use reflex_host::clock::Clock;
use reflex_host::component::Transparent;
use reflex_host::exchange::{BoxBody, Fills, HttpPolicy, ResponseFuture, Samples, SendRequest};
use reflex_host::grant::{Grant, ReflexCtx};
use reflex_tests::PATIENCE;
use reflex_tests::behaviour::{Behaviour, Oddity};
use reflex_tests::client::{Answer, Ask};
use reflex_tests::upstream::Upstream;
use reflex_tests::within;
use serde_json::json;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// A host's own client.
pub(crate) struct Sender(Pool<HttpConnector, BoxBody>);

impl Sender {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Pool::builder(TokioExecutor::new()).build_http()))
    }
}

impl SendRequest for Sender {
    fn send(&self, request: http::Request<BoxBody>) -> ResponseFuture {
        let response = self.0.request(request);
        Box::pin(async move {
            let failed = |_| reflex_host::exchange::Error::ConnectionRefused;
            let body = |body: hyper::body::Incoming| body.map_err(Into::into).boxed_unsync();
            Ok(response.await.map_err(failed)?.map(body))
        })
    }
}

/// A host's outgoing HTTP, to one provider.
#[derive(Clone)]
pub(crate) struct Out {
    way: Transparent,
    provider: String,
    fills: Arc<Fills>,
    now_ms: Arc<AtomicU64>,
}

impl Out {
    pub(crate) fn to(upstream: &Upstream) -> Self {
        Self::with(upstream, |policy| policy)
    }

    /// One that serves stale hits, for so long, when the provider fails.
    fn stale(upstream: &Upstream, seconds: u64) -> Self {
        Self::with(upstream, |policy| HttpPolicy {
            stale_if_error_max: Duration::from_secs(seconds),
            ..policy
        })
    }

    fn with(upstream: &Upstream, decide: impl FnOnce(HttpPolicy) -> HttpPolicy) -> Self {
        let now_ms = Arc::new(AtomicU64::new(1_000_000));
        let clock = Arc::clone(&now_ms);
        let cache = Cache::in_memory(&CacheOptions {
            stale_seconds_max: 3600,
            ..CacheOptions::default()
        });
        let policy = decide(HttpPolicy::new(&cache));
        let fills = Arc::clone(&policy.fills);
        let ctx = ReflexCtx {
            cache,
            grant: Grant::new("transparent"),
            clock: Clock::from_fn(move || clock.load(Ordering::Relaxed)),
        };
        Self {
            way: Transparent::new(ctx, policy, Sender::new()),
            provider: upstream.url(),
            fills,
            now_ms,
        }
    }

    /// The answer to a guest; none if it gets an error.
    async fn try_fetch(&self, ask: Ask) -> Option<Answer> {
        let body = Full::new(ask.sent().clone());
        let body = body.map_err(|never| match never {}).boxed_unsync();
        let request = ask.into_request(&self.provider, body);
        let response = within("a response", self.way.send(request)).await.ok()?;
        let (head, body) = response.into_parts();
        let body = within("the end of a body", body.collect()).await;
        Some(Answer {
            status: head.status,
            headers: head.headers,
            body: body.expect("a body that is not cut").to_bytes(),
        })
    }

    pub(crate) async fn fetch(&self, ask: Ask) -> Answer {
        self.try_fetch(ask).await.expect("a response")
    }

    async fn embed(&self, input: impl Into<serde_json::Value>) -> Answer {
        self.fetch(batches::ask(input)).await
    }

    /// Has an answer stored that lives for a second, and lets two seconds pass.
    async fn expired(&self, ask: &Ask) -> Answer {
        let stored = ask.clone().header("x-reflex-ttl", "1");
        let answer = self.fetch(stored).await;
        assert_eq!((answer.status, answer.reflex()), (StatusCode::OK, "MISS"));
        self.pass(2);
        answer
    }

    fn pass(&self, seconds: u64) {
        self.now_ms.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    /// This many equal requests, of which all but one follow.
    pub(crate) async fn herd(
        &self,
        upstream: &Upstream,
        ask: &Ask,
        count: usize,
    ) -> Vec<JoinHandle<Option<Answer>>> {
        let calls = upstream.call_count();
        let herd = (0..count).map(|_| {
            let (out, ask) = (self.clone(), ask.clone());
            tokio::spawn(async move { out.try_fetch(ask).await })
        });
        let herd = herd.collect();
        upstream.called(calls + 1).await;
        let began = Instant::now();
        while self.fills.waiting() < count - 1 {
            assert!(began.elapsed() < PATIENCE, "they do not wait");
            tokio::task::yield_now().await;
        }
        assert_eq!(upstream.call_count(), calls + 1);
        herd
    }
}

#[tokio::test]
async fn of_a_batch_only_what_is_not_known_is_asked_for() {
    let upstream = Upstream::start().await;
    let out = Out::to(&upstream);
    let first = out.embed(json!(["a", "b b"])).await;
    assert_eq!(first.header("cache-status"), batches::MISS);
    let alone = out.embed("a").await;
    assert_eq!(alone.reflex(), "HIT_L1_EXACT");
    assert_eq!(vectors(&alone)[0], vectors(&first)[0]);

    let texts = ["c", "b b", "c", "d", "a"];
    let partial = out.embed(json!(texts)).await;
    assert_eq!(partial.header("cache-status"), batches::PARTIAL);
    assert_eq!(partial.reflex(), "MISS");
    check(&partial, &texts);
    assert_ne!(partial.header("x-reflex-saved-tokens"), "");
    let call = upstream.calls().pop().expect("a call");
    assert_eq!(
        call.header("content-length"),
        call.body.len().to_string(),
        "{call:?}"
    );
    assert_eq!(call.header("authorization"), "Bearer test");
    assert_eq!(call.header("accept-encoding"), "identity");
    // The answer has the head of the provider's answer.
    assert_eq!(partial.header("x-request-id"), "req_2");

    out.pass(10);
    for texts in [&["d", "a"][..], &texts] {
        let hit = out.embed(json!(texts)).await;
        assert_eq!(hit.reflex(), "HIT_L1_EXACT");
        assert_eq!(hit.header("age"), "10");
        check(&hit, texts);
    }
    assert_eq!(inputs(&upstream), [json!(["a", "b b"]), json!(["c", "d"])]);
}

#[tokio::test]
async fn an_odd_answer_to_the_rest_has_the_whole_batch_asked_for() {
    for behaviour in [
        Behaviour::Odd(Oddity::Short),
        Behaviour::Odd(Oddity::Model),
        Behaviour::Odd(Oddity::Length),
        Behaviour::Error,
        Behaviour::Gzip,
        Behaviour::Status(400),
    ] {
        let upstream = Upstream::start().await;
        let out = Out::to(&upstream);
        out.embed(json!(["a", "b"])).await;
        upstream.behave(behaviour);
        let whole = json!(["n", "a", "m", "b"]);
        let answer = out.embed(whole.clone()).await;
        assert_eq!(answer.header("cache-status"), batches::MISS);
        let calls = [json!(["a", "b"]), json!(["n", "m"]), whole];
        assert_eq!(inputs(&upstream), calls, "{behaviour:?}");
        // No part of an odd answer is stored for a text.
        upstream.behave(Behaviour::Answer);
        check(&out.embed(json!(["m", "a"])).await, &["m", "a"]);
    }
}

#[tokio::test]
async fn a_failure_about_the_rest_is_the_guests_and_is_not_made_worse() {
    let upstream = Upstream::start().await;
    let out = Out::to(&upstream);
    out.embed(json!(["a", "b"])).await;
    for status in [500, 429, 503] {
        upstream.behave(Behaviour::Status(status));
        let calls = upstream.call_count();
        let answer = out.embed(json!(["new", "a"])).await;
        assert_eq!(answer.status, status);
        assert_eq!(inputs(&upstream)[calls..], [json!(["new"])]);
    }
    upstream.stop().await;
    let lost = out.try_fetch(batches::ask(json!(["new", "a"]))).await;
    assert!(lost.is_none(), "{lost:?}");
    assert_eq!(out.embed(json!(["b", "a"])).await.reflex(), "HIT_L1_EXACT");
}

#[tokio::test]
async fn a_herd_with_one_batch_of_which_part_is_known_is_one_call() {
    let upstream = Upstream::start().await;
    let out = Out::to(&upstream);
    // The header counts, so that what is known must be known with it.
    let one = |input| batches::ask(input).header("x-hold", "1");
    upstream.release(1);
    out.fetch(one(json!(["a", "b"]))).await;
    let herd = out.herd(&upstream, &one(json!(["n", "a", "m"])), 5).await;
    upstream.release(1);
    let mut partial = 0;
    for answer in herd {
        let answer = answer.await.expect("no panic").expect("an answer");
        check(&answer, &["n", "a", "m"]);
        match answer.header("cache-status") {
            batches::PARTIAL => partial += 1,
            _ => assert_eq!(answer.reflex(), "HIT_L1_EXACT"),
        }
    }
    assert_eq!((partial, upstream.call_count()), (1, 2));
}

#[tokio::test]
async fn what_a_guest_wants_of_the_cache_goes_for_each_text() {
    let upstream = Upstream::start().await;
    let out = Out::to(&upstream);
    out.embed(json!(["a", "b"])).await;
    let with = |input, value| out.fetch(batches::ask(input).header("cache-control", value));
    let absent = with(json!(["a", "new"]), "only-if-cached").await;
    assert_eq!(absent.status, 504);
    check(
        &with(json!(["b", "a"]), "only-if-cached").await,
        &["b", "a"],
    );
    assert_eq!(upstream.call_count(), 1);
    // Asks for all anew, and refreshes each.
    let anew = with(json!(["b", "a"]), "no-cache").await;
    assert_eq!(anew.header("cache-status"), "reflex; fwd=request");
    assert_eq!(vectors(&out.embed("a").await)[0][2], 2);
}

#[tokio::test]
async fn samples_are_of_the_whole_batch() {
    let upstream = Upstream::start().await;
    let out = Out::with(&upstream, |policy| HttpPolicy {
        samples: Samples::new(NonZeroU32::new(2).expect("not 0")),
        ..policy
    });
    for status in ["MISS", "MISS", "HIT_L1_EXACT", "HIT_L1_EXACT"] {
        assert_eq!(out.embed(json!(["a", "b"])).await.reflex(), status);
    }
    assert_eq!(out.embed(json!(["b"])).await.reflex(), "MISS");
}

/// Checks that an answer is the expired one.
#[track_caller]
fn check_stale(answer: &Answer, fresh: &Answer, said: &str, age: &str) {
    assert_eq!(
        (answer.status, answer.reflex()),
        (StatusCode::OK, "HIT_STALE")
    );
    assert_eq!(answer.header("cache-status"), said);
    assert_eq!(answer.header("age"), age);
    assert_eq!(answer.body, fresh.body);
}

#[tokio::test]
async fn a_provider_that_fails_is_answered_by_a_stale_entry_within_the_limit() {
    let upstream = Upstream::start().await;
    let out = Out::stale(&upstream, 60);
    for ask in [Ask::chat("whatever"), Ask::stream("whatever")] {
        upstream.behave(Behaviour::Answer);
        let fresh = out.expired(&ask).await;
        for status in [500, 503, 429] {
            upstream.behave(Behaviour::Status(status));
            let calls = upstream.call_count();
            let stale = out.fetch(ask.clone()).await;
            let said = format!("reflex; fwd=stale; fwd-status={status}; ttl=-1");
            check_stale(&stale, &fresh, &said, "2");
            assert_eq!(upstream.call_count(), calls + 1);
        }
        // A hit replaces neither an answer that is no failure, nor one that a guest needs fresh.
        let fresh_one = ask.clone().header("cache-control", "no-cache");
        assert_eq!(out.fetch(fresh_one).await.status, 429);
        upstream.behave(Behaviour::Status(401));
        assert_eq!(out.fetch(ask.clone()).await.status, 401);
        upstream.behave(Behaviour::Status(500));
        out.pass(59);
        let said = "reflex; fwd=stale; fwd-status=500; ttl=-60";
        check_stale(&out.fetch(ask.clone()).await, &fresh, said, "61");
        out.pass(1);
        let failed = out.fetch(ask).await;
        assert_eq!((failed.status.as_u16(), failed.reflex()), (500, "MISS"));
    }
}

#[tokio::test]
async fn a_provider_that_fails_is_not_answered_by_what_has_ended() {
    let upstream = Upstream::start().await;
    let out = Out::stale(&upstream, 3600);
    // The clock says 1,000 s.
    let ask = Ask::chat("say it").header("x-mock-body", &crate::stale::spoken(1_010));
    out.expired(&ask).await;
    upstream.behave(Behaviour::Status(503));
    for (seconds, status) in [(0, 200), (7, 200), (1, 503), (1, 503)] {
        out.pass(seconds);
        let answer = out.fetch(ask.clone()).await;
        assert_eq!(answer.status, status, "{seconds} s later");
    }
}

#[tokio::test]
async fn a_provider_that_is_gone_gives_a_stale_entry_to_all_followers() {
    let upstream = Upstream::start().await;
    let out = Out::stale(&upstream, 60);
    let ask = Ask::chat("are you there?").header("x-hold", "1");
    upstream.release(1);
    let fresh = out.expired(&ask).await;
    upstream.behave(Behaviour::Status(500));
    let herd = out.herd(&upstream, &ask, 4).await;
    upstream.release(1);
    let said = "reflex; fwd=stale; fwd-status=500; ttl=-1";
    for answer in herd {
        let answer = answer.await.expect("no panic").expect("an answer");
        check_stale(&answer, &fresh, said, "2");
    }

    let herd = out.herd(&upstream, &ask, 4).await;
    upstream.stop().await;
    let gone = "reflex; fwd=stale; ttl=-1";
    for answer in herd {
        let answer = answer.await.expect("no panic").expect("an answer");
        check_stale(&answer, &fresh, gone, "2");
    }
    check_stale(&out.fetch(ask.clone()).await, &fresh, gone, "2");
    // Without a stale entry, the request has no answer.
    let lost = out.try_fetch(Ask::chat("never asked")).await;
    assert!(lost.is_none(), "{lost:?}");
    out.pass(60);
    let lost = out.try_fetch(ask).await;
    assert!(lost.is_none(), "{lost:?}");
}

#[tokio::test]
async fn a_batch_is_filled_with_stale_texts_when_the_provider_fails() {
    let upstream = Upstream::start().await;
    let out = Out::stale(&upstream, 60);
    let old = out.expired(&batches::ask(json!(["a", "b"]))).await;
    out.embed(json!(["c"])).await;
    upstream.behave(Behaviour::Status(503));
    let said = "reflex; fwd=stale; fwd-status=503; ttl=-1";
    check_stale(&out.embed(json!(["a", "b"])).await, &old, said, "2");
    let mixed = out.embed(json!(["c", "b", "a"])).await;
    assert_eq!(
        (mixed.header("cache-status"), mixed.header("age")),
        (said, "2")
    );
    check(&mixed, &["c", "b", "a"]);
    assert_eq!(out.embed(json!(["a", "new"])).await.status, 503);
    let strict = batches::ask(json!(["a", "b"])).header("cache-control", "max-age=9");
    assert_eq!(out.fetch(strict).await.status, 503);
    out.pass(59);
    let said = "reflex; fwd=stale; fwd-status=503; ttl=-60";
    check_stale(&out.embed(json!(["a", "b"])).await, &old, said, "61");
    upstream.stop().await;
    check_stale(
        &out.embed(json!(["a", "b"])).await,
        &old,
        "reflex; fwd=stale; ttl=-60",
        "61",
    );
    out.pass(1);
    let lost = out.try_fetch(batches::ask(json!(["a", "b"]))).await;
    assert!(lost.is_none(), "{lost:?}");
}

#[tokio::test]
async fn nothing_stale_is_served_where_the_operator_has_not_said_so() {
    let upstream = Upstream::start().await;
    let out = Out::to(&upstream);
    let ask = Ask::chat("by default?").header("x-hold", "1");
    upstream.release(1);
    out.expired(&ask).await;
    upstream.behave(Behaviour::Status(500));
    let herd = out.herd(&upstream, &ask, 3).await;
    upstream.release(1);
    for answer in herd {
        let answer = answer.await.expect("no panic").expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.reflex()), (500, "MISS"));
    }
    let herd = out.herd(&upstream, &ask, 3).await;
    upstream.stop().await;
    for answer in herd {
        assert!(answer.await.expect("no panic").is_none());
    }
}
