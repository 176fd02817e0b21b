//! A hit looks like its miss: which headers of providers, gateways and CDNs reach the
//! client of a hit, a follower, and the client of a batch that is known in part. Each row of the
//! table has its reason; a test must see exactly the row.

use reflex_tests::client::{Answer, Ask};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::upstream::Upstream;
use serde_json::json;
use std::collections::BTreeMap;

use crate::batches;
use crate::transparent::Out;

/// The clients that see a header, beside the client whose request the provider has answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sees {
    /// Of a stored answer, or of one that is under way for another request.
    pub(crate) hit: bool,
    /// Of a failure that another request has met.
    failed: bool,
    /// Of a batch put together of known texts and the provider's answer to the rest.
    partial: bool,
}

const fn sees(hit: bool, failed: bool, partial: bool) -> Sees {
    Sees {
        hit,
        failed,
        partial,
    }
}

/// How the answer may be read and handled: for all clients.
const ANSWER: Sees = sees(true, true, true);
/// About these very bytes.
const BYTES: Sees = sees(true, true, false);
/// About the exchange: a failure is shared, an answer is not.
const EXCHANGE: Sees = sees(false, true, true);
/// The work and cost of this call: wrong for a body with parts of other answers.
const CALL: Sees = sees(false, true, false);
/// The client's own headers.
const CLIENT: Sees = sees(false, false, true);

const TABLE: &[(&str, &str, Sees)] = &[
    // A page that reads the miss must be able to read the hit. `Origin` is in the key.
    (
        "access-control-allow-origin",
        "https://page.example",
        ANSWER,
    ),
    ("access-control-allow-credentials", "true", ANSWER),
    ("access-control-expose-headers", "x-request-id", ANSWER),
    ("access-control-allow-methods", "POST, GET", ANSWER),
    ("access-control-allow-headers", "authorization", ANSWER),
    ("access-control-max-age", "600", ANSWER),
    ("access-control-allow-private-network", "true", ANSWER),
    ("cross-origin-resource-policy", "cross-origin", ANSWER),
    ("cross-origin-embedder-policy", "require-corp", ANSWER),
    ("cross-origin-opener-policy", "same-origin", ANSWER),
    ("timing-allow-origin", "*", ANSWER),
    // Twice: both lines stay.
    ("vary", "origin", ANSWER),
    ("vary", "accept-encoding", ANSWER),
    // How a browser may use the bytes.
    ("x-content-type-options", "nosniff", ANSWER),
    ("content-security-policy", "default-src 'none'", ANSWER),
    ("x-frame-options", "DENY", ANSWER),
    ("referrer-policy", "no-referrer", ANSWER),
    ("permissions-policy", "geolocation=()", ANSWER),
    ("strict-transport-security", "max-age=9", ANSWER),
    ("x-robots-tag", "none", ANSWER),
    // How proxies and caches on the way to the client may handle it.
    ("x-accel-buffering", "no", ANSWER),
    ("cache-control", "private", ANSWER),
    ("pragma", "no-cache", ANSWER),
    ("expires", "0", ANSWER),
    ("cdn-cache-control", "no-store", ANSWER),
    // How to read it, and by which version of the API it was written.
    ("content-language", "en", ANSWER),
    ("content-disposition", "inline", ANSWER),
    ("link", "<https://docs.example>; rel=deprecation", ANSWER),
    ("deprecation", "@1688169599", ANSWER),
    ("sunset", "Sun, 30 Jun 2030 23:59:59 GMT", ANSWER),
    ("x-api-warning", "set a version", ANSWER),
    ("x-ms-rai-invoked", "true", ANSWER),
    // Digests and validators: a batch put together has other bytes.
    ("content-md5", "Q2hlY2sgSW50ZWdyaXR5IQ==", BYTES),
    ("content-digest", "sha-256=:AAAA:", BYTES),
    ("repr-digest", "sha-256=:AAAA:", BYTES),
    ("digest", "sha-256=AAAA", BYTES),
    ("etag", "\"one\"", BYTES),
    ("last-modified", "Sun, 30 Jun 2024 23:59:59 GMT", BYTES),
    ("x-goog-hash", "crc32c=AAAA", BYTES),
    ("x-amz-checksum-sha256", "AAAA", BYTES),
    // Ids, times and limits are those of one exchange. A follower of its failure has to know when to
    // try again.
    ("retry-after", "7", EXCHANGE),
    ("retry-after-ms", "7000", EXCHANGE),
    ("x-should-retry", "true", EXCHANGE),
    ("x-ratelimit-limit-requests", "10", EXCHANGE),
    ("x-ratelimit-remaining-tokens", "3", EXCHANGE),
    ("x-ratelimit-reset-requests", "6s", EXCHANGE),
    ("anthropic-ratelimit-tokens-remaining", "3", EXCHANGE),
    ("request-id", "req_a", EXCHANGE),
    ("cf-ray", "8f-FRA", EXCHANGE),
    ("openai-processing-ms", "40", EXCHANGE),
    ("x-envoy-upstream-service-time", "41", EXCHANGE),
    ("server-timing", "model;dur=40", EXCHANGE),
    ("server", "cloudflare", EXCHANGE),
    ("alt-svc", "h3=\":443\"", EXCHANGE),
    ("report-to", "{\"group\":\"cf\"}", EXCHANGE),
    ("x-header-of-tomorrow", "1", EXCHANGE),
    // A hit costs nothing, and a part of a batch less than the whole.
    ("x-litellm-response-cost", "0.02", CALL),
    ("x-compute-tokens", "9", CALL),
    ("num_tokens", "9", CALL),
    ("signature", "sig=:AAAA:", CALL),
    // A session or an account of one client never reaches another.
    ("set-cookie", "session=secret", CLIENT),
    ("openai-organization", "org-of-the-leader", CLIENT),
    ("mcp-session-id", "s-1", CLIENT),
    ("x-csrf-token", "t", CLIENT),
];

