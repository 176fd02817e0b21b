//! A stored entry comes back to its tenant, for as long as its life.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use reflex_tests::client::Ask;
use reflex_tests::edge::Plan;
use reflex_tests::unix::Unix;
use reflex_tests::upstream::Upstream;
use reflex_tests::within;
use serde_json::json;

use super::{
    both, check_found, check_miss, check_refused, check_stored, daemon, delete, epoch, exchange,
    get, hex, path, put,
};

/// The headers of a reply beside the stored ones.
const OURS: [&str; 6] = [
    "age",
    "content-length",
    "date",
    "x-reflex-entry",
    "x-reflex-epoch",
    "x-reflex-ttl",
];

#[tokio::test]
async fn what_was_put_comes_back_as_it_was() {
    let daemon = daemon().await;
    let bodies: [Vec<u8>; 4] = [
        b"{\"a\":1}".to_vec(),
        Vec::new(),
        (0..=255).collect(),
        vec![b'x'; 3 << 20],
    ];
    let mut digest = 0;
    for unix in both(&daemon.socket()).await {
        for body in &bodies {
            digest += 1;
            let path = path(digest);
            check_miss(&unix.fetch(get(&path)).await);
            let ask = put(&path, body.clone())
                .header("content-language", "de")
                .header("openai-version", "2020-10-01")
                .header("x-reflex-ttl", "60")
                .header("x-request-id", "req_1")
                .header("set-cookie", "a=b")
                .header("authorization", "Bearer secret")
                .header("x-anything", "else");
            check_stored(&unix.fetch(ask).await);

            let found = unix.fetch(get(&path)).await;
            check_found(&found, body);
            assert_eq!(found.header("content-type"), "application/json");
            assert_eq!(found.header("content-language"), "de");
            assert_eq!(found.header("openai-version"), "2020-10-01");
            assert_eq!(found.header("x-reflex-entry"), format!("{digest:064x}"));
            let seconds = |name| found.header(name).parse::<u64>().expect(name);
            assert!(seconds("age") < 60);
            assert!((1..=60).contains(&seconds("x-reflex-ttl")));
            let kept = ["content-type", "content-language", "openai-version"];
            for name in found.headers.keys().map(http::HeaderName::as_str) {
                assert!(OURS.contains(&name) || kept.contains(&name), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn the_last_put_counts_until_it_is_deleted() {
    let daemon = daemon().await;
    for (unix, digest) in both(&daemon.socket()).await.into_iter().zip(1..) {
        let path = path(digest);
        check_stored(&unix.fetch(put(&path, "first")).await);
        check_stored(&unix.fetch(put(&path, "second")).await);
        check_found(&unix.fetch(get(&path)).await, b"second");

        let deleted = unix.fetch(delete(&path)).await;
        assert_eq!(deleted.status, 204);
        check_miss(&unix.fetch(get(&path)).await);
        check_miss(&unix.fetch(delete(&path)).await);
        check_stored(&unix.fetch(put(&path, "third")).await);
        check_found(&unix.fetch(get(&path)).await, b"third");
    }
}

#[tokio::test]
async fn an_entry_lives_as_long_as_it_says_or_else_as_the_operator_does() {
    let daemon = Plan::daemon().config("ttl_seconds = 77").start().await;
    let unix = Unix::http2(&daemon.socket()).await;
    let left = async |path: &str| {
        let found = unix.fetch(get(path)).await;
        found.header("x-reflex-ttl").parse::<u64>().ok()
    };
    check_stored(&unix.fetch(put(&path(1), "{}")).await);
    assert!(
        left(&path(1))
            .await
            .is_some_and(|ttl| (1..=77).contains(&ttl))
    );
    let ask = put(&path(2), "{}").header("x-reflex-ttl", "1000");
    check_stored(&unix.fetch(ask).await);
    assert!(
        left(&path(2))
            .await
            .is_some_and(|ttl| (900..=1000).contains(&ttl))
    );
    // More than a time can hold: the entry does not expire.
    let ask = put(&path(3), "{}").header("x-reflex-ttl", &u64::MAX.to_string());
    check_stored(&unix.fetch(ask).await);
    check_found(&unix.fetch(get(&path(3))).await, b"{}");
    let ask = put(&path(5), "{}").header("x-reflex-ttl", "never");
    check_stored(&unix.fetch(ask).await);
    check_found(&unix.fetch(get(&path(5))).await, b"{}");
    assert_eq!(left(&path(5)).await, None);

    let ask = put(&path(4), "{}").header("x-reflex-ttl", "1");
    check_stored(&unix.fetch(ask).await);
    let gone = async { while unix.fetch(get(&path(4))).await.status != 404 {} };
    within("the end of a second", gone).await;
}

/// An answer of another cache is as old as its edge says. An answer that states its end lives no
/// longer, also if its edge asks for more.
#[tokio::test]
async fn an_entry_is_as_old_as_its_edge_says_and_ends_when_it_states() {
    let daemon = Plan::daemon().config("ttl_seconds = 1000").start().await;
    let unix = Unix::http1(&daemon.socket());
    let found = async |path: &str| {
        let found = unix.fetch(get(path)).await;
        let seconds = |name: &str| found.header(name).parse::<u64>().ok();
        (seconds("age"), seconds("x-reflex-ttl"))
    };
    let within = |found: Option<u64>, most: u64| found.is_some_and(|it| it <= most);
    check_stored(&unix.fetch(put(&path(1), "{}").header("age", "400")).await);
    let (age, ttl) = found(&path(1)).await;
    assert!(age.is_some_and(|age| age >= 400) && within(ttl, 600));
    let lasting = put(&path(2), "{}").header("age", "400");
    check_stored(&unix.fetch(lasting.header("x-reflex-ttl", "1000")).await);
    let (age, ttl) = found(&path(2)).await;
    assert!(age.is_some_and(|age| age >= 400) && ttl.is_some_and(|ttl| ttl > 600));
    let old = put(&path(3), "{}").header("age", "1000");
    check_refused(&unix.fetch(old).await, 422, "expired");
    let odd = put(&path(3), "{}").header("age", "soon");
    check_refused(&unix.fetch(odd).await, 400, "number");

    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = since.expect("a clock after 1970").as_secs();
    let audio = |expires_at: u64| {
        let audio = json!({"id": "a", "data": "AAAA", "expires_at": expires_at});
        let choice = json!({"index": 0, "message": {"audio": audio}, "finish_reason": "stop"});
        put(&path(4), json!({"choices": [choice]}).to_string()).header("x-reflex-ttl", "never")
    };
    let shaped = |ask: Ask, shape: &str| ask.header("x-reflex-shape", shape);
    check_stored(
        &unix
            .fetch(shaped(audio(now + 600), "chat-completions"))
            .await,
    );
    let (_, ttl) = found(&path(4)).await;
    assert!(within(ttl, 600), "{ttl:?}");
    let over = shaped(audio(now - 1), "chat-completions");
    check_refused(&unix.fetch(over).await, 422, "expired");
    let one_of_two = shaped(audio(now + 600), "chat-completions;parts=2");
    check_refused(&unix.fetch(one_of_two).await, 422, "unexpected");
}

#[tokio::test]
async fn clients_and_edges_share_their_answers() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url()).edge_socket(true).start().await;
    for (index, unix) in both(&edge.socket()).await.into_iter().enumerate() {
        let of = |ask: &Ask| {
            let exchange = exchange(&upstream.url(), ask.sent());
            let (tenant, digest) = (hex(&exchange.key.tenant.0), hex(&exchange.key.digest));
            (
                format!("/v1/entries/{tenant}/{digest}"),
                exchange.shape.name(),
            )
        };
        // From the client to the edge.
        let calls = upstream.call_count();
        for ask in [
            Ask::chat(&format!("asked before {index}")),
            Ask::stream(&format!("asked before {index}")),
        ] {
            let (path, _) = of(&ask);
            check_miss(&unix.fetch(get(&path)).await);
            let answer = edge.client.fetch(ask.clone()).await;
            edge.until("stored", |metrics| {
                metrics.sum("reflex_recordings_total", &[("outcome", "stored")])
                    >= upstream.call_count() as f64
            })
            .await;
            let found = unix.fetch(get(&path)).await;
            check_found(&found, &answer.body);
            assert_eq!(found.header("content-type"), answer.header("content-type"));
        }
        assert_eq!(upstream.call_count(), calls + 2);

        // From the edge to the client.
        let ask = Ask::chat(&format!("put before {index}"));
        let (path, shape) = of(&ask);
        let body = super::completion("put before").json();
        let stored = put(&path, body.clone()).header("x-reflex-shape", shape);
        check_stored(&unix.fetch(stored).await);
        let hit = edge.client.fetch(ask).await;
        assert_eq!((hit.reflex(), &hit.body), ("HIT_L1_EXACT", &body));
        assert_eq!(hit.header("content-type"), "application/json");
        assert_eq!(upstream.call_count(), calls + 2);
        // An entry deleted on one side is gone on the other.
        assert_eq!(unix.fetch(delete(&path)).await.status, 204);
        let ask = Ask::chat(&format!("put before {index}"));
        assert_eq!(edge.client.fetch(ask).await.reflex(), "MISS");
        edge.until("stored again", |metrics| {
            metrics.sum("reflex_recordings_total", &[("outcome", "stored")])
                >= upstream.call_count() as f64
        })
        .await;
    }
}

#[tokio::test]
async fn entries_outlive_a_restart_and_a_kill() {
    let daemon = daemon().await;
    let unix = Unix::http1(&daemon.socket());
    check_stored(&unix.fetch(put(&path(1), "kept")).await);
    check_stored(&unix.fetch(put(&path(2), "deleted")).await);
    assert_eq!(unix.fetch(delete(&path(2))).await.status, 204);

    let mut daemon = daemon.restart().await;
    check_found(&unix.fetch(get(&path(1))).await, b"kept");
    check_miss(&unix.fetch(get(&path(2))).await);
    check_stored(&unix.fetch(put(&path(3), "kept too")).await);
    daemon.written().await;
    daemon.kill().await;

    let _daemon = daemon.start_again().await;
    check_found(&unix.fetch(get(&path(1))).await, b"kept");
    check_miss(&unix.fetch(get(&path(2))).await);
    check_found(&unix.fetch(get(&path(3))).await, b"kept too");
}

#[tokio::test]
async fn another_namespace_shares_nothing() {
    let mut daemon = daemon().await;
    let unix = Unix::http1(&daemon.socket());
    check_stored(&unix.fetch(put(&path(1), "of the first")).await);
    for (namespace, mine) in [("other", None), ("default", Some("of the first"))] {
        daemon.terminate();
        assert_eq!(daemon.ended().await, Some(0));
        let config = format!("namespace = \"{namespace}\"");
        daemon = daemon.start_again_with(&config).await;
        let found = unix.fetch(get(&path(1))).await;
        match mine {
            Some(mine) => check_found(&found, mine.as_bytes()),
            None => {
                check_miss(&found);
                assert_eq!(unix.fetch(delete(&path(1))).await.status, 404);
                check_stored(&unix.fetch(put(&path(1), "of the other")).await);
            }
        }
    }
}

#[tokio::test]
async fn a_flipped_byte_on_disk_is_a_miss_and_never_an_answer() {
    let mut daemon = daemon().await;
    let unix = Unix::http1(&daemon.socket());
    let body = "a payload that is easy to find on disk";
    check_stored(&unix.fetch(put(&path(1), body)).await);
    check_stored(&unix.fetch(put(&path(2), "the other")).await);
    daemon.terminate();
    assert_eq!(daemon.ended().await, Some(0));
    flip(&daemon.data_dir().join("segments"), body.as_bytes());

    let daemon = daemon.start_again().await;
    check_miss(&unix.fetch(get(&path(1))).await);
    check_found(&unix.fetch(get(&path(2))).await, b"the other");
    check_stored(&unix.fetch(put(&path(1), body)).await);
    check_found(&unix.fetch(get(&path(1))).await, body.as_bytes());
    drop(daemon);
}

/// Finds a payload in the files of `folder` and flips one bit in its middle.
fn flip(folder: &Path, payload: &[u8]) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        let mut bytes = fs::read(&path).expect("a readable file");
        let windows = &mut bytes.windows(payload.len());
        if let Some(start) = windows.position(|window| window == payload) {
            bytes[start + payload.len() / 2] ^= 1;
            fs::write(&path, bytes).expect("a writable file");
            return;
        }
    }
    panic!("the payload lies in no file under {}", folder.display());
}

#[tokio::test]
async fn many_at_once_over_one_connection_are_not_mixed_up() {
    const ENTRIES: u32 = 400;
    let daemon = daemon().await;
    let unix = Unix::http2(&daemon.socket()).await;
    // Lengths from a few bytes to many windows of flow control.
    let body = |digest: u32| format!("{digest} ").repeat(1 + (digest as usize * 53) % 9000);
    let mut running = tokio::task::JoinSet::new();
    for digest in 0..ENTRIES {
        let unix = unix.clone();
        running.spawn(async move {
            let path = path(digest);
            let language = format!("x-{digest}");
            let ask = put(&path, body(digest)).header("content-language", &language);
            check_stored(&unix.fetch(ask).await);
            for _ in 0..3 {
                let found = unix.fetch(get(&path)).await;
                check_found(&found, body(digest).as_bytes());
                assert_eq!(found.header("content-language"), language);
                assert_eq!(found.header("x-reflex-entry"), format!("{digest:064x}"));
            }
        });
    }
    let all = async {
        while let Some(ended) = running.join_next().await {
            ended.expect("right")
        }
    };
    within("all of them", all).await;
    let first = unix.fetch(get("/v1/epoch")).await;
    assert_eq!(first.status, 200);
    assert_eq!(first.body, format!("{}\n", epoch(&first)));
}
