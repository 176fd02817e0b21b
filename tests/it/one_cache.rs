//! The reverse proxy and the edge API on one cache: each waits for answers that the other fetches,
//! and a purge through one of them holds for both.

use reflex_llm::{Classified, Head, Policy, classify};
use reflex_tests::client::{Answer, Ask, CHAT};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::unix::Unix;
use reflex_tests::upstream::Upstream;
use std::fmt::Write as _;
use tokio::task::JoinHandle;

use http::Method;

/// Longer than a test takes. Only a failing test waits so long.
const WAIT: &str = "20000";

/// A provider, a daemon with both surfaces, and a client of the edge API.
struct Both {
    upstream: Upstream,
    edge: Edge,
    unix: Unix,
}

impl Both {
    async fn start() -> Self {
        Self::with("").await
    }

    async fn with(config: &str) -> Self {
        let upstream = Upstream::start().await;
        let plan = Plan::new(&upstream.url()).edge_socket(true).config(config);
        let edge = plan.start().await;
        let unix = Unix::http1(&edge.socket());
        Self {
            upstream,
            edge,
            unix,
        }
    }

    /// Of the tenant of [`Ask::chat`], and of what is asked.
    fn names(&self, ask: &Ask, header: (&str, &str)) -> Names {
        self.names_of(ask, &[header])
    }

    /// The same with several headers.
    fn names_of(&self, ask: &Ask, more: &[(&str, &str)]) -> Names {
        let mut headers: Vec<(&str, &[u8])> = vec![
            ("content-type", b"application/json"),
            ("authorization", b"Bearer test"),
        ];
        headers.extend(more.iter().map(|(name, value)| (*name, value.as_bytes())));
        let head = Head {
            method: "POST",
            upstream: &self.upstream.url(),
            path: CHAT,
            headers: &headers,
        };
        match classify(&head, &Policy::default(), ask.sent()) {
            Classified::Cacheable(exchange) => {
                let tenant = format!("/v1/entries/{}", hex(&exchange.key.tenant.0));
                let entry = format!("{tenant}/{}", hex(&exchange.key.digest));
                Names { tenant, entry }
            }
            Classified::Bypass(bypass) => panic!("not cacheable: {bypass}"),
        }
    }

    /// A request through the reverse proxy in the background.
    fn ask(&self, ask: &Ask) -> JoinHandle<Answer> {
        let (client, ask) = (self.edge.client.clone(), ask.clone());
        tokio::spawn(async move { client.fetch(ask).await })
    }

    /// A lookup of an edge in the background that waits.
    fn wait(&self, path: &str) -> JoinHandle<Answer> {
        let ask = Ask::get(path).header("x-reflex-wait", WAIT);
        let unix = self.unix.clone();
        tokio::spawn(async move { unix.fetch(ask).await })
    }

    async fn purge(&self, path: &str) {
        let purged = self.unix.fetch(Ask::new(Method::DELETE, path, "")).await;
        assert!([204, 404].contains(&purged.status.as_u16()), "{purged:?}");
    }

    /// Waits until so many requests or lookups wait.
    async fn waiting(&self, whose: &str, count: u32) {
        self.edge
            .until(&format!("{count} {whose}"), |metrics| {
                (metrics.sum(whose, &[]) - f64::from(count)).abs() < 0.5
            })
            .await;
    }
}

/// Paths of the edge API.
struct Names {
    tenant: String,
    entry: String,
}

const REQUESTS: &str = "reflex_fill_waiters";
const EDGES: &str = "reflex_edge_waiting";
const GATED: (&str, &str) = ("x-mock", "gated");
const HELD: (&str, &str) = ("x-hold", "1");

