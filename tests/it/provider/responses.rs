//! Responses that are odd but whole reach the client, and invalid ones become a clear error.

use reflex_tests::client::{Answer, Ask, CHAT};
use reflex_tests::edge::Plan;
use reflex_tests::raw::{Raw, header, read_head, read_request};
use reflex_tests::within;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A provider that sends these bytes to each request and closes the connection.
async fn sends(response: impl Into<Vec<u8>>) -> Raw {
    let response = response.into();
    Raw::start(move |_, mut stream| {
        let response = response.clone();
        async move {
            read_request(&mut stream).await;
            // The reader may have seen enough.
            let _ = stream.write_all(&response).await;
        }
    })
    .await
}

/// The answer to a request when the provider sends this.
async fn answer_to(ask: Ask, response: impl Into<Vec<u8>>) -> Answer {
    let provider = sends(response).await;
    let edge = Plan::new(&provider.url()).start().await;
    edge.client.fetch(ask).await
}

/// Expects this body, whether a component reads the answer or not.
async fn check(response: &str, body: &str) -> Answer {
    let provider = sends(response).await;
    let edge = Plan::new(&provider.url()).start().await;
    let chat = edge.client.fetch(Ask::chat("odd")).await;
    let other = edge.client.fetch(Ask::get("/v1/models")).await;
    for answer in [&chat, &other] {
        assert_eq!(answer.status, 200, "{response}");
        assert_eq!(answer.body, body.as_bytes(), "{response}");
    }
    other
}

const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";

#[tokio::test]
async fn a_length_beside_chunks_is_not_believed() {
    for length in ["0", "5", "500"] {
        for (first, second) in [
            (
                format!("content-length: {length}"),
                "transfer-encoding: chunked".to_owned(),
            ),
            (
                "transfer-encoding: chunked".to_owned(),
                format!("content-length: {length}"),
            ),
        ] {
            let response = format!("HTTP/1.1 200 OK\r\n{first}\r\n{second}\r\n\r\n{CHUNKS}");
            check(&response, "hello").await;
        }
    }
}

/// The clients of these tests accept a hundred headers, as most do; this client accepts any.
#[tokio::test]
async fn many_and_long_headers_arrive() {
    let many: String = (0..500)
        .map(|number| format!("x-many-{number}: {number}\r\n"))
        .collect();
    let long = format!("x-long: {}\r\n", "x".repeat(100_000));
    for (headers, name, length) in [(many, "x-many-499", 3), (long, "x-long", 100_000)] {
        let response = format!("HTTP/1.1 200 OK\r\n{headers}content-length: 2\r\n\r\nok");
        let provider = sends(response).await;
        let edge = Plan::new(&provider.url()).start().await;
        for path in [CHAT, "/v1/models"] {
            let address = edge.url.trim_start_matches("http://");
            let mut stream = TcpStream::connect(address).await.expect("an edge");
            let ask = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{{}}");
            stream.write_all(ask.as_bytes()).await.expect("a reader");
            let head = within("a head", read_head(&mut stream)).await;
            let head = head.expect("a head");
            assert!(head.starts_with("HTTP/1.1 200 "), "{path}");
            assert_eq!(header(&head, name).map(str::len), Some(length), "{path}");
        }
    }
}

#[tokio::test]
async fn odd_but_whole_responses_arrive() {
    // Interim responses are not the response.
    check(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "ok",
    )
    .await;
    check("HTTP/1.0 200 OK\r\n\r\nuntil the end", "until the end").await;
    check("HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end").await;
    check("HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", "ok").await;
    let folded = "HTTP/1.1 200 OK\r\nx-folded: a\r\n b\r\ncontent-length: 2\r\n\r\nok";
    assert_eq!(check(folded, "ok").await.header("x-folded"), "a b");
    let spaced = "HTTP/1.1 200 OK\r\nx-spaced : a\r\ncontent-length: 2\r\n\r\nok";
    assert_eq!(check(spaced, "ok").await.header("x-spaced"), "a");
    let invalid = "HTTP/1.1 200 OK\r\nx invalid: a\r\nx-valid: a\r\ncontent-length: 2\r\n\r\nok";
    assert_eq!(check(invalid, "ok").await.header("x-valid"), "a");
}

#[tokio::test]
async fn an_answer_to_head_keeps_its_length() {
    let head = Ask::new(http::Method::HEAD, "/v1/files/1", "");
    let response = "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n";
    let answer = answer_to(head, response).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-length")),
        (200, "500")
    );
    assert!(answer.body.is_empty());
    for status in ["204 No Content", "304 Not Modified"] {
        let response = format!("HTTP/1.1 {status}\r\netag: \"1\"\r\n\r\n");
        let answer = answer_to(Ask::get("/v1/files/1"), response).await;
        assert!(status.starts_with(answer.status.as_str()));
        assert_eq!(answer.header("etag"), "\"1\"");
    }
}

#[tokio::test]
async fn what_is_no_response_is_a_clear_error() {
    for (response, words) in [
        ("", "it closed the connection"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n",
            "it closed the connection",
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "its response is not HTTP"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
            "its response is not HTTP",
        ),
    ] {
        for ask in [Ask::chat("no response"), Ask::get("/v1/models")] {
            let answer = answer_to(ask, response).await;
            let message = String::from_utf8_lossy(&answer.body);
            assert_eq!(answer.status, 502, "{response}: {message}");
            assert!(message.contains(words), "{response}: {message}");
        }
    }
}

/// A provider that refuses an upload says so before it has read it, and does not read on.
#[tokio::test]
async fn an_answer_before_the_end_of_the_request_arrives() {
    for then_reads in [true, false] {
        let provider = Raw::start(move |_, mut stream| async move {
            read_head(&mut stream).await;
            let answer = b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 4\r\n\r\nmuch";
            let answered = stream.write_all(answer).await;
            answered.expect("a reader");
            let mut read = vec![0; 1 << 16];
            while then_reads && stream.read(&mut read).await.is_ok_and(|bytes| bytes > 0) {}
            // Unread bytes make the system reset the connection.
            let mut some = [0; 1000];
            let _ = stream.read(&mut some).await;
        })
        .await;
        let edge = Plan::new(&provider.url()).start().await;
        let upload = Ask::new(http::Method::POST, "/v1/files", vec![b'x'; 8 << 20]);
        let answer = edge.client.fetch(upload).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.body),
            (413, &b"much"[..]),
            "{then_reads}"
        );
    }
}
