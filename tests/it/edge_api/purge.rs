//! A purged entry is gone for good, and edges with copies learn of it.

use reflex_tests::client::{Answer, Ask};
use reflex_tests::edge::Plan;
use reflex_tests::unix::Unix;
use reflex_tests::upstream::Upstream;
use tokio::task::JoinSet;

use super::{
    WAIT, both, check_found, check_miss, check_refused, check_stored, daemon, delete, epoch, fill,
    get, path, path_of, put, tenant,
};

const EPOCH: &str = "x-reflex-epoch";

#[tokio::test]
async fn a_purge_of_a_tenant_leaves_the_others() {
    let mut daemon = daemon().await;
    for unix in both(&daemon.socket()).await {
        for digest in 1..4 {
            for of in [1, 2] {
                let body = format!("{of} {digest}");
                check_stored(&unix.fetch(put(&path_of(of, digest), body)).await);
            }
        }
        assert_eq!(unix.fetch(delete(&tenant(1))).await.status, 204);
        for digest in 1..4 {
            check_miss(&unix.fetch(get(&path_of(1, digest))).await);
            let found = unix.fetch(get(&path_of(2, digest))).await;
            check_found(&found, format!("2 {digest}").as_bytes());
        }
        // Of an unknown tenant as well: another edge may have its answers.
        assert_eq!(unix.fetch(delete(&tenant(3))).await.status, 204);
        // Later entries are kept.
        check_stored(&unix.fetch(put(&path_of(1, 9), "new")).await);
    }
    let unix = Unix::http1(&daemon.socket());
    for kill in [false, true] {
        if kill {
            daemon.kill().await;
            daemon = daemon.start_again().await;
        } else {
            daemon = daemon.restart().await;
        }
        check_miss(&unix.fetch(get(&path_of(1, 1))).await);
        check_found(&unix.fetch(get(&path_of(1, 9))).await, b"new");
        check_found(&unix.fetch(get(&path_of(2, 1))).await, b"2 1");
    }
    // With nothing but the operating system in between.
    assert_eq!(unix.fetch(delete(&tenant(2))).await.status, 204);
    daemon.kill().await;
    let _daemon = daemon.start_again().await;
    check_miss(&unix.fetch(get(&path_of(2, 1))).await);
    check_found(&unix.fetch(get(&path_of(1, 9))).await, b"new");
}

#[tokio::test]
async fn a_purge_of_everything_leaves_nothing() {
    let mut daemon = daemon().await;
    for unix in both(&daemon.socket()).await {
        for of in [1, 2] {
            check_stored(&unix.fetch(put(&path_of(of, 1), "{}")).await);
        }
        assert_eq!(unix.fetch(delete("/v1/entries")).await.status, 204);
        for of in [1, 2] {
            check_miss(&unix.fetch(get(&path_of(of, 1))).await);
        }
    }
    let unix = Unix::http1(&daemon.socket());
    daemon.kill().await;
    let daemon = daemon.start_again().await;
    for of in [1, 2] {
        check_miss(&unix.fetch(get(&path_of(of, 1))).await);
    }
    check_stored(&unix.fetch(put(&path(2), "new")).await);
    let _daemon = daemon.restart().await;
    check_miss(&unix.fetch(get(&path(1))).await);
    check_found(&unix.fetch(get(&path(2))).await, b"new");
}

#[tokio::test]
async fn the_epoch_changes_with_each_purge_and_each_start_and_else_not() {
    let mut daemon = daemon().await;
    let unix = Unix::http1(&daemon.socket());
    let mut seen = Vec::new();
    let mut next = async |answer: &Answer, what: &str| {
        let asked = unix.fetch(get("/v1/epoch")).await;
        let now = epoch(&asked).to_owned();
        assert_eq!(asked.body, format!("{now}\n"));
        assert_eq!(epoch(answer), now, "{what}");
        assert!(!seen.contains(&now), "{what}: {now} again");
        assert!((1..=64).contains(&now.len()), "{now}");
        seen.push(now);
    };
    let first = unix.fetch(get(&path(1))).await;
    next(&first, "the start").await;
    check_stored(&unix.fetch(put(&path(1), "{}")).await);
    check_found(&unix.fetch(get(&path(1))).await, b"{}");
    check_refused(&unix.fetch(delete("/v1/entries/x")).await, 400, "key");
    let same = unix.fetch(get("/v1/epoch")).await;
    assert_eq!(epoch(&same), epoch(&first));

    next(&unix.fetch(delete(&path(1))).await, "an entry").await;
    // The daemon did not have it, but other edges may.
    next(&unix.fetch(delete(&path(1))).await, "no entry").await;
    next(&unix.fetch(delete(&tenant(1))).await, "a tenant").await;
    next(&unix.fetch(delete("/v1/entries")).await, "everything").await;
    for _ in 0..3 {
        daemon = daemon.restart().await;
        next(&unix.fetch(get(&path(1))).await, "a restart").await;
    }
}