fn hex(bytes: &[u8; 32]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn lead(path: &str, id: &str) -> Ask {
    Ask::get(path).header("x-reflex-fill-id", id)
}

fn put(path: &str, body: &'static str) -> Ask {
    Ask::new(Method::PUT, path, body).header("content-type", "application/json")
}

/// A request after a purge joined the answer that was under way since before it, and that was
/// stored in the end.
#[tokio::test]
async fn nothing_from_before_a_purge_is_served_or_stored_after_it() {
    let both = Both::start().await;
    let mut calls = 0;
    for what in ["entry", "tenant", "all"] {
        for is_held in [true, false] {
            let (control, ask) = match is_held {
                true => (HELD, Ask::chat(what)),
                false => (GATED, Ask::stream(what)),
            };
            let names = both.names(&ask, control);
            let path = match what {
                "entry" => &names.entry,
                "tenant" => &names.tenant,
                _ => "/v1/entries",
            };
            let ask = ask.header(control.0, control.1);
            let before = both.ask(&ask);
            both.upstream.called(calls + 1).await;
            if !is_held {
                // Without its head, it cannot be joined.
                let joins = both.edge.client.send(ask.clone()).await;
                assert!(
                    joins.headers["cache-status"]
                        .as_bytes()
                        .ends_with(b"collapsed")
                );
            }
            both.purge(path).await;
            let after = both.ask(&ask);
            both.upstream.called(calls + 2).await;
            both.upstream.release(200);
            let before = before.await.expect("an answer");
            let after = after.await.expect("an answer");
            both.upstream.forget_permits();
            assert_eq!(after.header("cache-status"), "reflex; fwd=miss", "{what}");
            assert_ne!(before.body, after.body);
            let hit = both.edge.client.fetch(ask.clone()).await;
            assert_eq!((hit.reflex(), &hit.body), ("HIT_L1_EXACT", &after.body));
            calls += 2;

            // Also if no request comes meanwhile.
            both.purge(path).await;
            let before = both.ask(&ask);
            calls += 1;
            both.upstream.called(calls).await;
            both.purge(path).await;
            both.upstream.release(200);
            assert_eq!(before.await.expect("an answer").status, 200);
            both.upstream.forget_permits();
            let found = both.unix.fetch(Ask::get(&names.entry)).await;
            assert_eq!(found.status, 404, "{what}");
        }
    }
    let metrics = both.edge.metrics().await;
    let purged = metrics.sum("reflex_not_kept_total", &[("reason", "purged")]);
    assert!((purged - 12.0).abs() < 0.5, "{metrics:#?}");
}

/// A purge of another entry leaves an answer under way alone.
#[tokio::test]
async fn a_purge_of_another_tenant_leaves_what_is_under_way() {
    let both = Both::start().await;
    let ask = Ask::stream("not yours");
    let names = both.names(&ask, GATED);
    let ask = ask.header(GATED.0, GATED.1);
    let first = both.edge.client.send(ask.clone()).await;
    both.purge(&format!("/v1/entries/{}", "5".repeat(64))).await;
    let other = format!("{}/{}", names.tenant, "5".repeat(64));
    both.purge(&other).await;
    let second = both.edge.client.send(ask.clone()).await;
    assert_eq!(
        second.headers["cache-status"],
        "reflex; fwd=miss; collapsed"
    );
    both.upstream.release_all();
    let whole = first.whole().await.body;
    assert_eq!(second.whole().await.body, whole);
    let found = both.unix.fetch(Ask::get(&names.entry)).await;
    assert_eq!((found.status.as_u16(), found.body), (200, whole));
}

/// An edge and the reverse proxy each called the provider for the same answer.
#[tokio::test]
async fn an_edge_waits_for_what_the_proxy_fetches() {
    let both = Both::start().await;
    for (control, ask) in [
        (HELD, Ask::chat("fetched by the proxy")),
        (GATED, Ask::stream("fetched by the proxy")),
        // Longer than what is stored on the thread that passes it on.
        (("x-mock", "large=1000000"), Ask::chat("long")),
    ] {
        let calls = both.upstream.call_count();
        let names = both.names(&ask, control);
        let ask = ask.header(control.0, control.1);
        let is_long = control.0 == "x-mock" && control.1.starts_with("large");
        let fetches = both.ask(&ask);
        if is_long {
            // It ended before a request could wait, and the answer is stored.
            let fetched = fetches.await.expect("an answer");
            let found = both.wait(&names.entry).await.expect("an answer");
            assert_eq!((found.status.as_u16(), found.body), (200, fetched.body));
            continue;
        }
        both.upstream.called(calls + 1).await;
        let busy = both.unix.fetch(lead(&names.entry, "a")).await;
        assert_eq!(
            (busy.status.as_u16(), busy.header("x-reflex-fill")),
            (404, "busy")
        );
        let waits = both.wait(&names.entry);
        both.waiting(EDGES, 1).await;
        both.upstream.release(200);
        let fetched = fetches.await.expect("an answer");
        let found = waits.await.expect("an answer");
        both.upstream.forget_permits();
        assert_eq!(found.status, 200);
        assert_eq!(found.header("x-reflex-fill"), "collapsed");
        assert_eq!(found.body, fetched.body);
        assert_eq!(both.upstream.call_count(), calls + 1);
    }
}

#[tokio::test]
async fn an_edge_does_not_wait_for_what_the_proxy_may_not_keep() {
    let both = Both::start().await;
    for behaviour in ["status=400", "refusal"] {
        let calls = both.upstream.call_count();
        let ask = Ask::chat("not kept");
        let names = both.names_of(&ask, &[("x-mock", behaviour), HELD]);
        let fetches = both.ask(&ask.mock(behaviour).header(HELD.0, HELD.1));
        both.upstream.called(calls + 1).await;
        let waits = both.wait(&names.entry);
        both.waiting(EDGES, 1).await;
        both.upstream.release(1);
        fetches.await.expect("an answer");
        let answer = waits.await.expect("an answer");
        assert_eq!(answer.status, 404);
        assert_eq!(answer.header("x-reflex-fill"), "");
    }
}

/// The reverse proxy called the provider for an answer that an edge was fetching.
#[tokio::test]
async fn the_proxy_waits_for_what_an_edge_fetches() {
    let both = Both::start().await;
    let ask = Ask::chat("fetched by an edge");
    let names = both.names(&ask, GATED);
    let ask = ask.header(GATED.0, GATED.1);
    let leads = both.unix.fetch(lead(&names.entry, "a")).await;
    assert_eq!(leads.header("x-reflex-fill"), "leader");
    let crowd: Vec<_> = (0..5).map(|_| both.ask(&ask)).collect();
    both.waiting(REQUESTS, 5).await;
    let stored = put(&names.entry, "{}").header("x-reflex-fill-id", "a");
    assert_eq!(both.unix.fetch(stored).await.status, 201);
    for answer in crowd {
        let answer = answer.await.expect("an answer");
        assert_eq!(
            (answer.reflex(), &answer.body[..]),
            ("HIT_L1_EXACT", &b"{}"[..])
        );
    }
    assert_eq!(both.upstream.call_count(), 0);

    // No answer comes: then one of them asks, for all.
    both.purge(&names.entry).await;
    both.unix.fetch(lead(&names.entry, "b")).await;
    let crowd: Vec<_> = (0..5).map(|_| both.ask(&ask)).collect();
    both.waiting(REQUESTS, 5).await;
    let path = format!("{}/fill", names.entry);
    let release = Ask::new(Method::DELETE, &path, "").header("x-reflex-fill-id", "b");
    assert_eq!(both.unix.fetch(release).await.status, 204);
    both.upstream.called(1).await;
    both.upstream.release_all();
    let mut bodies = Vec::new();
    for answer in crowd {
        bodies.push(answer.await.expect("an answer").body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert_eq!(both.upstream.call_count(), 1);
}

#[tokio::test]
async fn the_proxy_waits_for_an_edge_no_longer_than_the_operator_lets_it() {
    let both = Both::with("fill_wait_seconds_max = 1").await;
    let ask = Ask::chat("never fetched");
    let names = both.names(&ask, HELD);
    both.unix.fetch(lead(&names.entry, "a")).await;
    let waits = both.ask(&ask.header(HELD.0, HELD.1));
    both.upstream.called(1).await;
    // An answer that the proxy fetches ends the edge's fill.
    let edge = both.wait(&names.entry);
    both.waiting(EDGES, 1).await;
    both.upstream.release(1);
    let answer = waits.await.expect("an answer");
    assert_eq!(answer.header("cache-status"), "reflex; fwd=miss");
    let found = edge.await.expect("an answer");
    assert_eq!((found.status.as_u16(), found.body), (200, answer.body));
    let leads = both.unix.fetch(lead(&names.entry, "b")).await;
    assert_eq!(leads.status, 200);
}

/// An edge cancels its lookup, and gives back the fill, as it may have led. When that came
/// first, the lookup became a leader that never came back.
#[tokio::test]
async fn a_fill_that_is_given_back_before_it_is_asked_for_is_never_led() {
    let both = Both::start().await;
    let ask = Ask::chat("given back");
    let names = both.names(&ask, GATED);
    let path = format!("{}/fill", names.entry);
    let release = Ask::new(Method::DELETE, &path, "").header("x-reflex-fill-id", "a");
    assert_eq!(both.unix.fetch(release).await.status, 404);
    let late = both.unix.fetch(lead(&names.entry, "a")).await;
    assert_eq!(
        (late.status.as_u16(), late.header("x-reflex-fill")),
        (404, "")
    );
    // So no request waits for it.
    let next = both
        .unix
        .fetch(lead(&names.entry, "b").header("x-reflex-wait", WAIT));
    assert_eq!(next.await.header("x-reflex-fill"), "leader");
}

/// theopenco/llmgateway#2518: the savings of answers through an edge were unknown.
#[tokio::test]
async fn what_an_edge_stores_tells_what_it_saves() {
    let prices = r#"
        [[price]]
        model = "mock*"
        input_per_million = 1000000
        output_per_million = 1000000
    "#;
    let both = Both::with(prices).await;
    let ask = Ask::chat("what did it cost?");
    let names = both.names_of(&ask, &[]);
    let body = r#"{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"hi"}}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#;
    let stored = put(&names.entry, body)
        .header("x-reflex-shape", "chat-completions")
        .header("x-reflex-model", "mock-1");
    assert_eq!(both.unix.fetch(stored).await.status, 201);
    let found = both.unix.fetch(Ask::get(&names.entry)).await;
    assert_eq!(found.header("x-reflex-saved-tokens"), "7");
    let hit = both.edge.client.fetch(ask).await;
    assert_eq!(hit.reflex(), "HIT_L1_EXACT");
    assert_eq!(hit.header("x-reflex-saved-tokens"), "7");
    let metrics = both.edge.metrics().await;
    let money = metrics.sum("reflex_saved_money_total", &[("model", "mock*")]);
    assert!((money - 14.0).abs() < 1e-9, "{metrics:#?}");
}
