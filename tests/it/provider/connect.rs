//! Bounds on connecting and waiting, HTTP/2 with few streams, and errors that name the cause.

use reflex_tests::behaviour::Behaviour;
use reflex_tests::client::{Answer, Ask};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::raw::{Raw, read_request};
use reflex_tests::raw_client::frame;
use reflex_tests::tls::{self, CA};
use reflex_tests::upstream::Upstream;
use reflex_tests::within;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::future::pending;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

/// In front of a provider with TLS at this port.
fn secure(port: u16) -> Plan {
    Plan::new(&format!("https://localhost:{port}")).environment("SSL_CERT_FILE", CA)
}

fn says(answer: &Answer, status: u16, words: &str) {
    let message = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, status, "{message}");
    assert!(message.contains(words), "{message}");
}

#[tokio::test]
async fn connect_seconds_max_bounds_tls_and_the_greeting_of_http2() {
    let config = "connect_seconds_max = 1";
    let silent = Raw::start(|_, stream| async move {
        pending::<()>().await;
        drop(stream);
    })
    .await;
    let edge = secure(silent.address().port()).config(config).start().await;
    let answer = edge.client.fetch(Ask::chat("without TLS")).await;
    says(&answer, 504, "connecting took too long");

    let acceptor = tls::acceptor(&["h2"]);
    let silent = Raw::start(move |_, stream| {
        let accepting = acceptor.accept(stream);
        async move {
            let stream = accepting.await;
            pending::<()>().await;
            drop(stream);
        }
    })
    .await;
    let edge = secure(silent.address().port()).config(config).start().await;
    let answer = edge.client.fetch(Ask::chat("without HTTP/2")).await;
    says(&answer, 504, "connecting took too long");
}

#[tokio::test]
async fn response_seconds_max_bounds_the_wait_for_a_response() {
    let upstream = Upstream::start_with(Behaviour::Silent).await;
    let plan = Plan::new(&upstream.url()).config("response_seconds_max = 1");
    let edge = plan.start().await;
    for _ in 0..2 {
        let answer = edge.client.fetch(Ask::chat("forever")).await;
        says(&answer, 504, "its response took too long");
    }
    // Each was asked once.
    assert_eq!(upstream.call_count(), 2);
}

#[tokio::test]
async fn http2_is_spoken_where_the_provider_offers_it() {
    for (protocols, version) in [
        (&["h2", "http/1.1"][..], "HTTP/2.0"),
        (&["http/1.1"], "HTTP/1.1"),
        (&[], "HTTP/1.1"),
    ] {
        let upstream = Upstream::start().await;
        let front = tls::in_front_of(upstream.address(), protocols).await;
        let edge = secure(front.address().port()).start().await;
        for number in 0..3 {
            let ask = Ask::stream(&number.to_string()).header("cookie", "a=1");
            assert_eq!(edge.client.fetch(ask).await.status, 200, "{version}");
        }
        let calls = upstream.calls();
        assert_eq!(calls.len(), 3);
        for call in calls {
            assert_eq!(format!("{:?}", call.version), version);
            let host = format!("localhost:{}", front.address().port());
            // HTTP/2 has it in the target.
            assert!(["", &*host].contains(&call.header("host")), "{call:?}");
        }
        assert!(front.connections() <= 3, "{version}");
    }
}

/// More requests than the provider takes on one connection go out on others, and none waits for
/// another's answer.
#[tokio::test]
async fn a_provider_that_allows_few_streams_gets_more_connections() {
    const REQUESTS: usize = 9;
    let upstream = Upstream::start_allowing(Behaviour::Gated, Some(2)).await;
    let front = tls::in_front_of(upstream.address(), &["h2"]).await;
    let edge = secure(front.address().port()).start().await;
    // All at once, first without a connection to the provider, and then with connections.
    for round in 1..=2 {
        let mut asking = JoinSet::new();
        for number in 0..REQUESTS {
            let client = edge.client.clone();
            let ask = Ask::stream(&format!("{number} of round {round}"));
            asking.spawn(async move { client.fetch(ask).await });
        }
        upstream.called(round * REQUESTS).await;
        upstream.release(REQUESTS * 1000);
        while let Some(answer) = asking.join_next().await {
            assert_eq!(answer.expect("an answer").status, 200);
        }
    }
    let connections = front.connections();
    // Five suffice for nine, once it is known that each takes two.
    assert!((5..=REQUESTS + 5).contains(&connections), "{connections}");
}

/// A stream that has ended, or that its client has left, makes room for the next.
#[tokio::test]
async fn a_stream_that_is_over_makes_room_for_the_next() {
    let upstream = Upstream::start_allowing(Behaviour::Answer, Some(1)).await;
    let front = tls::in_front_of(upstream.address(), &["h2"]).await;
    let edge = secure(front.address().port()).start().await;
    for number in 0..10 {
        let answer = edge.client.fetch(Ask::stream(&number.to_string())).await;
        assert_eq!(answer.status, 200);
    }
    assert!(front.connections() < 5, "{}", front.connections());
}

