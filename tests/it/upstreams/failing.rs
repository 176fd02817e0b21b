//! A provider that does not answer: what becomes of its requests, and of those to others.

use super::{WAYS, edge_of, fetch, message, of_model, table};
use reflex_tests::PATIENCE;
use reflex_tests::behaviour::Behaviour;
use reflex_tests::client::{Answer, Ask};
use reflex_tests::edge::Edge;
use reflex_tests::upstream::Upstream;
use std::time::Instant;
use tokio::net::TcpSocket;

/// A provider that is down: nothing listens at its address, which no other program gets meanwhile.
struct Down(TcpSocket);

impl Down {
    fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        let any = "127.0.0.1:0".parse().expect("an address");
        socket.bind(any).expect("a free port");
        Self(socket)
    }

    fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().expect("an address"))
    }
}

/// Asks until the answer has this status.
async fn until(edge: &Edge, ask: &Ask, status: u16) -> Answer {
    let began = Instant::now();
    loop {
        let answer = edge.client.fetch(ask.clone()).await;
        if answer.status == status {
            return answer;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{} and never {status}",
            answer.status
        );
        tokio::task::yield_now().await;
    }
}

async fn is_open(edge: &Edge, name: &str) -> bool {
    let health = edge.health().await;
    let all = health["upstreams"].as_array().expect("a list");
    let found = all.iter().find(|it| it["name"] == name).expect("its name");
    found["open"] == true
}

#[tokio::test]
async fn a_provider_that_is_down_does_not_touch_the_others() {
    for hits in WAYS {
        let (up, down) = (Upstream::start().await, Down::new());
        let tables = [
            table(&down.url(), "model = \"gpt-*\""),
            table(&up.url(), ""),
        ];
        let edge = edge_of(&up, &tables.concat(), &format!("hits = \"{hits}\"")).await;
        for number in 0..8 {
            let gone = of_model("gpt-5", &number.to_string());
            // Without a breaker, each request is sent.
            assert_eq!(edge.client.fetch(gone).await.status, 502, "{hits}");
            fetch(&edge, &of_model("m", &number.to_string()), "MISS").await;
        }
        assert_eq!(up.call_count(), 8);
    }
}

#[tokio::test]
async fn a_breaker_opens_after_failures_and_one_request_at_a_time_tries_again() {
    for hits in WAYS {
        let (silent, other) = (
            Upstream::start_with(Behaviour::Silent).await,
            Upstream::start().await,
        );
        let lines =
            "name = \"slow\"\nmodel = \"gpt-*\"\nbreaker_failures = 2\nresponse_max = \"50ms\"";
        let tables = [
            table(&silent.url(), lines),
            table(&other.url(), "name = \"other\""),
        ];
        let edge = edge_of(&other, &tables.concat(), &format!("hits = \"{hits}\"")).await;
        for prompt in ["a", "b"] {
            assert!(!is_open(&edge, "slow").await);
            assert_eq!(
                edge.client.fetch(of_model("gpt-5", prompt)).await.status,
                504,
                "{hits}"
            );
        }
        assert!(is_open(&edge, "slow").await && !is_open(&edge, "other").await);
        let refused = edge.client.fetch(of_model("gpt-5", "c")).await;
        // A trial may have come in between on a slow machine.
        assert!(
            [503, 504].contains(&refused.status.as_u16()),
            "{}",
            refused.status
        );
        let refused = until(&edge, &of_model("gpt-5", "c"), 503).await;
        let body = String::from_utf8_lossy(&refused.body);
        assert!(body.contains("has not answered lately"), "{body}");
        fetch(&edge, &of_model("m", "a"), "MISS").await;
        silent.behave(Behaviour::Answer);
        until(&edge, &of_model("gpt-5", "c"), 200).await;
        assert!(!is_open(&edge, "slow").await);
        let labels = [("upstream", "slow"), ("outcome", "refused")];
        assert!(
            edge.metrics()
                .await
                .sum("reflex_upstream_requests_total", &labels)
                > 0.5
        );
    }
}

/// What the provider answers is an answer, whatever it says.
#[tokio::test]
async fn an_error_of_the_provider_opens_no_breaker() {
    let failing = Upstream::start_with(Behaviour::Status(503)).await;
    let lines = "name = \"a\"\nbreaker_failures = 1";
    let edge = edge_of(&failing, &table(&failing.url(), lines), "").await;
    for prompt in ["a", "b", "c"] {
        assert_eq!(edge.client.fetch(of_model("m", prompt)).await.status, 503);
    }
    assert_eq!(failing.call_count(), 3);
    assert!(!is_open(&edge, "a").await);
}

#[tokio::test]
async fn an_open_breaker_is_answered_by_a_stale_entry_where_that_is_allowed() {
    let provider = Upstream::start().await;
    let lines = "name = \"a\"\nbreaker_failures = 1\nresponse_max = \"500ms\"";
    let config = "stale_if_error_max = \"1h\"";
    let edge = edge_of(&provider, &table(&provider.url(), lines), config).await;
    let ask = of_model("m", "whatever happens");
    let fresh = fetch(&edge, &ask.clone().header("x-reflex-ttl", "1"), "MISS").await;
    edge.recorded(1, 0).await;
    provider.behave(Behaviour::Silent);
    let began = Instant::now();
    while !is_open(&edge, "a").await {
        assert!(began.elapsed() < PATIENCE, "it does not expire");
        edge.client.fetch(of_model("m", "fails")).await;
    }
    let began = Instant::now();
    let stale = loop {
        let answer = edge.client.fetch(ask.clone()).await;
        if answer.reflex() == "HIT_STALE" {
            break answer;
        }
        assert!(began.elapsed() < PATIENCE, "it does not expire");
        tokio::task::yield_now().await;
    };
    assert_eq!((stale.status.as_u16(), stale.body), (200, fresh.body));
}