#[tokio::test]
async fn an_answer_from_before_a_purge_is_refused() {
    let mut daemon = daemon().await;
    let unix = Unix::http1(&daemon.socket());
    for (purge, is_meant) in [
        (delete(&path(7)), false),
        (delete(&path_of(2, 1)), false),
        (delete(&tenant(9)), false),
        (delete(&path(1)), true),
        (delete(&tenant(1)), true),
        (delete("/v1/entries"), true),
    ] {
        let before = unix.fetch(get("/v1/epoch")).await;
        let known = |body: &'static str| put(&path(1), body).header(EPOCH, epoch(&before));
        check_stored(&unix.fetch(known("current")).await);
        unix.fetch(purge).await;
        let late = unix.fetch(known("late")).await;
        match is_meant {
            true => check_refused(&late, 409, "purged"),
            // A removal of one entry, even one that is not there, costs no other.
            false => check_stored(&late),
        }
        let found = unix.fetch(get(&path(1))).await;
        assert_eq!(found.body == "late", !is_meant);
    }
    for nonsense in ["", "0", "never"] {
        let ask = put(&path(1), "late").header(EPOCH, nonsense);
        check_refused(&unix.fetch(ask).await, 409, "purged");
    }
    let before = unix.fetch(get("/v1/epoch")).await;
    daemon = daemon.restart().await;
    let ask = put(&path(1), "late").header(EPOCH, epoch(&before));
    check_refused(&unix.fetch(ask).await, 409, "purged");
    drop(daemon);
}

#[tokio::test]
async fn an_answer_that_a_purge_overtakes_is_refused() {
    let daemon = daemon().await;
    for unix in both(&daemon.socket()).await {
        let before = unix.fetch(get("/v1/epoch")).await;
        let asks = [
            put(&path(1), "").header(EPOCH, epoch(&before)),
            // Without one it is at least no younger than its first byte.
            put(&path(1), ""),
        ];
        for ask in asks {
            let (feed, sent) = unix.begin(ask);
            for _ in 0..64 {
                assert!(feed.send(vec![b'x'; 64 << 10]).await);
            }
            assert_eq!(unix.fetch(delete(&tenant(1))).await.status, 204);
            drop(feed);
            check_refused(&sent.answer().await.expect("an answer"), 409, "purged");
            check_miss(&unix.fetch(get(&path(1))).await);
        }
    }
}

/// A lookup that led after a wait was told the epoch from before its wait: when
/// there had been a purge meanwhile, its answer was refused.
#[tokio::test]
async fn a_leader_after_a_wait_knows_of_the_purge_meanwhile() {
    let daemon = daemon().await;
    for (unix, digest) in both(&daemon.socket()).await.into_iter().zip(1..) {
        let path = path(digest);
        let lead = get(&path).header("x-reflex-fill-id", "a");
        assert_eq!(fill(&unix.fetch(lead).await), "leader");
        let waiting = tokio::spawn({
            let ask = get(&path)
                .header("x-reflex-wait", WAIT)
                .header("x-reflex-fill-id", "b");
            let unix = unix.clone();
            async move { unix.fetch(ask).await }
        });
        daemon
            .until("it waits", |metrics| {
                metrics.sum("reflex_edge_waiting", &[]) > 0.5
            })
            .await;
        // A purge of another tenant ends nothing.
        assert_eq!(unix.fetch(delete(&tenant(5))).await.status, 204);
        assert!(!waiting.is_finished());
        assert_eq!(unix.fetch(delete(&tenant(1))).await.status, 204);
        // The answer of the first leader would be refused, so its fill has ended.
        let release = delete(&format!("{path}/fill")).header("x-reflex-fill-id", "a");
        assert_eq!(unix.fetch(release).await.status, 404);
        let leads = waiting.await.expect("an answer");
        assert_eq!(fill(&leads), "leader");
        let ask = put(&path, "{}").header(EPOCH, epoch(&leads));
        check_stored(&unix.fetch(ask).await);
    }
}

