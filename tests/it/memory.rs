//! The daemon's memory for requests and answers under way: as much as their length, within one
//! bound for all of them, and never at the cost of a client.

use reflex_tests::client::{Answer, Ask, Client, Streaming};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::raw::{Raw, read_request};
use reflex_tests::upstream::Upstream;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use crate::guest::edge_with_test_guest;

const MIB: u64 = 1 << 20;

/// A line of the process' status, in bytes. `VmHWM` is the most memory that it ever had.
#[cfg(target_os = "linux")]
fn memory(edge: &Edge, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", edge.id())).expect("it runs");
    let found = status.lines().find_map(|text| text.strip_prefix(line));
    let kilobytes = found.and_then(|text| text.trim_matches([':', '\t', ' ']).split(' ').next());
    kilobytes.expect(line).parse::<u64>().expect("a number") << 10
}

/// A stream of so many times 900,000 bytes: the provider repeats the prompt for each choice.
fn long(prompt: char, choices: u32) -> Ask {
    let prompt = prompt.to_string().repeat(900_000);
    let messages = json!([{"role": "user", "content": prompt}]);
    let body = json!({"model": "mock", "stream": true, "n": choices, "messages": messages});
    Ask::body(body.to_string()).mock("gated")
}

fn read(stream: Streaming) -> JoinHandle<Answer> {
    tokio::spawn(stream.whole())
}

async fn whole(reader: JoinHandle<Answer>, bytes_min: usize) -> Answer {
    let answer = reader.await.expect("an answer");
    let body = &answer.body;
    assert!(body.len() > bytes_min && body.ends_with(b"data: [DONE]\n\n"));
    answer
}

async fn held(edge: &Edge) -> u64 {
    edge.metrics().await.sum("reflex_inflight_bytes", &[]) as u64
}

/// A queue of its frames took 190 MiB for 1 MiB.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_request_in_parts_of_one_byte_costs_what_it_is_long() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let prompt = |text: &str| Ask::chat(&text.repeat(500_000));
    edge.client.fetch(prompt("a")).await;
    let before = memory(&edge, "VmHWM");
    let answer = edge.client.fetch(prompt("b").chunked(1)).await;
    assert_eq!(answer.header("cache-status"), "reflex; fwd=miss");
    let grown = memory(&edge, "VmHWM") - before;
    println!("{} KiB for 500 kB in parts of a byte", grown >> 10);
    assert!(grown < 24 * MIB, "{} MiB for half a MiB", grown / MIB);
    // It is the same request, however it was cut.
    assert_eq!(
        edge.client.fetch(prompt("b")).await.reflex(),
        "HIT_L1_EXACT"
    );
    assert_eq!(held(&edge).await, 0);
}

