//! The daemon's certificate, and what is spoken on a connection with TLS.

use super::*;
use crate::websocket::{MASKED, PLAIN, echo, websocket};
use reflex_tests::edge::run as reflex_edge;
use reflex_tests::raw_client::{RawClient, http1};
use tokio::io::AsyncReadExt as _;

#[tokio::test]
async fn openssl_agrees_on_tls_and_a_protocol() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let edge = edge(&authority, &upstream, "").await;
    let good = "Verify return code: 0 (ok)";
    for (arguments, expected) in [
        (&["-alpn", "h2,http/1.1"][..], "ALPN protocol: h2"),
        (&["-alpn", "http/1.1"], "ALPN protocol: http/1.1"),
        (&["-alpn", "http/1.1", "-tls1_2"], "Protocol  : TLSv1.2"),
        (&[], "No ALPN negotiated"),
    ] {
        let said = s_client(&edge.url, &authority.ca(), arguments).await;
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(
            said.text.contains(good) && said.text.contains(expected),
            "{said:?}"
        );
    }
    for refused in [&["-alpn", "gopher"][..], &["-tls1_1"]] {
        let said = s_client(&edge.url, &authority.ca(), refused).await;
        assert_ne!(said.code, Some(0), "{said:?}");
    }
}

#[tokio::test]
async fn curl_trusts_a_good_certificate_and_no_other() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let good = edge(&authority, &upstream, "").await;
    let url = format!("{}/v1/models", good.url);
    for (version, flag) in [("2", "--http2"), ("1.1", "--http1.1")] {
        let said = curl(
            &url,
            &authority.ca(),
            &[flag, "--write-out", "over %{http_version}"],
        )
        .await;
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.text.ends_with(&format!("over {version}")), "{said:?}");
    }
    /// The certificate of the server is not to be trusted.
    const UNTRUSTED: Option<i32> = Some(60);
    let other = Authority::new().expect("as above");
    assert_eq!(curl(&url, &other.ca(), &[]).await.code, UNTRUSTED);

    let expired = authority.sign_expired("/CN=server", reflex_tests::authority::SERVER);
    let plan = Plan::new(&upstream.url()).tls(&expired, &authority.ca());
    let edge = plan.start().await;
    let said = curl(&edge.url, &authority.ca(), &[]).await;
    assert_eq!(said.code, UNTRUSTED, "{said:?}");
    assert!(
        edge.log().contains("the certificate has expired"),
        "{}",
        edge.log()
    );
    let end = edge.metrics().await.sum(
        "reflex_tls_certificate_expiry_timestamp_seconds",
        &[("side", "clients")],
    );
    // The first second of 2021.
    assert!((end - 1_609_459_200.0).abs() < 0.5, "{end}");
}

#[tokio::test]
async fn answers_over_tls_are_cached_whatever_the_protocol() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let edge = edge(&authority, &upstream, "").await;
    let over = |protocol| {
        Client::tls(
            &edge.url,
            trusting(Some(&authority.ca()), None, &[protocol]),
        )
    };
    let first = over("h2").fetch(Ask::stream("a secret")).await;
    assert_eq!(first.reflex(), "MISS");
    edge.recorded(1, 0).await;
    for protocol in ["http/1.1", "h2"] {
        let again = over(protocol).fetch(Ask::stream("a secret")).await;
        assert_eq!((again.reflex(), &again.body), ("HIT_L1_EXACT", &first.body));
    }
    assert_eq!(upstream.call_count(), 1);
}

/// The end of the client's side is TLS's own word for it, or the end of TCP alone.
#[tokio::test]
async fn a_connection_is_kept_and_a_half_closed_one_gets_its_answer() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let edge = edge(&authority, &upstream, "").await;
    let connect = || tls::connect(&edge.url, trusting(Some(&authority.ca()), None, &[]));
    let mut raw = RawClient::of(connect().await.expect("a handshake"));
    for _ in 0..3 {
        raw.send(http1(&Ask::chat("kept"))).await;
        let (head, body) = raw.answer().await;
        assert!(
            head.starts_with("HTTP/1.1 200 ") && !body.is_empty(),
            "{head}"
        );
    }
    for ask in [Ask::chat("kept"), Ask::chat("half"), Ask::stream("half")] {
        let mut raw = RawClient::of(connect().await.expect("a handshake"));
        raw.send(http1(&ask)).await;
        raw.end().await;
        let said = raw.rest_text().await;
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");

        let mut stream = connect().await.expect("a handshake");
        tokio::io::AsyncWriteExt::write_all(&mut stream, &http1(&ask))
            .await
            .expect("a reader");
        let (tcp, _) = stream.get_mut();
        tokio::io::AsyncWriteExt::shutdown(tcp)
            .await
            .expect("an open socket");
        let mut raw = RawClient::of(stream);
        let said = raw.until("\r\n\r\n").await;
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    }
}