/// The epoch went up when a purge began. A reply with an answer that was about to be purged then had
/// the epoch after the purge. An edge with a copy never learnt that it was out of date.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_from_before_a_purge_has_the_epoch_after_it() {
    const TENANTS: u8 = 8;
    let daemon = daemon().await;
    let reader = Unix::http2(&daemon.socket()).await;
    let purger = Unix::http2(&daemon.socket()).await;
    // Epochs are opaque to users. This test knows that purges are counted behind the dot.
    let number = |answer: &Answer| {
        let count = epoch(answer).rsplit('.').next();
        count.and_then(|count| count.parse::<u64>().ok())
    };
    for round in 0..10 {
        for of in 1..=TENANTS {
            check_stored(&reader.fetch(put(&path_of(of, round), "{}")).await);
        }
        // Each waits for the disk, and for the ones before it.
        let mut purges = JoinSet::new();
        for of in 1..TENANTS {
            let purger = purger.clone();
            purges.spawn(async move { purger.fetch(delete(&tenant(of))).await });
        }
        let last = tokio::spawn({
            let purger = purger.clone();
            async move { purger.fetch(delete(&tenant(TENANTS))).await }
        });
        let mut found = None;
        loop {
            let answer = reader.fetch(get(&path_of(TENANTS, round))).await;
            if answer.status != 200 {
                break;
            }
            found = number(&answer);
        }
        let purged = last.await.expect("an answer");
        assert_eq!(purged.status, 204);
        assert!(found < number(&purged), "round {round}: {found:?}");
        while let Some(purge) = purges.join_next().await {
            assert_eq!(purge.expect("an answer").status, 204);
        }
    }
}

/// An edge drops only its copies of purged entries: a removal used to cost each
/// worker all that it had.
#[tokio::test]
async fn an_edge_that_tells_its_epoch_is_told_what_was_purged_since() {
    let mut daemon = daemon().await;
    for unix in both(&daemon.socket()).await {
        let told = async |known: &str| {
            let answer = unix.fetch(get("/v1/epoch").header(EPOCH, known)).await;
            let header = |name: &str| {
                let value = answer.headers.get(name)?;
                Some(value.to_str().expect("text").to_owned())
            };
            let since = header("x-reflex-purged-since");
            assert!(since.is_none_or(|since| since == known));
            header("x-reflex-purged")
        };
        let start = unix.fetch(get("/v1/epoch")).await;
        let start = epoch(&start).to_owned();
        assert_eq!(told(&start).await, None, "nothing was purged");
        // One that is not there, twice.
        for _ in 0..2 {
            unix.fetch(delete(&path(7))).await;
        }
        let digest = format!("digest={:064x}", 7);
        assert_eq!(told(&start).await, Some(digest.clone()));
        let middle = unix.fetch(get(&path(1))).await;
        let middle = epoch(&middle).to_owned();
        assert_eq!(unix.fetch(delete(&tenant(9))).await.status, 204);
        let nine = format!("tenant={}", "09".repeat(32));
        assert_eq!(told(&start).await, Some(format!("{digest}, {nine}")));
        assert_eq!(told(&middle).await, Some(nine.clone()));
        // Each reply says so, also one that stores.
        let stored = put(&path(1), "{}").header(EPOCH, &middle);
        let stored = unix.fetch(stored).await;
        check_stored(&stored);
        assert_eq!(stored.header("x-reflex-purged"), nine);
        // Whatever is not an epoch of this daemon is no beginning.
        for nonsense in ["", "0", "1.0", "never", &format!("{middle} ")] {
            if nonsense.trim() != middle {
                assert_eq!(told(nonsense).await, None, "{nonsense:?}");
            }
        }
        // Too many, or everything, are not told one by one.
        for number in 100..170 {
            unix.fetch(delete(&path(number))).await;
        }
        assert_eq!(told(&middle).await, None);
        let late = unix.fetch(get("/v1/epoch")).await;
        let late = epoch(&late).to_owned();
        assert_eq!(unix.fetch(delete("/v1/entries")).await.status, 204);
        assert_eq!(told(&late).await, None);
    }
    let unix = Unix::http1(&daemon.socket());
    let before = unix.fetch(get("/v1/epoch")).await;
    let before = epoch(&before).to_owned();
    daemon = daemon.restart().await;
    let after = unix.fetch(get("/v1/epoch").header(EPOCH, &before)).await;
    assert!(!after.headers.contains_key("x-reflex-purged-since"));
    drop(daemon);
}