/// A megabyte of tiny numbers took 18 MiB while the provider worked, and as long as the instance
/// lived. Now the body remains, once with the host and once with the guest, and what reading takes.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn requests_of_tiny_values_take_little_memory_and_leave_none() {
    const REQUESTS: usize = 8;
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let all = |asks: Vec<Ask>| {
        let client = edge.client.clone();
        let ask = move |ask| {
            let client = client.clone();
            tokio::spawn(async move { client.fetch(ask).await.status })
        };
        asks.into_iter().map(ask).collect::<Vec<_>>()
    };
    let keys: Vec<_> = (0..90_000).map(|key| format!(r#""{key}":1"#)).collect();
    let shapes = [
        ("numbers", format!("[{}]", vec!["1"; 500_000].join(","))),
        ("texts", format!("[{}]", vec![r#""""#; 330_000].join(","))),
        ("objects", format!("[{}]", vec!["{}"; 330_000].join(","))),
        ("keys", format!("{{{}}}", keys.join(","))),
    ];
    for (shape, values) in shapes {
        let ask = |number: usize| {
            let messages = r#"[{"role":"user","content":"a"}]"#;
            let body = format!(r#"{{"model":"mock","messages":{messages},"n{number}":{values}}}"#);
            Ask::body(body).header("x-hold", "1")
        };
        let few = |number: usize| {
            let ask = Ask::chat(&format!("{shape}, and a few {number}"));
            ask.header("x-hold", "1")
        };
        // As many instances as there will be, and connections.
        let calls = upstream.call_count();
        let others = all((0..REQUESTS).map(few).collect());
        upstream.called(calls + REQUESTS).await;
        upstream.release(REQUESTS);
        for answer in others {
            assert_eq!(answer.await.expect("an answer"), 200);
        }
        let before = memory(&edge, "VmRSS");
        let asked = all((0..REQUESTS).map(ask).collect());
        upstream.called(calls + 2 * REQUESTS).await;
        let during = memory(&edge, "VmRSS").saturating_sub(before);
        upstream.release(REQUESTS);
        for answer in asked {
            assert_eq!(answer.await.expect("an answer"), 200);
        }
        edge.client.fetch(Ask::chat("a hit")).await;
        edge.client.fetch(Ask::chat("a hit")).await;
        let after = memory(&edge, "VmRSS").saturating_sub(before);
        let kib = |bytes: u64| (bytes / REQUESTS as u64) >> 10;
        println!(
            "{shape}: {} KiB a request meanwhile, {} KiB afterwards",
            kib(during),
            kib(after)
        );
        assert!(during < REQUESTS as u64 * 5 * MIB, "{shape}: {during}");
        assert!(after < REQUESTS as u64 * MIB, "{shape}: {after}");
        assert_eq!(held(&edge).await, 0);
    }
}

/// The event was held a second time, which counted nowhere.
#[tokio::test]
async fn the_event_of_a_stream_that_has_not_come_to_its_end_counts() {
    const PART: usize = 200_000;
    let provider = Raw::start(|_, mut stream| async move {
        read_request(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        let part = format!("{head}data: {{\"id\":\"{}", "x".repeat(PART));
        stream.write_all(part.as_bytes()).await.expect("it is read");
        // The rest would come when the edge hangs up, which never happens here.
        let _ = stream.read_u8().await;
    })
    .await;
    let edge = Plan::new(&provider.url()).start().await;
    let ask = json!({"model": "mock", "stream": true, "messages": []});
    let answer = edge.client.send(Ask::body(ask.to_string())).await;
    assert_eq!(answer.headers["x-reflex-status"], "MISS");
    edge.until("both the answer and its event count", |metrics| {
        metrics.sum("reflex_inflight_bytes", &[]) >= 2.0 * PART as f64
    })
    .await;
    drop(answer);
    edge.until("nothing is held", |metrics| {
        metrics.sum("reflex_inflight_bytes", &[]) < 0.5
    })
    .await;
}

/// The bound is the operator's. A request without room passes through, whole.
#[tokio::test]
async fn what_all_requests_hold_has_one_bound_that_no_client_notices() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url())
        .config("inflight_bytes_max = 8388608")
        .start()
        .await;
    let mut streams = Vec::new();
    for prompt in 'a'..='l' {
        streams.push(edge.client.send(long(prompt, 4)).await);
    }
    let statuses: Vec<_> = streams
        .iter()
        .map(|stream| stream.headers["x-reflex-status"].to_str().expect("text"))
        .collect();
    assert!(statuses.contains(&"MISS"), "{statuses:?}");
    let readers: Vec<_> = streams.into_iter().map(read).collect();
    // All are under way: together they stay within the bound, except for a frame.
    for _ in 0..readers.len() {
        upstream.release(2);
        assert!(held(&edge).await <= 9 * MIB);
    }
    upstream.release_all();
    for reader in readers {
        whole(reader, 3_600_000).await;
    }
    let metrics = edge.metrics().await;
    let given_up = metrics.sum("reflex_not_kept_total", &[("reason", "memory")]);
    let passed = metrics.sum("reflex_requests_total", &[("detail", "memory")]);
    assert!(given_up + passed > 0.5, "{metrics:#?}");
    edge.until("nothing is held", |metrics| {
        metrics.sum("reflex_inflight_bytes", &[]) < 0.5
    })
    .await;
}

/// Without any room, the daemon is a proxy.
#[tokio::test]
async fn without_room_every_request_reaches_the_provider_untouched() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url())
        .config("inflight_bytes_max = 1")
        .start()
        .await;
    for calls in 1..=2 {
        let ask = Ask::chat("no room");
        let answer = edge.client.fetch(ask.clone()).await;
        let expected = r#"reflex; fwd=bypass; detail="memory""#;
        assert_eq!(answer.header("cache-status"), expected);
        assert_eq!(upstream.call_count(), calls);
        let call = upstream.calls().pop().expect("a call");
        assert_eq!(call.body, *ask.sent());
    }
    assert_eq!(edge.client.fetch(Ask::get("/v1/models")).await.status, 200);
    assert_eq!(held(&edge).await, 0);
}

/// It held up all others permanently once the answer was longer than the kept part.
#[tokio::test]
async fn a_leader_that_reads_nothing_of_a_long_answer_holds_up_no_follower() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url())
        .config("entry_bytes_max = 1048576")
        .start()
        .await;
    let leader = edge.client.send(long('x', 12)).await;
    let first = edge.client.send(long('x', 12)).await;
    let http2 = Client::http2(edge.client.base());
    let second = http2.send(long('x', 12)).await;
    for follower in [&first, &second] {
        let status = follower.headers["cache-status"].to_str().expect("text");
        assert_eq!(status, "reflex; fwd=miss; collapsed");
    }
    upstream.release_all();
    let (first, second) = (read(first), read(second));
    let first = whole(first, 10_000_000).await.body;
    assert!(whole(second, 10_000_000).await.body == first);
    // It has lost nothing either.
    assert!(whole(read(leader), 10_000_000).await.body == first);
    assert_eq!(upstream.call_count(), 1);
    edge.recorded(0, 1).await;
    edge.until("nothing is held", |metrics| {
        metrics.sum("reflex_inflight_bytes", &[]) < 0.5
    })
    .await;
}