#[tokio::test]
async fn a_websocket_passes_over_tls() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let (provider, _) = echo().await;
    let plan = Plan::new(&format!("http://{}", provider.address()));
    let edge = plan
        .tls(&authority.sign_server(), &authority.ca())
        .start()
        .await;
    let config = trusting(Some(&authority.ca()), None, &["http/1.1"]);
    let mut stream = tls::connect(&edge.url, config).await.expect("a handshake");
    let ask = websocket("edge.test", "");
    tokio::io::AsyncWriteExt::write_all(&mut stream, ask.as_bytes())
        .await
        .expect("a reader");
    let mut raw = RawClient::of(stream);
    let head = raw.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    raw.until_bytes(PLAIN).await;
    for _ in 0..3 {
        raw.send(MASKED).await;
        raw.until_bytes(PLAIN).await;
    }
    raw.end().await;
    assert_eq!(raw.rest().await, b"");
}

#[tokio::test]
async fn operators_connect_with_tls_and_their_commands_do() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let Pair { cert, key } = authority.sign_server();
    let config = format!("admin_tls_cert = {cert:?}\nadmin_tls_key = {key:?}");
    let edge = edge(&authority, &upstream, &config).await;
    assert!(edge.admin_url.starts_with("https://"), "{}", edge.admin_url);
    assert_eq!(edge.health().await["status"], "green");
    let (ca, token) = (authority.ca(), edge.data_dir().join("admin-token"));
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let (ca, token) = (text(&ca), text(&token));
    let trusts = [
        "--admin",
        &edge.admin_url,
        "--token-file",
        &token,
        "--ca",
        &ca,
    ];
    let output = reflex_edge(&[&["purge", "--all"][..], &trusts].concat()).await;
    assert!(output.status.success(), "{output:?}");
    let output = reflex_edge(&[&["stats"][..], &trusts[..4]].concat()).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let plain = edge.admin_url.replace("https://", "http://");
    let output = reflex_edge(&["stats", "--admin", &plain, "--token-file", &token]).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[tokio::test]
async fn a_listener_that_a_network_reaches_without_tls_is_warned_of() {
    let upstream = Upstream::start().await;
    let open = Plan::new(&upstream.url()).admin("0.0.0.0:0").start().await;
    assert!(open.log().contains("without TLS"), "{}", open.log());
    let closed = Edge::before(&upstream).await;
    assert!(!closed.log().contains("without TLS"), "{}", closed.log());
}

/// All mistakes of certificates are told at once, and nothing of what the files hold.
#[tokio::test]
async fn certificates_that_cannot_be_used_are_refused_at_the_start() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let (one, other) = (authority.sign_server(), authority.sign_server());
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret.pem");
    std::fs::write(&secret, "-----BEGIN hush hush-----\nhush").expect("a file");
    let check = async |lines: &str, expected: &[&str]| {
        let file = folder.path().join("edge.toml");
        std::fs::write(&file, lines).expect("a file");
        let data = folder.path().join("data");
        let [file, data] = [&file, &data].map(|path| path.to_str().expect("text"));
        let addresses = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let start = [
            "serve",
            "--upstream",
            "https://provider.test",
            "--config",
            file,
        ];
        let all = [&start[..], &addresses, &["--data-dir", data]].concat();
        let output = reflex_edge(&all).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{said}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(
                line.starts_with("reflex-edge: ") && line.contains(expected),
                "{line}"
            );
        }
        assert!(!said.contains("hush"), "{said}");
    };
    let tls = |cert: &Path, key: &Path| format!("tls_cert = {cert:?}\ntls_key = {key:?}\n");
    let mixed = tls(&one.cert, &other.key);
    check(&mixed, &["not the key of the certificate in"]).await;
    check(&tls(&one.key, &one.key), &["no certificate in PEM"]).await;
    check(&tls(&secret, &secret), &["no certificate in PEM"]).await;
    check(&tls(&one.cert, &secret), &["no private key in PEM"]).await;
    let missing = Path::new("nowhere.pem");
    let all = format!(
        "{}admin_tls_cert = {missing:?}\nadmin_tls_key = {missing:?}\nupstream_ca = {secret:?}\n",
        tls(&one.cert, missing)
    );
    let expected = [
        "tls_key nowhere.pem",
        "admin_tls_cert nowhere.pem",
        "upstream_ca",
    ];
    check(&all, &expected).await;
}

/// Reads everything, so that a client sees the end of a connection as it came.
#[tokio::test]
async fn the_daemon_ends_a_connection_with_the_word_of_tls() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let edge = edge(&authority, &upstream, "").await;
    let config = trusting(Some(&authority.ca()), None, &[]);
    let mut stream = tls::connect(&edge.url, config).await.expect("a handshake");
    let ask = String::from_utf8(http1(&Ask::chat("the last"))).expect("text");
    let ask = ask.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    tokio::io::AsyncWriteExt::write_all(&mut stream, ask.as_bytes())
        .await
        .expect("a reader");
    let mut said = Vec::new();
    // Without `close_notify`, rustls makes an error of the end.
    let read = within("an answer", stream.read_to_end(&mut said)).await;
    read.expect("an end that is none of an attacker's");
    assert!(said.starts_with(b"HTTP/1.1 200 "));
}
