//! Restarts by a second daemon that takes over from the first: no request fails, and no answer is lost.

mod by_signal;
mod hostile;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use reflex_tests::client::{Answer, Ask, Client};
use reflex_tests::edge::{Edge, Old, Plan};
use reflex_tests::raw_client::{RawClient, http1};
use reflex_tests::upstream::Upstream;
use serde_json::json;

const HIT: &str = "HIT_L1_EXACT";
const RESTARTS: usize = 20;

/// From one request of a client to its next, so that the machine has time for the daemons, too.
const PERIOD: Duration = Duration::from_millis(3);

/// What clients do, and what they have got, while daemons come and go.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    failures: Mutex<Vec<String>>,
    /// The prompts whose answers have come whole.
    answered: Mutex<Vec<String>>,
    requests: AtomicUsize,
}

impl Load {
    /// Asks one new question after the other, and each time one from before.
    async fn ask(self: Arc<Self>, name: String, client: Client, streams: bool) {
        let ask = |prompt: &str| match streams {
            true => Ask::stream(prompt),
            false => Ask::chat(prompt),
        };
        let mut number = 0;
        let mut paced = tokio::time::interval(PERIOD);
        while !self.is_over.load(Relaxed) {
            paced.tick().await;
            let prompt = format!("{name} asks {number}");
            let earlier = format!("{name} asks {}", number / 2);
            for prompt in [prompt, earlier] {
                match whole(&client, ask(&prompt)).await {
                    Ok(answer) if answer.status == 200 => {
                        self.answered.lock().expect("no panic").push(prompt);
                    }
                    Ok(answer) => self.failed(format!("{prompt}: {}", answer.status)),
                    Err(error) => self.failed(format!("{prompt}: {error}")),
                }
                self.requests.fetch_add(1, Relaxed);
            }
            number += 1;
        }
    }

    fn failed(&self, what: String) {
        self.failures.lock().expect("no panic").push(what);
    }
}