/// Headers that the provider of the tests sends anyway, or that we set.
const OWN: [&str; 12] = [
    "age",
    "cache-status",
    "content-length",
    "content-type",
    "date",
    "openai-version",
    "set-cookie",
    "transfer-encoding",
    "x-ratelimit-remaining-requests",
    "x-reflex-saved-tokens",
    "x-reflex-status",
    "x-request-id",
];

pub(crate) type Heads = BTreeMap<String, Vec<String>>;

/// The headers of the table.
pub(crate) fn heads(answer: &Answer) -> Heads {
    let mut found = Heads::new();
    for (name, value) in &answer.headers {
        let value = value.to_str().expect("text").to_owned();
        // Streams of the provider say this on their own account.
        let usual = name == "cache-control" && value == "no-cache";
        let cookie = name == "set-cookie" && value.starts_with("session=");
        if (!OWN.contains(&name.as_str()) || cookie) && !usual {
            found.entry(name.to_string()).or_default().push(value);
        }
    }
    found
}

pub(crate) fn expected(is_there: impl Fn(Sees) -> bool) -> Heads {
    let mut heads = Heads::new();
    for (name, value, _) in TABLE.iter().filter(|(.., sees)| is_there(*sees)) {
        let values = heads.entry((*name).to_owned()).or_default();
        values.push((*value).to_owned());
    }
    heads
}

#[track_caller]
fn check(answer: &Answer, client: &str, is_there: impl Fn(Sees) -> bool) {
    let (found, expected) = (heads(answer), expected(is_there));
    for name in expected.keys() {
        assert_eq!(found.get(name), expected.get(name), "{client}: {name}");
    }
    assert_eq!(found, expected, "{client}");
    assert_eq!(answer.headers.get_all("cache-status").iter().count(), 1);
}

pub(crate) async fn upstream() -> Upstream {
    let upstream = Upstream::start().await;
    let headers: Vec<_> = TABLE
        .iter()
        .map(|&(name, value, _)| (name, value))
        .collect();
    upstream.also_send(&headers);
    upstream
}

/// `serve`, or transparent mode.
enum Front {
    Serve(Box<Edge>),
    Transparent(Box<Out>),
}

