//! No client reaches another provider than the operator means, however it spells its request.

use super::{edge_of, fetch, of_model, table};
use reflex_tests::client::Ask;
use reflex_tests::raw_client::RawClient;
use reflex_tests::upstream::Upstream;

#[tokio::test]
async fn another_spelling_of_a_path_chooses_no_other_provider() {
    let (private, rest) = (Upstream::start().await, Upstream::start().await);
    let tables = [
        table(&private.url(), "path_prefix = \"/private\""),
        table(&rest.url(), ""),
    ];
    let edge = edge_of(&rest, &tables.concat(), "").await;
    for path in [
        "//private/v1/models",
        "/./private/x",
        "/%70rivate/x",
        "/%2570rivate/x",
        "/PRIVATE/x",
    ] {
        let before = private.call_count();
        let answer = edge.client.fetch(Ask::get(path)).await;
        assert_eq!(
            (answer.status.as_u16(), private.call_count()),
            (404, before + 1),
            "{path}"
        );
    }
    for path in [
        "/x/../private/x",
        "/x/%2e%2e/private/x",
        "/private%2Fx",
        "/private;a/x",
        "/private/..;/x",
    ] {
        let answer = edge.client.fetch(Ask::get(path)).await;
        assert_eq!(answer.status, 400, "{path}");
        let body = String::from_utf8_lossy(&answer.body);
        assert!(
            body.contains("can be read in several ways"),
            "{path}: {body}"
        );
    }
    assert_eq!(rest.call_count(), 0);
    // One that is left out must be spelled as it is.
    let strips = table(
        &private.url(),
        "path_prefix = \"/private\"\nstrip_prefix = true",
    );
    edge.reload(&format!("{strips}{}", tables[1]), "applied")
        .await;
    let before = private.call_count();
    let answer = edge.client.fetch(Ask::get("/%70rivate/v1/models")).await;
    assert_eq!(
        (answer.status.as_u16(), private.call_count()),
        (400, before)
    );
    fetch(&edge, &Ask::get("/private/v1/models"), "BYPASS").await;
}

/// What is no model for certain counts as none: the first provider tells the client.
#[tokio::test]
async fn a_model_that_is_twice_there_or_no_text_or_huge_is_none() {
    let (first, other) = (Upstream::start().await, Upstream::start().await);
    let tables = [
        table(&first.url(), "model = \"gpt-*\""),
        table(&other.url(), "model = \"claude-*\""),
    ];
    let edge = edge_of(&first, &tables.concat(), "").await;
    let long = "claude-".repeat(100);
    let bodies = [
        r#"{"model":"claude-4","model":"claude-4","messages":[]}"#.to_owned(),
        r#"{"model":"gpt-5","mod\u0065l":"claude-4","messages":[]}"#.to_owned(),
        r#"{"model":["claude-4"],"messages":[]}"#.to_owned(),
        r#"{"model":null}"#.to_owned(),
        format!(r#"{{"model":"{long}"}}"#),
        r#"{"model":"claude-4""#.to_owned(),
        "claude-4".to_owned(),
        String::new(),
    ];
    for (number, body) in (1..).zip(bodies) {
        edge.client.fetch(Ask::body(body.clone())).await;
        assert_eq!(
            (first.call_count(), other.call_count()),
            (number, 0),
            "{body}"
        );
    }
    let escaped = r#"{"mod\u0065l":"cl\u0061ude-4","messages":[{"role":"user","content":"a"}]}"#;
    fetch(&edge, &Ask::body(escaped), "MISS").await;
    assert_eq!(other.call_count(), 1);
    // A compressed body is not read, and its model may be another provider's.
    let packed = of_model("claude-4", "a").header("content-encoding", "gzip");
    assert_eq!(edge.client.fetch(packed).await.status, 415);
    assert_eq!((first.call_count(), other.call_count()), (8, 1));
}

/// Over `request_size_max`, a request is not cached, and goes where its model says all the same.
#[tokio::test]
async fn a_long_request_goes_where_its_model_says() {
    let (first, other) = (Upstream::start().await, Upstream::start().await);
    let tables = [
        table(&first.url(), "model = \"gpt-*\""),
        table(&other.url(), "model = \"claude-*\""),
    ];
    let edge = edge_of(&first, &tables.concat(), "request_size_max = \"1KiB\"").await;
    let ask = of_model("claude-4", &"long".repeat(1 << 20));
    fetch(&edge, &ask, "BYPASS").await;
    fetch(&edge, &ask.clone().chunked(1 << 16), "BYPASS").await;
    assert_eq!((first.call_count(), other.call_count()), (0, 2));
    assert_eq!(other.calls()[1].body, *ask.sent());
    // And where there is no memory for it, to no other provider.
    let edge = edge_of(&first, &tables.concat(), "inflight_max = \"1KiB\"").await;
    let answer = edge.client.fetch(ask).await;
    assert_eq!(answer.status, 503);
    assert_eq!((first.call_count(), other.call_count()), (0, 2));
}

#[tokio::test]
async fn a_host_that_is_missing_or_wrong_or_twice_there_chooses_no_provider() {
    let (named, rest) = (Upstream::start().await, Upstream::start().await);
    let tables = [
        table(&named.url(), "host = \"a.test\""),
        table(&rest.url(), ""),
    ];
    let edge = edge_of(&rest, &tables.concat(), "").await;
    let check = async |head: &str, expected: &str, calls: (usize, usize)| {
        let request = format!("GET /v1/models HTTP/{head}Connection: close\r\n\r\n");
        let mut client = RawClient::connect(&edge.url).await;
        client.send(request.as_bytes()).await;
        let answer = client.rest_text().await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{head}: {answer}"
        );
        assert_eq!((named.call_count(), rest.call_count()), calls, "{head}");
    };
    check("1.1\r\nHost: A.TEST:80\r\n", "200", (1, 0)).await;
    check("1.1\r\nHost: a.test.evil\r\n", "200", (1, 1)).await;
    check("1.1\r\nHost: user@a.test\r\n", "200", (1, 2)).await;
    check("1.1\r\nHost: a.test\r\nHost: b.test\r\n", "400", (1, 2)).await;
}
