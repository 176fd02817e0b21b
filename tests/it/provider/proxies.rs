//! Proxies that the environment names are used.

use reflex_tests::client::{Ask, CHAT};
use reflex_tests::edge::{self, Edge, Plan};
use reflex_tests::forward::Forward;
use reflex_tests::raw::{Raw, header};
use reflex_tests::tls::{self, CA};
use reflex_tests::upstream::Upstream;
use std::net::SocketAddr;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

async fn asks(edge: &Edge, upstream: &Upstream) {
    let before = upstream.call_count();
    for (ask, status) in [
        (Ask::chat("far away"), "MISS"),
        (Ask::chat("far away"), "HIT_L1_EXACT"),
        (Ask::get("/v1/models"), "BYPASS"),
    ] {
        let answer = edge.client.fetch(ask).await;
        assert_eq!(
            answer.status,
            200,
            "{}",
            String::from_utf8_lossy(&answer.body)
        );
        assert_eq!(answer.reflex(), status);
    }
    let calls = &upstream.calls()[before..];
    assert_eq!(calls.len(), 2);
    assert!(calls[0].path.ends_with(CHAT), "{}", calls[0].path);
    assert_eq!(calls[0].header("proxy-authorization"), "");
}

/// The name of the provider exists for the proxy alone.
#[tokio::test]
async fn a_provider_with_tls_is_reached_through_connect() {
    let upstream = Upstream::start().await;
    for protocols in [&["h2"][..], &["http/1.1"]] {
        let front = tls::in_front_of(upstream.address(), protocols).await;
        let proxy = Forward::http(front.address()).await;
        let edge = Plan::new("https://provider.test")
            .environment("SSL_CERT_FILE", CA)
            .environment(
                "HTTPS_PROXY",
                &format!("http://user:secret@{}", proxy.address()),
            )
            .start()
            .await;
        asks(&edge, &upstream).await;
        for head in proxy.asked() {
            assert!(
                head.starts_with("CONNECT provider.test:443 HTTP/1.1\r\n"),
                "{head}"
            );
            let credentials = header(&head, "proxy-authorization");
            assert_eq!(credentials, Some("Basic dXNlcjpzZWNyZXQ="));
        }
        assert_eq!(proxy.asked().len(), 1);
        let log = edge.log();
        assert!(
            log.contains(&format!("{}/ of HTTPS_PROXY", proxy.address())),
            "{log}"
        );
        assert!(
            !log.contains("secret") && !log.contains("dXNlcjpzZWNyZXQ"),
            "{log}"
        );
    }
}

#[tokio::test]
async fn a_provider_without_tls_is_asked_for_through_the_proxy() {
    let upstream = Upstream::start().await;
    let proxy = Forward::http(upstream.address()).await;
    let edge = Plan::new("http://provider.test:8000/base")
        .environment("http_proxy", &proxy.address().to_string())
        .start()
        .await;
    let answer = edge.client.fetch(Ask::get("/v1/files")).await;
    // The provider knows no files, and says so.
    assert_eq!(answer.status, 404);
    let asked = proxy.asked();
    let line = "GET http://provider.test:8000/base/v1/files HTTP/1.1\r\n";
    assert!(asked[0].starts_with(line), "{asked:?}");
    assert_eq!(header(&asked[0], "host"), Some("provider.test:8000"));
}

#[tokio::test]
async fn a_provider_is_reached_through_socks() {
    let upstream = Upstream::start().await;
    let proxy = Forward::socks(upstream.address()).await;
    let socks = format!("socks5h://{}", proxy.address());
    let edge = Plan::new("http://provider.test")
        .environment("ALL_PROXY", &socks)
        .start()
        .await;
    asks(&edge, &upstream).await;
    assert_eq!(proxy.asked(), ["provider.test:80"]);

    let front = tls::in_front_of(upstream.address(), &["h2"]).await;
    let proxy = Forward::socks(front.address()).await;
    let edge = Plan::new("https://provider.test")
        .environment("SSL_CERT_FILE", CA)
        .environment("all_proxy", &format!("socks5://{}", proxy.address()))
        .start()
        .await;
    asks(&edge, &upstream).await;
    assert_eq!(proxy.asked(), ["provider.test:443"]);
}

/// SOCKS 4a, and SOCKS 5 with a password, to a provider without TLS and to one with HTTP/2.
#[tokio::test]
async fn a_provider_is_reached_through_older_and_closed_socks_proxies() {
    for scheme in ["socks4", "socks4a", "socks5", "socks5h"] {
        let upstream = Upstream::start().await;
        let front = tls::in_front_of(upstream.address(), &["h2"]).await;
        for (url, target, asked) in [
            (
                "http://provider.test",
                upstream.address(),
                "provider.test:80",
            ),
            (
                "https://provider.test",
                front.address(),
                "provider.test:443",
            ),
        ] {
            let is_4 = scheme.starts_with("socks4");
            let (proxy, credentials) = match is_4 {
                true => (Forward::socks4(target).await, ""),
                false => (
                    Forward::socks_for(target, "me", "secret").await,
                    "me:secret@",
                ),
            };
            let named = format!("{scheme}://{credentials}{}", proxy.address());
            let edge = Plan::new(url)
                .environment("SSL_CERT_FILE", CA)
                .environment("ALL_PROXY", &named)
                .start()
                .await;
            asks(&edge, &upstream).await;
            assert_eq!(proxy.asked(), [asked], "{scheme}");
            assert!(!edge.log().contains("secret"), "{}", edge.log());
        }
    }
}

