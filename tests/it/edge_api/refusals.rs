//! Refusals: the status of each, and that all have the same form.

use http::Method;
use reflex_tests::client::Ask;
use reflex_tests::edge::Plan;
use reflex_tests::unix::Unix;

use super::{
    both, check_found, check_miss, check_refused, check_stored, completion, daemon, delete, get,
    hex, path, put, tenant,
};

const SHAPE: &str = "x-reflex-shape";

#[tokio::test]
async fn a_malformed_request_is_told_why() {
    let daemon = daemon().await;
    let good = hex(&[0xab; 32]);
    let entry = |tenant: &str, digest: &str| format!("/v1/entries/{tenant}/{digest}");
    for unix in both(&daemon.socket()).await {
        let check = async |ask: Ask, status: u16, reason: &str| {
            let shown = format!("{ask:?}");
            let answer = unix.fetch(ask).await;
            assert_eq!(answer.status, status, "{shown}: {:?}", answer.body);
            check_refused(&answer, status, reason);
        };
        for wrong in [
            &good[1..],
            &format!("{good}0"),
            &format!("{good}{good}"),
            "0",
            &good.to_uppercase(),
            &good.replace('a', "g"),
            &good.replace('a', "+"),
            &good.replace("ab", "%61b"),
            &format!("{}%20", &good[1..]),
            &good.replace("ab", "%ff"),
            "%ff",
        ] {
            for path in [entry(wrong, &good), entry(&good, wrong)] {
                check(get(&path), 400, "key").await;
                check(put(&path, "{}"), 400, "key").await;
                check(delete(&path), 400, "key").await;
                let release = delete(&format!("{path}/fill")).header("x-reflex-fill-id", "a");
                check(release, 400, "key").await;
            }
            check(delete(&format!("/v1/entries/{wrong}")), 400, "key").await;
        }
        for nowhere in [
            "/",
            "/v1",
            "/v2/epoch",
            "/v1/epoch/",
            &path(1).replace("v1", "v2"),
            &path(1).replace("v1", "v11"),
            &path(1).replace("entries", "entry"),
            &format!("{}/", path(1)),
            &format!("{}/fills", path(1)),
            &format!("/{}", path(1)),
        ] {
            check(get(nowhere), 404, "path").await;
            check(put(nowhere, "{}"), 404, "path").await;
        }
        for (name, value, reason) in [
            ("x-reflex-ttl", "0", "ttl"),
            ("x-reflex-ttl", "-1", "number"),
            ("x-reflex-ttl", "1.5", "number"),
            ("x-reflex-ttl", "soon", "number"),
            ("x-reflex-ttl", "", "number"),
            ("x-reflex-ttl", "18446744073709551616", "number"),
            (SHAPE, "novel", "shape"),
            (SHAPE, "", "shape"),
            (SHAPE, "Chat-Completions", "shape"),
            ("x-reflex-fill-id", "", "fill"),
            ("x-reflex-fill-id", &"f".repeat(65), "fill"),
            ("x-reflex-fill-id", "ö", "fill"),
        ] {
            check(put(&path(1), "{}").header(name, value), 400, reason).await;
        }
        for (name, value, reason) in [
            ("x-reflex-wait", "-1", "number"),
            ("x-reflex-wait", "1s", "number"),
            ("x-reflex-wait", "", "number"),
            ("x-reflex-fill-id", "", "fill"),
            ("x-reflex-fill-id", &"f".repeat(65), "fill"),
        ] {
            check(get(&path(1)).header(name, value), 400, reason).await;
        }
        check(delete(&format!("{}/fill", path(1))), 400, "fill").await;
        let unknown = delete(&format!("{}/fill", path(1))).header("x-reflex-fill-id", "unknown");
        check(unknown, 404, "fill").await;
        // None of it was stored.
        check_miss(&unix.fetch(get(&path(1))).await);
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let daemon = daemon().await;
    for unix in both(&daemon.socket()).await {
        for (path, allowed) in [
            ("/v1/epoch".to_owned(), "GET"),
            ("/v1/entries".to_owned(), "DELETE"),
            (tenant(1), "DELETE"),
            (path(1), "GET, PUT, DELETE"),
            (format!("{}/fill", path(1)), "DELETE"),
        ] {
            for method in ["GET", "PUT", "DELETE", "POST", "PATCH", "OPTIONS", "PURGE"] {
                if allowed.split(", ").any(|allowed| allowed == method) {
                    continue;
                }
                let method = Method::from_bytes(method.as_bytes()).expect("a method");
                let answer = unix.fetch(Ask::new(method, &path, "")).await;
                check_refused(&answer, 405, "method");
                assert_eq!(answer.header("allow"), allowed, "{path}");
            }
        }
    }
}

/// A header that could not be read was treated as if it were not there: an answer was stored
/// without having been judged, or in spite of a purge.
#[tokio::test]
async fn a_header_that_cannot_be_read_is_not_a_missing_one() {
    let daemon = daemon().await;
    for unix in both(&daemon.socket()).await {
        let check = async |name: &str, reason: &str| {
            let ask = put(&path(1), "{}").header(name, "chat-completions\u{f6}");
            check_refused(&unix.fetch(ask).await, 400, reason);
            check_miss(&unix.fetch(get(&path(1))).await);
        };
        check(SHAPE, "shape").await;
        check("x-reflex-epoch", "epoch").await;
    }
}

/// Two values of one header: the second was not seen.
#[tokio::test]
async fn a_header_that_is_there_twice_is_refused() {
    let daemon = daemon().await;
    for unix in both(&daemon.socket()).await {
        for (name, value, reason) in [
            (SHAPE, "chat-completions", "shape"),
            ("x-reflex-epoch", "0.0", "epoch"),
            ("x-reflex-ttl", "1", "number"),
            ("x-reflex-fill-id", "a", "fill"),
        ] {
            let ask = put(&path(1), "{}").header(name, value).header(name, value);
            check_refused(&unix.fetch(ask).await, 400, reason);
        }
    }
}

#[tokio::test]
async fn a_body_of_the_greatest_length_is_kept_and_a_longer_one_is_not() {
    const MOST: usize = 1_000_000;
    let config = format!("entry_bytes_max = {MOST}");
    let daemon = Plan::daemon().config(&config).start().await;
    for unix in both(&daemon.socket()).await {
        let path = path(1);
        check_stored(&unix.fetch(put(&path, vec![b'a'; MOST])).await);
        for length in [MOST + 1, 2 * MOST, 20 * MOST] {
            let refused = unix.fetch(put(&path, vec![b'b'; length])).await;
            check_refused(&refused, 413, "too-large");
            let message = refused.json()["message"].to_string();
            assert!(message.contains(&MOST.to_string()), "{message}");

            // Without a content-length, the length is known too late.
            let (feed, sent) = unix.begin(put(&path, ""));
            let parts = vec![b'c'; length];
            for part in parts.chunks(64 << 10) {
                if !feed.send(part.to_vec()).await {
                    break;
                }
            }
            drop(feed);
            let refused = sent.answer().await.expect("an answer");
            check_refused(&refused, 413, "too-large");
        }
        check_found(&unix.fetch(get(&path)).await, &vec![b'a'; MOST]);
    }
}

/// Over HTTP/1.1 the daemon closed the connection with a part of the body unread. Linux then
/// throws away what the other side has not read yet, which was the refusal.
#[tokio::test]
async fn a_client_that_still_sends_gets_to_read_why_it_is_refused() {
    let daemon = Plan::daemon()
        .config("entry_bytes_max = 100000")
        .start()
        .await;
    let unix = Unix::http1(&daemon.socket());
    let post = Ask::new(Method::POST, &path(1), "");
    let gzip = put(&path(1), "").header("content-encoding", "gzip");
    for (ask, status, reason) in [
        (put(&path(1), ""), 413, "too-large"),
        (gzip, 415, "content-encoding"),
        (put("/v2/entries", ""), 404, "path"),
        (post, 405, "method"),
    ] {
        for _ in 0..20 {
            let (feed, sent) = unix.begin(ask.clone());
            for _ in 0..100 {
                assert!(feed.send(vec![b'x'; 64 << 10]).await, "{reason}");
            }
            drop(feed);
            let refused = sent.answer().await.expect("an answer");
            check_refused(&refused, status, reason);
        }
    }
}

/// The message said that an entry has at most 65536 bytes, whatever `entry_bytes_max` was.
#[tokio::test]
async fn headers_that_are_too_long_are_said_to_be_the_trouble() {
    let daemon = daemon().await;
    // HTTP/2 has a bound of its own that is lower.
    let unix = Unix::http1(&daemon.socket());
    let ask = put(&path(1), "{}").header("content-language", &"x".repeat(70_000));
    let refused = unix.fetch(ask).await;
    check_refused(&refused, 413, "headers-too-large");
    check_miss(&unix.fetch(get(&path(1))).await);
}

#[tokio::test]
async fn an_answer_of_a_shape_must_be_one_that_may_be_kept() {
    let daemon = daemon().await;
    let good = completion("hello");
    let mut length = good.clone();
    length.finish_reason = "length";
    let stream = good.frames().concat();
    let cut = good.frames();
    let cut = cut[..cut.len() - 2].concat();
    let error = br#"{"error":{"message":"overloaded"}}"#.to_vec();
    let whole = good.json().to_vec();
    let (json, sse) = ("application/json", "text/event-stream");
    for unix in both(&daemon.socket()).await {
        let ask = |shape: &str, content_type: &str, body: &[u8]| {
            Ask::new(Method::PUT, &path(1), body.to_vec())
                .header(SHAPE, shape)
                .header("content-type", content_type)
        };
        let check = async |shape: &str, content_type: &str, body: &[u8]| {
            let refused = unix.fetch(ask(shape, content_type, body)).await;
            assert_eq!(refused.status, 422, "{shape} {content_type}");
            assert!(refused.json()["reason"].is_string());
            check_miss(&unix.fetch(get(&path(1))).await);
        };
        check("chat-completions+sse", sse, &cut).await;
        check("chat-completions+sse", sse, &stream[..stream.len() - 1]).await;
        check("chat-completions+sse", sse, &length.frames().concat()).await;
        check("chat-completions+sse", sse, &whole).await;
        check("chat-completions+sse", json, &stream).await;
        check("chat-completions", json, &error).await;
        check("chat-completions", json, &length.json()).await;
        check("chat-completions", json, &whole[..whole.len() - 1]).await;
        check("chat-completions", json, b"").await;
        check("chat-completions", sse, &whole).await;
        check("embeddings", json, &whole).await;
        // An answer without a shape is not judged.
        check_stored(&unix.fetch(put(&path(2), error.clone())).await);

        for (shape, content_type, body) in [
            ("chat-completions+sse", sse, &stream),
            ("chat-completions", json, &whole),
        ] {
            check_stored(&unix.fetch(ask(shape, content_type, body)).await);
            check_found(&unix.fetch(get(&path(1))).await, body);
        }
        assert_eq!(unix.fetch(delete(&path(1))).await.status, 204);
    }
}

#[tokio::test]
async fn the_operator_may_allow_answers_that_ran_into_their_limit() {
    let daemon = Plan::daemon().config("allow_length = true").start().await;
    let unix = Unix::http1(&daemon.socket());
    let mut length = completion("hello");
    length.finish_reason = "length";
    let ask = put(&path(1), length.json()).header(SHAPE, "chat-completions");
    check_stored(&unix.fetch(ask).await);
}

/// The body was stored as it came and its `content-encoding` was not: the next client could
/// not read it.
#[tokio::test]
async fn a_compressed_body_is_refused() {
    let daemon = daemon().await;
    for unix in both(&daemon.socket()).await {
        let ask = put(&path(1), vec![0x1f, 0x8b]).header("content-encoding", "gzip");
        check_refused(&unix.fetch(ask).await, 415, "content-encoding");
        check_miss(&unix.fetch(get(&path(1))).await);
        let ask = put(&path(2), "{}").header("content-encoding", "identity");
        check_stored(&unix.fetch(ask).await);
    }
}

/// The daemon counts refused `PUT`s of its edges by the same words as its own answers.
#[tokio::test]
async fn what_is_not_kept_is_counted_by_the_same_words_as_answers_of_the_proxy() {
    let config = "entry_bytes_max = 1000";
    let daemon = Plan::daemon().config(config).start().await;
    let unix = Unix::http1(&daemon.socket());
    let put = |body: &str| put(&path(1), body.to_owned());
    let shaped = put(r#"{"error":{"message":"no"}}"#).header(SHAPE, "chat-completions");
    for (ask, status, reason) in [
        (shaped, 422, "error"),
        (put(&"a".repeat(1001)), 413, "too-large"),
        (put("{}").header("x-reflex-epoch", "0.0"), 409, "purged"),
        (
            put("{}").header("content-encoding", "gzip"),
            415,
            "content-encoding",
        ),
    ] {
        check_refused(&unix.fetch(ask).await, status, reason);
        let metrics = daemon.metrics().await;
        let counted = metrics.sum("reflex_not_kept_total", &[("reason", reason)]);
        assert!((counted - 1.0).abs() < 0.5, "{reason}: {metrics:#?}");
    }
    let bad = put("{}").header(SHAPE, "unknown");
    check_refused(&unix.fetch(bad).await, 400, "shape");
    let metrics = daemon.metrics().await;
    let counted = metrics.sum("reflex_not_kept_total", &[]);
    assert!((counted - 4.0).abs() < 0.5, "{metrics:#?}");
}