#[tokio::test]
async fn a_connection_that_fails_says_why() {
    // A label of a name has 63 letters at most: no resolver asks the network for this one.
    let nameless = format!("http://{}.test", "a".repeat(64));
    let edge = Plan::new(&nameless).start().await;
    let answer = edge.client.fetch(Ask::chat("to no name")).await;
    says(&answer, 502, "its name could not be resolved");

    let gone = Upstream::start().await;
    let url = gone.url();
    gone.stop().await;
    let edge = Plan::new(&url).start().await;
    let answer = edge.client.fetch(Ask::chat("to no listener")).await;
    says(&answer, 502, "it refused the connection");

    let plain = Upstream::start().await;
    let edge = secure(plain.address().port()).start().await;
    let answer = edge.client.fetch(Ask::chat("to no TLS")).await;
    says(&answer, 502, "TLS with it failed");

    let front = tls::in_front_of(plain.address(), &["h2"]).await;
    let untrusted = format!("https://localhost:{}", front.address().port());
    let edge = Plan::new(&untrusted).start().await;
    let answer = edge.client.fetch(Ask::chat("to no CA that is known")).await;
    says(&answer, 502, "TLS with it failed");
}

/// The least number of a file descriptor that the daemon has not open.
fn free_descriptor(edge: &Edge) -> u64 {
    let open: Vec<u64> = std::fs::read_dir(format!("/proc/{}/fd", edge.id()))
        .expect("a process of ours")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    (0..).find(|number| !open.contains(number)).expect("one")
}

#[tokio::test]
async fn a_daemon_without_descriptors_says_so_and_recovers() {
    let provider = Raw::start(|_, mut stream| async move {
        read_request(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
        stream.write_all(answer).await.expect("a reader");
    })
    .await;
    let edge = Plan::new(&provider.url()).start().await;
    // The client keeps its connection, the provider does not.
    edge.client.fetch(Ask::get("/v1/models")).await;
    let pid = Pid::from_raw(i32::try_from(edge.id()).expect("a pid"));
    // The daemon has inherited ours.
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let limit = |current: Option<u64>| {
        prlimit(pid, Resource::Nofile, Rlimit { current, maximum }).expect("a process of ours");
    };
    limit(Some(free_descriptor(&edge)));
    let answer = edge.client.fetch(Ask::get("/v1/models")).await;
    says(&answer, 502, "no file descriptor is left");
    limit(current);
    let answer = edge.client.fetch(Ask::get("/v1/models")).await;
    assert_eq!(answer.status, 200);
}

/// A model may think for longer than a NAT remembers a silent connection, and a machine that has
/// vanished answers no probe.
#[tokio::test]
async fn a_connection_that_waits_is_probed() {
    let upstream = Upstream::start_with(Behaviour::Silent).await;
    let edge = Plan::new(&upstream.url()).start().await;
    let asking = tokio::spawn({
        let client = edge.client.clone();
        async move { client.try_send(Ask::chat("slow")).await.map(drop) }
    });
    upstream.called(1).await;
    let port = format!(":{:04X}", upstream.address().port());
    // Of the machine's connections, that to the provider with a timer of kind 2: keep-alive.
    let is_probed = || {
        let connections = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
        connections.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields[2].ends_with(&port) && fields[5].starts_with("02:")
        })
    };
    // Until then the request itself may wait for its acknowledgement.
    let probed = async {
        while !is_probed() {
            tokio::task::yield_now().await;
        }
    };
    within("a timer for probes", probed).await;
    asking.abort();
}

/// A provider with HTTP/2 that takes a connection and a request, and from then on says nothing: not
/// even to a ping.
async fn mute() -> Raw {
    let acceptor = tls::acceptor(&["h2"]);
    Raw::start(move |_, stream| {
        let accepting = acceptor.accept(stream);
        async move {
            let Ok(mut stream) = accepting.await else {
                return;
            };
            // Its settings, and that ours have come.
            let greeting = [frame(4, 0, 0, &[]), frame(4, 1, 0, &[])].concat();
            if stream.write_all(&greeting).await.is_ok() {
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        }
    })
    .await
}

/// Its machine may have vanished. No client learned of it until `response_seconds_max`, 10 minutes.
#[tokio::test]
async fn a_provider_that_answers_no_ping_is_found_out() {
    let config = "idle_seconds_max = 2\nconnect_seconds_max = 2";
    let provider = mute().await;
    let edge = secure(provider.address().port())
        .config(config)
        .start()
        .await;
    let answer = edge.client.fetch(Ask::chat("gone")).await;
    says(&answer, 502, "error");
    // The connection is not used again.
    edge.client.fetch(Ask::chat("gone again")).await;
    assert_eq!(provider.connections(), 2);

    // One that answers pings may think for longer than all these bounds.
    let upstream = Upstream::start().await;
    let front = tls::in_front_of(upstream.address(), &["h2"]).await;
    let plan = secure(front.address().port()).config(config);
    let other = plan.start().await;
    let asking = tokio::spawn({
        let client = other.client.clone();
        let ask = Ask::chat("slow").header("x-hold", "1");
        async move { client.fetch(ask).await }
    });
    upstream.called(1).await;
    edge.client.fetch(Ask::chat("gone at last")).await;
    upstream.release(1);
    assert_eq!(asking.await.expect("an answer").status, 200);
    assert_eq!(front.connections(), 1);
}