/// An edge with a copy of an answer that was asked for anew went on serving it.
#[tokio::test]
async fn what_was_replaced_is_told_to_edges_and_refuses_no_insert() {
    const MANY: u32 = 150;
    let daemon = daemon().await;
    for unix in both(&daemon.socket()).await {
        unix.fetch(delete("/v1/entries")).await;
        let start = unix.fetch(get("/v1/epoch")).await;
        let start = epoch(&start).to_owned();
        // A new entry replaces nothing.
        for number in 0..MANY {
            check_stored(&unix.fetch(put(&path(number), "old")).await);
        }
        assert_eq!(epoch(&unix.fetch(get("/v1/epoch")).await), start);
        for number in 0..MANY {
            let known = put(&path(number), "new").header(EPOCH, &start);
            check_stored(&unix.fetch(known).await);
        }
        // An answer asked for before that may still be stored: it was no purge.
        let late = put(&path(0), "late").header(EPOCH, &start);
        check_stored(&unix.fetch(late).await);
        // More than one reply lists; none of the replies reports a purge of everything.
        let mut known = start.clone();
        let mut told = Vec::new();
        loop {
            let ask = get("/v1/epoch").header(EPOCH, &known);
            let answer = unix.fetch(ask).await;
            if epoch(&answer) == known {
                break;
            }
            assert_eq!(answer.header("x-reflex-purged-since"), known);
            let purged = answer.header("x-reflex-purged");
            let parts: Vec<_> = purged.split(", ").map(str::to_owned).collect();
            assert!(parts.len() <= 64);
            told.extend(parts);
            known = epoch(&answer).to_owned();
        }
        for number in 0..MANY {
            let digest = format!("digest={number:064x}");
            assert!(told.contains(&digest), "{number}");
        }
        assert_eq!(told.len(), MANY as usize + 1);
        // A lookup that tells of some is of no older epoch than it says.
        let found = unix.fetch(get(&path(1)).header(EPOCH, &start)).await;
        check_found(&found, b"new");
        assert_ne!(epoch(&found), known);
        assert_eq!(found.header("x-reflex-purged-since"), start);
    }
}

/// A client of the reverse proxy may ask anew, too.
#[tokio::test]
async fn a_refresh_through_the_reverse_proxy_is_told_to_edges() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url()).edge_socket(true).start().await;
    let unix = Unix::http1(&edge.socket());
    for (number, ask) in [Ask::chat("refreshed"), Ask::stream("refreshed")]
        .into_iter()
        .enumerate()
    {
        let stored = 2 * number as u32;
        edge.client.fetch(ask.clone()).await;
        edge.recorded(stored + 1, 0).await;
        let known = unix.fetch(get("/v1/epoch")).await;
        let known = epoch(&known).to_owned();
        edge.client
            .fetch(ask.header("cache-control", "no-cache"))
            .await;
        edge.recorded(stored + 2, 0).await;
        let told = unix.fetch(get("/v1/epoch").header(EPOCH, &known)).await;
        assert_eq!(told.header("x-reflex-purged-since"), known);
        let purged = told.header("x-reflex-purged");
        let digest = purged.strip_prefix("digest=");
        assert!(digest.is_some_and(|digest| digest.len() == 64), "{purged}");
    }
}