/// An answer, or how it failed.
async fn whole(client: &Client, ask: Ask) -> Result<Answer, String> {
    let mut streaming = match client.try_send(ask.clone()).await {
        // The server has not processed it, and takes no more on this connection (RFC 9113, 6.8).
        Err(error) if error.contains("GoAway") && error.contains("NO_ERROR") => {
            client.try_send(ask).await?
        }
        sent => sent?,
    };
    let mut body = Vec::new();
    while let Some(chunk) = streaming.chunk().await? {
        body.extend_from_slice(&chunk);
    }
    Ok(Answer {
        status: streaming.status,
        headers: streaming.headers.clone(),
        body: body.into(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_restarts_under_load_fail_no_request_and_lose_no_answer() {
    let upstream = Upstream::start().await;
    let mut edge = Plan::new(&upstream.url()).takes_over().start().await;
    let load = Arc::new(Load::default());
    let url = edge.url.clone();
    let clients = [
        ("kept", edge.client.clone(), false),
        ("streamed", edge.client.clone(), true),
        ("two", Client::http2(&url), false),
        ("two streamed", Client::http2(&url), true),
    ];
    let clients: Vec<_> = clients
        .into_iter()
        .map(|(name, client, streams)| {
            tokio::spawn(Arc::clone(&load).ask(name.into(), client, streams))
        })
        .collect();

    let mut olds: Vec<Old> = Vec::new();
    let mut slow = Vec::new();
    for restart in 0..RESTARTS {
        // Under way from before the restart until after it.
        let ask = Ask::stream(&format!("slow {restart}")).mock("gated");
        let mut stream = edge.client.send(ask.clone()).await;
        upstream.release(1);
        let beginning = stream.chunk().await.expect("not cut").expect("a beginning");
        let (next, old) = edge.hand_over().await;
        assert_eq!(next.url, url);
        edge = next;
        olds.push(old);
        upstream.release(100);
        let rest = stream.whole().await.body;
        upstream.forget_permits();
        slow.push((ask, [&beginning[..], &rest].concat()));
    }
    load.is_over.store(true, Relaxed);
    for client in clients {
        client.await.expect("no panic");
    }
    for mut old in olds {
        assert_eq!(old.ended().await, Some(0), "{}", old.log());
    }

    let failures = load.failures.lock().expect("no panic").clone();
    let requests = load.requests.load(Relaxed);
    assert!(
        failures.is_empty(),
        "{failures:#?} of {requests}\n{}",
        edge.log()
    );
    assert!(requests >= RESTARTS, "only {requests} requests");
    edge.written().await;
    // The last one may not be in the L1 or the queue, but on the disk.
    let mut edge = edge.restart().await;
    let calls = upstream.call_count();
    let mut answered = std::mem::take(&mut *load.answered.lock().expect("no panic"));
    answered.sort();
    answered.dedup();
    for prompt in &answered {
        let ask = match prompt.contains("streamed") {
            true => Ask::stream(prompt),
            false => Ask::chat(prompt),
        };
        let answer = edge.client.fetch(ask).await;
        assert_eq!(answer.reflex(), HIT, "{prompt}\n{}", edge.log());
    }
    for (ask, body) in slow {
        let answer = edge.client.fetch(ask).await;
        assert_eq!(answer.reflex(), HIT, "{}", edge.log());
        assert_eq!(answer.body, body, "byte for byte");
    }
    assert_eq!(upstream.call_count(), calls, "no answer was lost");
    println!("{requests} requests, {} answers", answered.len());
    edge.terminate();
    assert_eq!(edge.ended().await, Some(0));
}

/// A client that writes a request into a connection that just closes cannot know whether it arrived.
#[tokio::test]
async fn open_connections_have_one_more_answer_that_says_close() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url()).takes_over().start().await;
    let ask = Ask::chat("on a connection from before");
    let request = http1(&ask);
    let fresh = RawClient::connect(&edge.url).await;
    let mut begun = RawClient::connect(&edge.url).await;
    begun.send(&request[..20]).await;
    let mut used = RawClient::connect(&edge.url).await;
    used.send(&request).await;
    // Connections are accepted in turn, so with this answer all are the old daemon's.
    let (head, _) = used.answer().await;
    let says_close = |head: &str| head.to_ascii_lowercase().contains("connection: close");
    assert!(!says_close(&head), "{head}");

    // They have 5 s from now on.
    let (edge, mut old) = edge.hand_sockets_over().await;
    let rests = [&request[..], &request[20..], &request[..]];
    for (mut client, rest) in [fresh, begun, used].into_iter().zip(rests) {
        client.send(rest).await;
        let (head, _) = client.answer().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(says_close(&head), "{head}");
        assert!(client.rest().await.is_empty());
    }
    assert_eq!(old.ended().await, Some(0), "{}", old.log());
    drop(edge);
}

fn purge(edge: &Edge, what: serde_json::Value) -> Ask {
    Ask::new(Method::POST, "/v1/purge", what.to_string()).key(Some(&edge.token()))
}

/// The old daemon stores an answer after the purge, of a request from before it.
#[tokio::test]
async fn a_purge_holds_while_the_folder_goes_over() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url()).takes_over().start().await;
    edge.client.fetch(Ask::chat("there before")).await;
    edge.recorded(1, 0).await;
    let ask = Ask::stream("under way").mock("gated");
    let mut stream = edge.client.send(ask.clone()).await;
    upstream.release(1);
    stream.chunk().await.expect("not cut").expect("a beginning");

    let (edge, mut old) = edge.hand_over().await;
    let operator = Client::new(&edge.admin_url);
    let purged = operator.fetch(purge(&edge, json!({ "all": true }))).await;
    assert_eq!(purged.status, 200, "{:?}", purged.body);
    upstream.release(100);
    stream.whole().await;
    assert_eq!(old.ended().await, Some(0), "{}", old.log());

    let is_miss = async |edge: &Edge| {
        for ask in [Ask::chat("there before"), ask.clone()] {
            let look = ask.header("cache-control", "only-if-cached");
            let answer = edge.client.fetch(look).await;
            assert_ne!(answer.reflex(), HIT, "{}", edge.log());
        }
    };
    is_miss(&edge).await;
    is_miss(&edge.restart().await).await;
}

/// The path stays the same file: a client never finds none, or one without a listener.
#[tokio::test]
async fn the_socket_of_edges_goes_over() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream.url()).edge_socket(true).takes_over();
    let mut edge = plan.start().await;
    let socket = edge.socket();
    let is_over = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let (socket, is_over) = (socket.clone(), Arc::clone(&is_over));
        async move {
            let mut asked = 0;
            let mut paced = tokio::time::interval(PERIOD);
            while !is_over.load(Relaxed) {
                paced.tick().await;
                drop(RawClient::connect_unix(&socket).await);
                asked += 1;
            }
            asked
        }
    });
    for _ in 0..3 {
        let (next, mut old) = edge.hand_over().await;
        assert_eq!(old.ended().await, Some(0), "{}", old.log());
        edge = next;
        assert!(socket.exists(), "the old one leaves it");
    }
    is_over.store(true, Relaxed);
    assert!(asking.await.expect("each could connect") > 0);
    edge.terminate();
    assert_eq!(edge.ended().await, Some(0));
    assert!(!socket.exists(), "the last one takes it along");
}

#[tokio::test]
async fn health_tells_what_the_daemon_does() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url()).takes_over().start().await;
    edge.ready().await;
    assert_eq!(edge.health().await["state"], "running");
    let (edge, mut old) = edge.hand_over().await;
    assert_eq!(old.ended().await, Some(0), "{}", old.log());
    let health = edge.health().await;
    assert_eq!(health["state"], "running");
    assert_eq!(health["status"], "green");
    assert!(health.get("recovery").is_none() && health.get("import").is_none());
}