impl Front {
    async fn both(upstream: &Upstream) -> [Self; 2] {
        [
            Self::Serve(Box::new(Edge::before(upstream).await)),
            Self::Transparent(Box::new(Out::to(upstream))),
        ]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Serve(_) => "serve",
            Self::Transparent(_) => "transparent",
        }
    }

    async fn fetch(&self, ask: Ask) -> Answer {
        match self {
            Self::Serve(edge) => edge.client.fetch(ask).await,
            Self::Transparent(out) => out.fetch(ask).await,
        }
    }

    /// The answers to two equal requests: to the leader, and to the
    /// follower.
    async fn two(&self, upstream: &Upstream, ask: &Ask) -> [Answer; 2] {
        let mut both = match self {
            Self::Serve(edge) => {
                let calls = upstream.call_count();
                let fetch = || {
                    let (client, ask) = (edge.client.clone(), ask.clone());
                    tokio::spawn(async move { client.fetch(ask).await })
                };
                let both = [fetch(), fetch()];
                upstream.called(calls + 1).await;
                edge.until("one waits", |metrics| {
                    metrics.sum("reflex_fill_waiters", &[]) > 0.5
                })
                .await;
                upstream.release(1);
                let [one, other] = both;
                [
                    one.await.expect("an answer"),
                    other.await.expect("an answer"),
                ]
            }
            Self::Transparent(out) => {
                let mut herd = out.herd(upstream, ask, 2).await;
                upstream.release(1);
                let other = herd.pop().expect("two").await.expect("no panic");
                let one = herd.pop().expect("two").await.expect("no panic");
                [one.expect("an answer"), other.expect("an answer")]
            }
        };
        both.sort_by_key(|answer| answer.header("cache-status").contains("collapsed"));
        both
    }
}

#[tokio::test]
async fn a_hit_and_a_follower_have_the_head_of_the_miss_but_for_what_belongs_to_its_exchange() {
    let upstream = upstream().await;
    for front in Front::both(&upstream).await {
        for ask in [Ask::chat(front.name()), Ask::stream(front.name())] {
            let ask = ask
                .header("x-hold", "1")
                .header("origin", "https://page.example");
            let [miss, follower] = front.two(&upstream, &ask).await;
            check(&miss, "miss", |_| true);
            check(&follower, "follower", |sees| sees.hit);
            let hit = front.fetch(ask.clone()).await;
            assert_eq!(hit.reflex(), "HIT_L1_EXACT");
            check(&hit, "hit", |sees| sees.hit);
            assert_eq!(hit.header("cache-control"), miss.header("cache-control"));
            assert_eq!(hit.body, miss.body);
            // A page of another origin has an answer of its own.
            upstream.release(1);
            let other = ask.header("origin", "https://other.example");
            assert_eq!(front.fetch(other).await.reflex(), "MISS");
        }
    }
}

#[tokio::test]
async fn a_follower_of_a_failure_learns_when_to_try_again_and_gets_no_cookie() {
    let upstream = upstream().await;
    for front in Front::both(&upstream).await {
        for status in ["429", "500", "503", "529"] {
            let ask = Ask::chat(&format!("{} {status}", front.name()))
                .header("x-hold", "1")
                .mock(&format!("status={status}"));
            let [miss, follower] = front.two(&upstream, &ask).await;
            for answer in [&miss, &follower] {
                assert_eq!(answer.status.as_str(), status);
            }
            assert_eq!(follower.body, miss.body);
            check(&miss, "miss", |_| true);
            check(&follower, "follower", |sees| sees.failed);
            assert_eq!(follower.header("retry-after"), "7");
            assert_eq!(follower.header("set-cookie"), "");
            let said = "reflex; fwd=miss; collapsed";
            assert_eq!(follower.header("cache-status"), said);
        }
    }
}

#[tokio::test]
async fn a_batch_put_together_has_no_header_about_the_bytes_of_a_part() {
    let upstream = upstream().await;
    for front in Front::both(&upstream).await {
        let embed = async |input: serde_json::Value| front.fetch(batches::ask(input)).await;
        let first = embed(json!(["a", "b"])).await;
        check(&first, "miss", |_| true);
        let partial = embed(json!(["a", "new"])).await;
        assert_eq!(partial.header("cache-status"), batches::PARTIAL);
        check(&partial, "partial", |sees| sees.partial);
        let whole = |sees: Sees| sees == ANSWER;
        for input in [json!(["new", "a"]), json!("a"), json!(["b"])] {
            let hit = embed(input).await;
            assert_eq!(hit.reflex(), "HIT_L1_EXACT");
            check(&hit, "texts of batches", whole);
        }
        // For a single text it was the provider's answer byte for byte; in a batch it is not.
        embed(json!("alone")).await;
        let hit = embed(json!("alone")).await;
        assert_eq!(hit.reflex(), "HIT_L1_EXACT");
        check(&hit, "a text alone", |sees| sees.hit);
        let hit = embed(json!(["a", "alone"])).await;
        assert_eq!(hit.reflex(), "HIT_L1_EXACT");
        check(&hit, "a batch of known texts", whole);
    }
}