/// A follower that reads slowly over HTTP/2 was reset.
#[tokio::test]
async fn a_slow_follower_of_a_long_answer_is_not_reset() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url())
        .config("entry_bytes_max = 1048576")
        .start()
        .await;
    let leader = edge.client.send(long('y', 12)).await;
    let http2 = Client::http2(edge.client.base());
    let slow = http2.send(long('y', 12)).await;
    upstream.release_all();
    let first = whole(read(leader), 10_000_000).await.body;
    assert!(whole(read(slow), 10_000_000).await.body == first);
    assert_eq!(upstream.call_count(), 1);
}

/// A guest that asks for more than the operator lets it read gets no more.
#[tokio::test]
async fn a_guest_reads_no_longer_request_than_the_operator_allows() {
    let upstream = Upstream::start().await;
    let edge = edge_with_test_guest(&upstream, "request_bytes_max = 100000").await;
    for (bytes, read) in [(90_000, "90000"), (100_001, "0"), (3_000_000, "0")] {
        let ask = Ask::body(vec![b'x'; bytes]).header("x-test-guest", "peek-all");
        let answer = edge.client.fetch(ask).await;
        assert_eq!(answer.body, read, "{bytes}");
    }
}

/// Guests had a bound of wall-clock time, whether the machine ran them or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_machine_turns_no_hit_into_a_call() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url())
        .config("guest_milliseconds_max = 20")
        .start()
        .await;
    edge.client.fetch(Ask::chat("known")).await;
    let calls = upstream.call_count();
    let busy = std::sync::atomic::AtomicBool::new(true);
    let threads = 16 * std::thread::available_parallelism().map_or(4, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while busy.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let client = edge.client.clone();
        let asked = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async move {
                for _ in 0..20 {
                    let hit = client.try_send(Ask::chat("known")).await;
                    let hit = hit?.headers["x-reflex-status"].clone();
                    if hit != "HIT_L1_EXACT" {
                        return Err(format!("{hit:?}"));
                    }
                }
                Ok(())
            })
        });
        busy.store(false, std::sync::atomic::Ordering::Relaxed);
        asked
    })
    .expect("hits only");
    assert_eq!(upstream.call_count(), calls);
}
