//! The parts of a request that decide its target and its tenant: its path, its cookies, the header
//! that names its tenant, and whether it has come through here before.

use reflex_tests::client::{Ask, CHAT, Client};
use reflex_tests::edge::{self, Edge, Plan};
use reflex_tests::raw::Raw;
use reflex_tests::upstream::Upstream;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

#[tokio::test]
async fn no_path_leaves_the_prefix_of_the_upstream() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&format!("{}/base", upstream.url())).start().await;
    for path in [
        "/../admin",
        "/v1/../../admin",
        "/%2e%2E/admin",
        "/..%2fadmin",
        "/%252e%252e/a",
    ] {
        let answer = edge.client.fetch(Ask::get(path)).await;
        let message = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, 400, "{path}: {message}");
        assert!(
            message.contains("does not lead to the provider"),
            "{path}: {message}"
        );
    }
    assert_eq!(upstream.call_count(), 0);
    // A path below the prefix passes as it was sent.
    for path in ["/v1/../v2/models?a=/../..", "/v1//models", "/a%2fb"] {
        edge.client.fetch(Ask::get(path)).await;
        let last = upstream.calls().pop().expect("a call");
        assert_eq!(last.path, format!("/base{path}"));
    }
    // Without a prefix, no path can leave it.
    let edge = Edge::before(&upstream).await;
    edge.client.fetch(Ask::get("/../v1/models")).await;
    let last = upstream.calls().pop().expect("a call");
    assert_eq!(last.path, "/../v1/models");
}

#[tokio::test]
async fn cookies_in_parts_are_joined() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for client in [Client::http2(&edge.url), Client::new(&edge.url)] {
        for ask in [Ask::chat("with cookies"), Ask::get("/v1/models")] {
            let ask = ask
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .header("cookie", "c");
            client.fetch(ask.header("cache-control", "no-cache")).await;
            let last = upstream.calls().pop().expect("a call");
            let cookies: Vec<_> = last.headers.get_all("cookie").iter().collect();
            assert_eq!(cookies, ["a=1; b=2; c"]);
        }
    }
}

/// A gateway sets the header that names the tenant. A client that names it in `Connection`
/// removes neither it nor its own credentials.
#[tokio::test]
async fn connection_takes_no_tenant_away() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream.url()).config("tenant_header = \"x-team\"");
    let edge = plan.start().await;
    let ask = |team: &str| Ask::chat("of a team").header("x-team", team);
    let first = edge.client.fetch(ask("red")).await;
    assert_eq!(first.reflex(), "MISS");
    for (team, status) in [
        ("red", "HIT_L1_EXACT"),
        ("blue", "MISS"),
        ("blue", "HIT_L1_EXACT"),
    ] {
        let taken = ask(team).header("connection", "x-team, authorization, x-other");
        let answer = edge.client.fetch(taken.header("x-other", "1")).await;
        assert_eq!(answer.reflex(), status, "{team}");
    }
    let calls = upstream.calls();
    assert_eq!(calls.len(), 2);
    for call in calls {
        assert_eq!(call.header("authorization"), "Bearer test");
        assert_eq!(
            call.header("x-team"),
            "",
            "the provider learns nothing of tenants"
        );
        assert_eq!(call.header("x-other"), "");
    }
}

#[tokio::test]
async fn an_upstream_that_leads_back_is_an_error_at_once() {
    let back: Arc<OnceLock<SocketAddr>> = Arc::default();
    let to = Arc::clone(&back);
    let elsewhere = Raw::start(move |_, mut client| {
        let to = to.get().copied();
        async move {
            if let Ok(mut edge) = TcpStream::connect(to.expect("an edge")).await {
                let _ = copy_bidirectional(&mut client, &mut edge).await;
            }
        }
    })
    .await;
    // Through another edge or directly.
    let edge = Plan::new(&elsewhere.url()).start().await;
    let further = Plan::new(&edge.url).start().await;
    let address = edge.url.trim_start_matches("http://").parse();
    back.set(address.expect("an address")).expect("set once");
    for client in [&edge.client, &further.client] {
        for ask in [
            Ask::chat("round and round"),
            Ask::get("/v1/models"),
            Ask::stream("round"),
        ] {
            let answer = client.fetch(ask).await;
            let message = String::from_utf8_lossy(&answer.body);
            assert_eq!(answer.status, 508, "{message}");
            assert!(message.contains("leads back"), "{message}");
        }
    }
}

#[tokio::test]
async fn two_edges_in_a_row_work() {
    let upstream = Upstream::start().await;
    let second = Edge::before(&upstream).await;
    let first = Plan::new(&second.url).start().await;
    for status in ["MISS", "HIT_L1_EXACT"] {
        let answer = first.client.fetch(Ask::chat("through two")).await;
        assert_eq!((answer.status.as_u16(), answer.reflex()), (200, status));
    }
    assert_eq!(upstream.call_count(), 1);
    let via = upstream.calls()[0].headers.get_all("via").iter().count();
    assert_eq!(via, 2);
    assert_eq!(upstream.calls()[0].path, CHAT);
}

#[tokio::test]
async fn an_upstream_that_is_the_daemon_itself_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().to_str().expect("a path of letters");
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = free.local_addr().expect("its address");
    drop(free);
    let output = edge::run(&[
        "serve",
        "--listen",
        &listen.to_string(),
        "--admin",
        "127.0.0.1:0",
        "--upstream",
        &format!("http://localhost:{}", listen.port()),
        "--data-dir",
        data_dir,
    ])
    .await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--upstream"), "{stderr}");
}