/// A table that stands in for the one of that name.
fn stand_in(url: &str) -> String {
    table(url, "interchangeable_with = \"first\"\nname = \"second\"")
}

#[tokio::test]
async fn only_an_interchangeable_provider_takes_over_and_the_answer_has_the_key_of_the_first() {
    for hits in WAYS {
        let (up, other) = (Upstream::start().await, Upstream::start().await);
        let down = Down::new();
        let first = table(
            &down.url(),
            "name = \"first\"\npath_prefix = \"/p\"\nstrip_prefix = true",
        );
        let rest = table(&other.url(), "");
        let config = format!("hits = \"{hits}\"");
        let edge = edge_of(&up, &[first.clone(), rest.clone()].concat(), &config).await;
        let ask = Ask::to("/p/v1/messages", &message("m"));
        assert_eq!(edge.client.fetch(ask.clone()).await.status, 502);
        assert_eq!((up.call_count(), other.call_count()), (0, 0));

        let edge = edge_of(&up, &[first, stand_in(&up.url()), rest].concat(), &config).await;
        let answer = fetch(&edge, &ask, "MISS").await;
        assert_eq!(
            (up.call_count(), up.calls()[0].path.as_str()),
            (1, "/v1/messages")
        );
        assert_eq!(up.calls()[0].header("host"), up.address().to_string());
        edge.recorded(1, 0).await;
        assert_eq!(fetch(&edge, &ask, "HIT_L1_EXACT").await.body, answer.body);
        // What passes by was not sent, and may go there as well.
        fetch(&edge, &Ask::get("/p/v1/models"), "BYPASS").await;
        assert_eq!((up.call_count(), other.call_count()), (2, 0));
    }
}

#[tokio::test]
async fn nothing_takes_over_once_an_answer_has_begun() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let tables = [
        table(&first.url(), "name = \"first\""),
        stand_in(&second.url()),
    ];
    let edge = edge_of(&first, &tables.concat(), "").await;
    first.behave(Behaviour::Status(500));
    assert_eq!(edge.client.fetch(of_model("m", "a")).await.status, 500);
    first.behave(Behaviour::Cut);
    let mut cut = edge.client.send(Ask::stream("b")).await;
    while let Ok(Some(_)) = cut.chunk().await {}
    assert_eq!((first.call_count(), second.call_count()), (2, 0));
}

#[tokio::test]
async fn only_an_llm_request_is_sent_again_that_a_provider_may_have_got() {
    for hits in WAYS {
        let (first, second) = (
            Upstream::start_with(Behaviour::Silent).await,
            Upstream::start().await,
        );
        let lines = "name = \"first\"\nresponse_max = \"500ms\"";
        let tables = [table(&first.url(), lines), stand_in(&second.url())];
        let edge = edge_of(&first, &tables.concat(), &format!("hits = \"{hits}\"")).await;
        fetch(&edge, &of_model("m", "a"), "MISS").await;
        assert_eq!((first.call_count(), second.call_count()), (1, 1), "{hits}");
        assert_eq!(first.calls()[0].body, second.calls()[0].body);
        // It is no question to the cache: it may change something.
        let bypass = of_model("m", "b").key(None);
        assert_eq!(edge.client.fetch(bypass).await.status, 504);
        assert_eq!((first.call_count(), second.call_count()), (2, 1), "{hits}");
    }
}

/// After some failures, the first is not waited for.
#[tokio::test]
async fn a_first_provider_that_is_down_for_long_is_gone_around_and_found_again() {
    let second = Upstream::start().await;
    let first = Upstream::start_with(Behaviour::Silent).await;
    let lines = "name = \"first\"\nresponse_max = \"50ms\"";
    let tables = [table(&first.url(), lines), stand_in(&second.url())];
    let edge = edge_of(&first, &tables.concat(), "").await;
    let mut number = 0;
    while !is_open(&edge, "first").await {
        number += 1;
        fetch(&edge, &of_model("m", &number.to_string()), "MISS").await;
    }
    assert_eq!(second.call_count(), 5);
    first.behave(Behaviour::Answer);
    let began = Instant::now();
    while is_open(&edge, "first").await {
        assert!(began.elapsed() < PATIENCE, "it is not tried again");
        number += 1;
        fetch(&edge, &of_model("m", &number.to_string()), "MISS").await;
    }
    // Both are down: the request goes on as if nothing were known of them.
    let [one, other] = [Down::new(), Down::new()];
    let tables = [
        table(&one.url(), "name = \"first\""),
        stand_in(&other.url()),
    ];
    let edge = edge_of(&second, &tables.concat(), "").await;
    for number in 0..12 {
        let answer = edge.client.fetch(of_model("m", &number.to_string())).await;
        assert_eq!(answer.status, 502, "never 503");
    }
}