#[tokio::test]
async fn a_socks_proxy_that_wants_another_password_is_a_clear_error() {
    let upstream = Upstream::start().await;
    for credentials in ["", "me:wrong@"] {
        let proxy = Forward::socks_for(upstream.address(), "me", "secret").await;
        let edge = Plan::new("http://provider.test")
            .environment(
                "ALL_PROXY",
                &format!("socks5://{credentials}{}", proxy.address()),
            )
            .start()
            .await;
        let answer = edge.client.fetch(Ask::chat("refused")).await;
        assert_eq!(answer.status, 502, "{credentials}");
        assert_eq!(proxy.asked().len(), 1, "{credentials}");
        assert!(!edge.log().contains("wrong"), "{}", edge.log());
    }
    assert_eq!(upstream.call_count(), 0);
}

/// TLS to a proxy that offers HTTP/2 but must be spoken to in HTTP/1.1: a proxy that gets HTTP/2
/// here ends the connection.
async fn without_http2(proxy: SocketAddr) -> Raw {
    let acceptor = tls::acceptor(&["h2", "http/1.1"]);
    Raw::start(move |_, stream| {
        let accepting = acceptor.accept(stream);
        async move {
            let Ok(mut inside) = accepting.await else {
                return;
            };
            if inside.get_ref().1.alpn_protocol() != Some(b"http/1.1") {
                return;
            }
            if let Ok(mut proxy) = TcpStream::connect(proxy).await {
                let _ = copy_bidirectional(&mut inside, &mut proxy).await;
            }
        }
    })
    .await
}

/// The connection to the proxy has TLS itself, and inside it goes on as through any other.
#[tokio::test]
async fn a_provider_is_reached_through_a_proxy_with_tls() {
    let upstream = Upstream::start().await;
    for (url, protocols, variable, begins) in [
        (
            "https://provider.test",
            &["h2"][..],
            "HTTPS_PROXY",
            "CONNECT provider.test:443 HTTP/1.1\r\n",
        ),
        (
            "https://provider.test",
            &["http/1.1"],
            "https_proxy",
            "CONNECT provider.test:443 HTTP/1.1\r\n",
        ),
        (
            "http://provider.test",
            &[],
            "HTTP_PROXY",
            "POST http://provider.test/v1/chat/completions HTTP/1.1\r\n",
        ),
    ] {
        let front = tls::in_front_of(upstream.address(), protocols).await;
        let target = match url.starts_with("https") {
            true => front.address(),
            false => upstream.address(),
        };
        let inner = Forward::http(target).await;
        let proxy = without_http2(inner.address()).await;
        let edge = Plan::new(url)
            .environment("SSL_CERT_FILE", CA)
            .environment(
                variable,
                &format!("https://user:secret@localhost:{}", proxy.address().port()),
            )
            .start()
            .await;
        asks(&edge, &upstream).await;
        for head in inner.asked() {
            assert!(head.starts_with(begins), "{head}");
            let credentials = header(&head, "proxy-authorization");
            assert_eq!(credentials, Some("Basic dXNlcjpzZWNyZXQ="));
        }
        assert_eq!(proxy.connections(), 1, "{url}");
        assert!(!edge.log().contains("secret"), "{}", edge.log());
    }
    // A proxy whose certificate no known CA has signed is not used.
    let inner = Forward::http(upstream.address()).await;
    let proxy = tls::in_front_of(inner.address(), &["http/1.1"]).await;
    let edge = Plan::new("http://provider.test")
        .environment(
            "HTTP_PROXY",
            &format!("https://localhost:{}", proxy.address().port()),
        )
        .start()
        .await;
    assert_eq!(edge.client.fetch(Ask::chat("no")).await.status, 502);
    assert!(inner.asked().is_empty());
}

#[tokio::test]
async fn a_provider_on_this_machine_needs_no_proxy() {
    let upstream = Upstream::start().await;
    let proxy = Forward::refusing().await;
    let url = format!("http://{}", proxy.address());
    let edge = Plan::new(&upstream.url())
        .environment("HTTP_PROXY", &url)
        .environment("ALL_PROXY", &url)
        .start()
        .await;
    asks(&edge, &upstream).await;
    assert!(proxy.asked().is_empty());
}

#[tokio::test]
async fn a_proxy_that_refuses_is_a_clear_error() {
    let proxy = Forward::refusing().await;
    let edge = Plan::new("https://provider.test")
        .environment("HTTPS_PROXY", &format!("http://{}", proxy.address()))
        .start()
        .await;
    let answer = edge.client.fetch(Ask::chat("refused")).await;
    assert_eq!(answer.status, 502);
    assert!(
        edge.log().contains("proxy authorization required"),
        "{}",
        edge.log()
    );

    for (wrong, why) in [
        ("ftp://user:secret@proxy.test", "not the URL"),
        (
            "socks4://user:secret@proxy.test",
            "SOCKS 4 knows no password",
        ),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let output = tokio::process::Command::new(edge::binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--upstream", "https://provider.test", "--data-dir"])
            .arg(folder.path())
            .env("HTTPS_PROXY", wrong)
            .kill_on_drop(true)
            .output();
        let output = reflex_tests::within("a refusal", output)
            .await
            .expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.contains("HTTPS_PROXY") && stderr.contains(why) && !stderr.contains("secret"),
            "{stderr}"
        );
    }
}
