//! Changes and contents need the token; nothing on the admin address is for pages of other sites.

use super::*;
use reflex_tests::raw_client::RawClient;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

/// Each changing or revealing call of the API.
fn guarded() -> Vec<Ask> {
    let post = |path: &str| Ask::new(Method::POST, path, "{\"all\":true}");
    let payload = format!("/v1/entries/{}?payload=true", "0".repeat(64));
    vec![
        post("/v1/purge"),
        post("/v1/import"),
        post("/v1/reload"),
        Ask::get("/v1/export"),
        Ask::get(&payload),
        Ask::new(Method::DELETE, "/v1/entries", ""),
        Ask::new(Method::PUT, "/anything", ""),
    ]
}

#[tokio::test]
async fn changes_and_contents_need_the_token() {
    let upstream = Upstream::start().await;
    let edge = filled(&upstream, &["secret"]).await;
    let token = edge.token();
    assert_eq!(token.len(), 64);
    let file = fs::metadata(edge.data_dir().join("admin-token")).expect("a file");
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    for ask in guarded() {
        for wrong in [None, Some(""), Some("wrong"), Some(&token[..63])] {
            let answer = admin(&edge).fetch(ask.clone().key(wrong)).await;
            check_refused(&answer, 401, "token");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    assert!(is_hit(&edge, "secret", "one").await);
    assert_eq!(audit(&edge), Vec::<String>::new());
    // Reads are open on loopback.
    for path in [
        "/health",
        "/ready",
        "/metrics",
        "/v1/openapi.json",
        "/v1/stats",
        "/v1/top",
    ] {
        let answer = admin(&edge).fetch(Ask::get(path)).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    // A restart keeps the token, and another file is another token.
    let edge = edge.restart().await;
    edge.ready().await;
    assert_eq!(edge.token(), token);
    let own = "operator-".repeat(8);
    fs::write(edge.data_dir().join("admin-token"), &own).expect("written");
    let purge =
        |token: &str| Ask::new(Method::POST, "/v1/purge", "{\"all\":true}").key(Some(token));
    check_refused(&admin(&edge).fetch(purge(&token)).await, 401, "token");
    assert_eq!(admin(&edge).fetch(purge(&own)).await.status, 200);
    assert!(!edge.log().contains(&token) && !edge.log().contains(&own));
}

#[tokio::test]
async fn where_others_can_connect_reads_need_the_token_and_probes_do_not() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream.url()).admin("0.0.0.0:0");
    let edge = plan.start().await;
    let client = Client::new(&edge.admin_url.replace("0.0.0.0", "127.0.0.1"));
    for path in ["/health", "/ready"] {
        assert_eq!(client.fetch(Ask::get(path)).await.status, 200);
    }
    for path in ["/metrics", "/v1/stats", "/v1/top", "/v1/openapi.json", "/"] {
        check_refused(&client.fetch(Ask::get(path)).await, 401, "token");
    }
    let ask = Ask::get("/v1/stats").key(Some(&edge.token()));
    assert_eq!(client.fetch(ask).await.status, 200);
}

/// DNS rebinding: a page's own name resolves to 127.0.0.1, and the browser lets the page read the answer.
#[tokio::test]
async fn a_page_of_another_site_gets_nothing() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let own = edge.admin_url.clone();
    let check = async |headers: &[(&str, &str)], refused: Option<&str>| {
        let mut ask = Ask::get("/v1/stats");
        for (name, value) in headers {
            ask = ask.header(name, value);
        }
        let answer = admin(&edge).fetch(ask).await;
        match refused {
            Some(reason) => check_refused(&answer, 403, reason),
            None => assert_eq!(answer.status, 200, "{headers:?}"),
        }
    };
    check(&[("host", "evil.test")], Some("host")).await;
    check(&[("host", "localhost")], None).await;
    check(&[("origin", "http://evil.test")], Some("origin")).await;
    check(&[("origin", "null")], Some("origin")).await;
    check(&[("origin", &own)], None).await;
    check(&[("sec-fetch-site", "cross-site")], Some("origin")).await;
    check(&[("sec-fetch-site", "same-origin")], None).await;
    // A probe of Envoy has the cluster's name as its host.
    let probe = Ask::get("/health").header("host", "reflex_admin");
    assert_eq!(admin(&edge).fetch(probe).await.status, 200);
    // Not even with the token, which a page could have been given.
    let ask = post(&edge, "/v1/purge", "{\"all\":true}").header("origin", "http://evil.test");
    check_refused(&admin(&edge).fetch(ask).await, 403, "origin");
}

#[tokio::test]
async fn a_token_file_that_others_can_read_is_of_no_use() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let file = edge.data_dir().join("admin-token");
    let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode));
    mode(0o644).expect("ours");
    let ask = || post(&edge, "/v1/purge", "{\"all\":true}");
    check_refused(&admin(&edge).fetch(ask()).await, 503, "token-file");
    // It answers clients all the same, also after a restart.
    let edge = edge.restart().await;
    edge.ready().await;
    assert_eq!(edge.client.fetch(Ask::chat("hi")).await.reflex(), "MISS");
    assert!(edge.log().contains("chmod 600"), "{}", edge.log());
    mode(0o600).expect("ours");
    let ask = post(&edge, "/v1/purge", "{\"all\":true}");
    assert_eq!(admin(&edge).fetch(ask).await.status, 200);
}

#[tokio::test]
async fn a_long_body_is_refused_before_it_is_read() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let token = edge.token();
    let send = async |head: &str, part: &[u8]| {
        let mut client = RawClient::connect(&edge.admin_url).await;
        client.send(head.as_bytes()).await;
        // It may have hung up.
        let _ = client.try_send(part).await;
        let (head, _) = client.answer().await;
        let status = head.split(' ').nth(1).map(str::parse::<u16>);
        status.expect("a status").expect("a number")
    };
    let routes = [
        ("GET", "/health"),
        ("GET", "/ready"),
        ("GET", "/metrics"),
        ("GET", "/v1/stats"),
        ("GET", "/v1/export"),
        ("POST", "/v1/purge"),
        ("POST", "/v1/reload"),
        ("POST", "/v1/nothing"),
        // Its first line is not that of an export.
        ("POST", "/v1/import"),
    ];
    for (method, path) in routes {
        for token in [Some(&token), None] {
            let bearer = token.map(|token| format!("authorization: Bearer {token}\r\n"));
            let head = format!(
                "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1073741824\r\n{}\r\n",
                bearer.unwrap_or_default()
            );
            let status = send(&head, &[b'x'; 64 << 10]).await;
            assert!(
                [400, 401, 413].contains(&status),
                "{method} {path}: {status}"
            );
        }
    }
    assert!(edge.memory() < 200 << 20);
    // Without its length, too.
    let head = format!(
        "POST /v1/purge HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    let chunk = [b"100000\r\n".as_slice(), &[b' '; 1 << 20], b"\r\n"].concat();
    assert_eq!(send(&head, &chunk).await, 413);
}
