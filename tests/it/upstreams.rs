//! Several providers behind one daemon: which one gets a request, and that nothing of one of them is taken for
//! another's. Natively, and with the component in the way.

mod failing;
mod hostile;

use crate::websocket::{echo, open_at};
use reflex_tests::behaviour::Behaviour;
use reflex_tests::client::{Answer, Ask};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::raw::{Raw, ok, read_request};
use reflex_tests::upstream::Upstream;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

/// Who answers hits, and so whether requests go through the component.
const WAYS: [&str; 2] = ["native", "component"];

/// An `[[upstream]]` at this URL, with these lines.
fn table(url: &str, lines: &str) -> String {
    format!("[[upstream]]\nurl = \"{url}\"\n{lines}\n")
}

/// A daemon with these tables; `first` is any provider.
async fn edge_of(first: &Upstream, tables: &str, config: &str) -> Edge {
    let plan = Plan::new(&first.url()).config(config);
    plan.providers_in_file(tables).start().await
}

fn of_model(model: &str, prompt: &str) -> Ask {
    let messages = json!([{"role": "user", "content": prompt}]);
    let path = "/v1/chat/completions";
    Ask::to(path, &json!({"messages": messages, "model": model}))
}

/// Two providers that never say the same.
async fn two_that_differ() -> (Upstream, Upstream) {
    let longer = Behaviour::Large(100);
    (Upstream::start().await, Upstream::start_with(longer).await)
}

/// A request of the Messages API.
fn message(model: &str) -> Value {
    let messages = json!([{"role": "user", "content": "a"}]);
    json!({"model": model, "max_tokens": 9, "messages": messages})
}

/// Asks, and expects an answer of this status of the cache.
async fn fetch(edge: &Edge, ask: &Ask, expected: &str) -> Answer {
    let answer = edge.client.fetch(ask.clone()).await;
    let told = (answer.status.as_u16(), answer.reflex());
    let body = String::from_utf8_lossy(&answer.body);
    assert_eq!(told, (200, expected), "{body}\n{}", edge.log());
    answer
}

#[tokio::test]
async fn path_model_and_host_choose_the_provider_and_the_first_that_matches_gets_the_request() {
    for hits in WAYS {
        let (path, model) = (Upstream::start().await, Upstream::start().await);
        let (host, rest) = (Upstream::start().await, Upstream::start().await);
        let tables = [
            table(&path.url(), "path_prefix = \"/mine\"\nstrip_prefix = true"),
            table(&model.url(), "model = [\"llama-*\", \"qwen\"]"),
            table(&host.url(), "host = \"*.internal\""),
            table(&rest.url(), ""),
        ];
        let config = format!("hits = \"{hits}\"");
        let edge = edge_of(&rest, &tables.concat(), &config).await;
        let in_path = Ask::to("/mine/v1/messages", &message("llama-3"));
        let asks = [
            (&path, in_path),
            (
                &model,
                of_model("LLAMA-3", "a").header("host", "a.internal"),
            ),
            (&model, of_model("qwen", "a")),
            (
                &host,
                of_model("gpt-5", "a").header("host", "A.Internal:80"),
            ),
            (&rest, of_model("gpt-5", "a")),
        ];
        let mut counts = [0; 4];
        for (number, (to, ask)) in (1..).zip(&asks) {
            fetch(&edge, ask, "MISS").await;
            edge.recorded(number, 0).await;
            fetch(&edge, ask, "HIT_L1_EXACT").await;
            let place = [&path, &model, &host, &rest].map(|it| it.address() == to.address());
            counts
                .iter_mut()
                .zip(place)
                .for_each(|(count, is_it)| *count += usize::from(is_it));
            let calls = [&path, &model, &host, &rest].map(Upstream::call_count);
            assert_eq!(calls, counts, "{hits} {number}");
        }
        assert_eq!(path.calls()[0].path, "/v1/messages", "without the prefix");
        // Streams of another API, and requests that pass by, go the same way.
        let bypass = of_model("llama-3", "b").header("cache-control", "no-store");
        fetch(&edge, &bypass, "BYPASS").await;
        fetch(&edge, &of_model("llama-3", "b").key(None), "BYPASS").await;
        assert_eq!(model.call_count(), 4);
        let metrics = edge.metrics().await;
        let name = model.address().to_string();
        let labels = [("upstream", name.as_str()), ("outcome", "answered")];
        let answered = metrics.sum("reflex_upstream_requests_total", &labels);
        assert!((answered - 4.0).abs() < 0.5, "{metrics:#?}");
        let health = edge.health().await;
        assert_eq!(
            health["upstreams"].as_array().map(Vec::len),
            Some(4),
            "{health}"
        );
    }
}

/// The same bytes, to two providers: each keeps its own answer.
#[tokio::test]
async fn another_provider_is_another_key() {
    for hits in WAYS {
        let (a, b) = two_that_differ().await;
        let tables = [table(&a.url(), "host = \"a.test\""), table(&b.url(), "")];
        let edge = edge_of(&a, &tables.concat(), &format!("hits = \"{hits}\"")).await;
        let [ask_a, ask_b] =
            ["a.test", "b.test"].map(|host| Ask::chat("same").header("host", host));
        let of_a = fetch(&edge, &ask_a, "MISS").await;
        let of_b = fetch(&edge, &ask_b, "MISS").await;
        assert_ne!(of_a.body, of_b.body);
        edge.recorded(2, 0).await;
        for _ in 0..2 {
            assert_eq!(fetch(&edge, &ask_a, "HIT_L1_EXACT").await.body, of_a.body);
            assert_eq!(fetch(&edge, &ask_b, "HIT_L1_EXACT").await.body, of_b.body);
        }
        assert_eq!((a.call_count(), b.call_count()), (1, 1));
    }
}