/// A stored answer has the same headers after it was read back from disk.
#[tokio::test]
async fn the_head_of_a_hit_outlives_a_restart_and_is_replayed_at_a_pace() {
    let upstream = upstream().await;
    let edge = Plan::new(&upstream.url())
        .config("replay = \"paced\"")
        .start()
        .await;
    let miss = edge.client.fetch(Ask::stream("later")).await;
    let edge = edge.restart().await;
    let hit = edge.client.fetch(Ask::stream("later")).await;
    assert_eq!((hit.reflex(), &hit.body), ("HIT_L1_EXACT", &miss.body));
    check(&hit, "hit", |sees| sees.hit);
    assert_eq!(hit.header("x-accel-buffering"), "no");
}

#[tokio::test]
async fn a_head_that_is_too_long_to_keep_reaches_the_client_and_is_not_kept() {
    let upstream = Upstream::start().await;
    let long = "x".repeat(reflex_llm::KEPT_BYTES_MAX);
    upstream.also_send(&[("link", &long)]);
    let edge = Edge::before(&upstream).await;
    for _ in 0..2 {
        let answer = edge.client.fetch(Ask::chat("a long head")).await;
        assert_eq!((answer.status.as_u16(), answer.reflex()), (200, "MISS"));
        assert_eq!(answer.header("link").len(), long.len());
    }
    edge.until("two that are not kept", |metrics| {
        metrics.sum("reflex_not_kept_total", &[("reason", "head-too-large")]) > 1.5
    })
    .await;
}

/// RFC 9211: a list, whose last member is the cache nearest the client.
#[tokio::test]
async fn the_providers_cache_status_stays_in_front_of_ours() {
    let upstream = Upstream::start().await;
    upstream.also_send(&[
        ("cache-status", "\"cdn, eu\"; fwd=miss"),
        ("cache-status", "shield; hit"),
    ]);
    let theirs = "\"cdn, eu\"; fwd=miss, shield; hit, ";
    for front in Front::both(&upstream).await {
        let name = front.name();
        let said = async |ask: Ask| {
            let answer = front.fetch(ask).await;
            let lines = answer.headers.get_all("cache-status").iter();
            let lines: Vec<_> = lines.map(|line| line.to_str().expect("text")).collect();
            lines.join(" AND ")
        };
        let ask = || Ask::chat(name);
        assert_eq!(said(ask()).await, format!("{theirs}reflex; fwd=miss"));
        // The source of the first answer says nothing about the hit.
        assert!(said(ask()).await.starts_with("reflex; hit"));
        let anew = said(ask().header("cache-control", "no-cache")).await;
        assert_eq!(anew, format!("{theirs}reflex; fwd=request"));
        let failed = said(Ask::chat("fails").mock("status=500")).await;
        assert_eq!(failed, format!("{theirs}reflex; fwd=miss"));
        let passed = said(Ask::get("/v1/models")).await;
        let own = "reflex; fwd=bypass; detail=\"path\"";
        assert_eq!(passed, format!("{theirs}{own}"));
        said(batches::ask(json!(["a"]))).await;
        let partial = said(batches::ask(json!(["a", "b"]))).await;
        assert_eq!(partial, format!("{theirs}{}", batches::PARTIAL));

        if let Front::Serve(edge) = &front {
            // Only our own part counts.
            for (detail, count) in [("path", 1.0), ("partial", 1.0)] {
                let metrics = edge.metrics().await;
                let counted = metrics.sum("reflex_requests_total", &[("detail", detail)]);
                assert!((counted - count).abs() < 0.5, "{detail}: {metrics:#?}");
            }
        }
    }
    // A reader could not find our part behind this.
    upstream.also_send(&[("cache-status", "cdn; detail=\"open")]);
    for front in Front::both(&upstream).await {
        let answer = front.fetch(Ask::get("/v1/models")).await;
        let own = "reflex; fwd=bypass; detail=\"path\"";
        assert_eq!(answer.header("cache-status"), own);
    }
}