#[tokio::test]
async fn a_listing_goes_to_the_first_that_matches_its_host_and_path() {
    let (a, b) = (Upstream::start().await, Upstream::start().await);
    let tables = [
        table(&a.url(), "model = \"gpt-*\""),
        table(&b.url(), "model = \"claude-*\""),
    ];
    let edge = edge_of(&a, &tables.concat(), "").await;
    fetch(&edge, &Ask::get("/v1/models"), "BYPASS").await;
    assert_eq!((a.call_count(), b.call_count()), (1, 0));
    // A provider for all models goes before.
    edge.reload(&format!("{}{}", tables[0], table(&b.url(), "")), "applied")
        .await;
    fetch(&edge, &Ask::get("/v1/models"), "BYPASS").await;
    assert_eq!((a.call_count(), b.call_count()), (1, 1));
}

#[tokio::test]
async fn a_request_for_no_provider_gets_an_error_of_its_api() {
    let a = Upstream::start().await;
    let edge = edge_of(&a, &table(&a.url(), "model = \"gpt-*\""), "").await;
    let answer = edge.client.fetch(of_model("claude-4", "a")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-reflex-status")),
        (404, "")
    );
    let message = answer.json()["error"]["message"].to_string();
    assert!(
        message.contains("reflex-edge: no provider is configured"),
        "{message}"
    );
    let ask = Ask::to(
        "/v1/messages",
        &json!({"model": "claude-4", "messages": []}),
    );
    let answer = edge.client.fetch(ask).await;
    assert_eq!(answer.json()["type"], "error", "{:?}", answer.body);
    assert_eq!(a.call_count(), 0);
}

#[tokio::test]
async fn a_websocket_goes_to_the_provider_of_its_path() {
    let (other, heads_of_other) = echo().await;
    let (realtime, heads) = echo().await;
    let tables = [
        table(&realtime.url(), "path_prefix = \"/v1/realtime\""),
        table(&other.url(), "model = \"m\""),
    ];
    let plan = Plan::new(&other.url()).providers_in_file(&tables.concat());
    let edge = plan.start().await;
    let (head, _stream) = open_at(&edge.url, "").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(heads.lock().expect("no panic").len(), 1);
    assert!(heads_of_other.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn a_reload_changes_providers_and_a_mistake_changes_none() {
    let (a, b) = two_that_differ().await;
    let edge = edge_of(&a, &table(&a.url(), "name = \"one\""), "").await;
    let ask = Ask::chat("same");
    let of_a = fetch(&edge, &ask, "MISS").await;
    edge.recorded(1, 0).await;
    edge.reload(&table(&b.url(), "name = \"two\""), "applied")
        .await;
    let of_b = fetch(&edge, &ask, "MISS").await;
    assert_ne!(of_a.body, of_b.body);
    edge.recorded(2, 0).await;
    let metrics = edge.metrics_text().await;
    assert!(
        metrics.contains("upstream=\"two\"") && !metrics.contains("upstream=\"one\""),
        "{metrics}"
    );
    let twice = format!(
        "{}{}",
        table(&a.url(), "name = \"x\""),
        table(&b.url(), "name = \"x\"")
    );
    edge.reload(&twice, "refused").await;
    assert!(
        edge.log().contains("`x` is the name of two"),
        "{}",
        edge.log()
    );
    assert_eq!(fetch(&edge, &ask, "HIT_L1_EXACT").await.body, of_b.body);
    edge.reload(&format!("upstream = \"{}\"", a.url()), "applied")
        .await;
    assert_eq!(fetch(&edge, &ask, "HIT_L1_EXACT").await.body, of_a.body);
    assert_eq!((a.call_count(), b.call_count()), (1, 1));
}

/// Answers everything, on one connection for as long as the client wants.
async fn steady() -> Raw {
    Raw::start(|_, mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            if stream.write_all(ok("fine").as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_provider_that_a_reload_leaves_as_it_is_keeps_its_connections() {
    let (kept, other) = (steady().await, steady().await);
    let tables = |wait: &str| {
        let kept = table(&kept.url(), "path_prefix = \"/kept\"");
        format!(
            "{kept}{}",
            table(&other.url(), &format!("connect_max = \"{wait}\""))
        )
    };
    let plan = Plan::new(&kept.url()).providers_in_file(&tables("5s"));
    let edge = plan.start().await;
    let both = async || {
        fetch(&edge, &Ask::get("/kept/a"), "BYPASS").await;
        fetch(&edge, &Ask::get("/a"), "BYPASS").await;
    };
    both().await;
    both().await;
    assert_eq!((kept.connections(), other.connections()), (1, 1));
    edge.reload(&tables("6s"), "applied").await;
    both().await;
    assert_eq!((kept.connections(), other.connections()), (1, 2));
}
