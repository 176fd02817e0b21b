//! Which edge fetches an answer, which ones wait for it, and that no edge waits in vain.

use std::time::{Duration, Instant};

use reflex_tests::client::{Answer, Ask};
use reflex_tests::edge::Edge;
use reflex_tests::unix::Unix;
use reflex_tests::within;
use tokio::task::{JoinSet, yield_now};

use super::{
    WAIT, both, check_found, check_miss, check_refused, check_stored, completion, daemon, delete,
    fill, get, path, put,
};

/// What the filter's 98 identical requests are reduced to.
const CROWD: u32 = 98;

fn lead(path: &str, id: &str) -> Ask {
    get(path).header("x-reflex-fill-id", id)
}

fn wait(path: &str) -> Ask {
    get(path).header("x-reflex-wait", WAIT)
}

fn release(path: &str, id: &str) -> Ask {
    delete(&format!("{path}/fill")).header("x-reflex-fill-id", id)
}

#[track_caller]
fn check_fill(answer: &Answer, said: &str) {
    check_miss(answer);
    assert_eq!(fill(answer), said);
}

/// Waits until so many lookups wait for a fill.
async fn waiting(daemon: &Edge, count: u32) {
    let all = f64::from(count);
    daemon
        .until(&format!("{count} wait"), |metrics| {
            (metrics.sum("reflex_edge_waiting", &[]) - all).abs() < 0.5
        })
        .await;
}

/// Lookups that wait for the same fill, and do so already.
async fn crowd(daemon: &Edge, unix: &Unix, path: &str) -> JoinSet<Answer> {
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        let (unix, ask) = (unix.clone(), wait(path));
        crowd.spawn(async move { unix.fetch(ask).await });
    }
    waiting(daemon, CROWD).await;
    crowd
}

/// The answers to all of them.
async fn told(mut crowd: JoinSet<Answer>) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some(answer) = within("an answer to each follower", crowd.join_next()).await {
        answers.push(answer.expect("an answer"));
    }
    answers
}

#[tokio::test]
async fn the_first_leads_and_others_are_told_so() {
    let daemon = daemon().await;
    for (unix, digest) in both(&daemon.socket()).await.into_iter().zip(1..) {
        let path = path(digest);
        // A lookup that does not ask to lead does not lead, and learns of no leader.
        check_fill(&unix.fetch(get(&path)).await, "");
        check_fill(&unix.fetch(wait(&path)).await, "");
        check_fill(&unix.fetch(lead(&path, "a")).await, "leader");
        check_fill(&unix.fetch(lead(&path, "b")).await, "busy");
        check_fill(&unix.fetch(get(&path)).await, "");
        // A leader that asks again still leads.
        check_fill(&unix.fetch(lead(&path, "a")).await, "leader");
        // Another's fill cannot be given back.
        check_refused(&unix.fetch(release(&path, "b")).await, 404, "fill");
        check_fill(&unix.fetch(lead(&path, "b")).await, "busy");
        assert_eq!(unix.fetch(release(&path, "a")).await.status, 204);
        check_refused(&unix.fetch(release(&path, "a")).await, 404, "fill");
        check_fill(&unix.fetch(lead(&path, "b")).await, "leader");

        let stored = put(&path, "{}").header("x-reflex-fill-id", "b");
        check_stored(&unix.fetch(stored).await);
        let found = unix.fetch(lead(&path, "c")).await;
        check_found(&found, b"{}");
        assert_eq!(fill(&found), "");
        // The fill has ended with it, so that the next one may begin.
        assert_eq!(unix.fetch(delete(&path)).await.status, 204);
        check_fill(&unix.fetch(lead(&path, "c")).await, "leader");
    }
}

#[tokio::test]
async fn all_followers_get_what_the_leader_puts() {
    let daemon = daemon().await;
    for (unix, digest) in both(&daemon.socket()).await.into_iter().zip(1..) {
        let path = path(digest);
        check_fill(&unix.fetch(lead(&path, "a")).await, "leader");
        let crowd = crowd(&daemon, &unix, &path).await;
        let stored = put(&path, "the answer").header("x-reflex-fill-id", "a");
        check_stored(&unix.fetch(stored).await);
        for answer in told(crowd).await {
            check_found(&answer, b"the answer");
            assert_eq!(fill(&answer), "collapsed");
        }
        waiting(&daemon, 0).await;
    }
}

#[tokio::test]
async fn all_followers_go_on_when_there_will_be_no_answer() {
    let daemon = daemon().await;
    let refused = completion("hello").json().slice(1..);
    for (unix, digest) in both(&daemon.socket()).await.into_iter().zip(1..) {
        // The leader gives back.
        let path = path(digest);
        check_fill(&unix.fetch(lead(&path, "a")).await, "leader");
        let given_back = crowd(&daemon, &unix, &path).await;
        assert_eq!(unix.fetch(release(&path, "a")).await.status, 204);
        for answer in told(given_back).await {
            check_fill(&answer, "");
        }
        // What the leader puts is refused.
        check_fill(&unix.fetch(lead(&path, "b")).await, "leader");
        let disappointed = crowd(&daemon, &unix, &path).await;
        let ask = put(&path, refused.clone())
            .header("x-reflex-shape", "chat-completions")
            .header("x-reflex-fill-id", "b");
        assert_eq!(unix.fetch(ask).await.status, 422);
        for answer in told(disappointed).await {
            check_fill(&answer, "");
        }
        // Of the lookups that ask to lead then, one leads.
        check_fill(&unix.fetch(lead(&path, "c")).await, "leader");
        let mut next = JoinSet::new();
        for number in 0..CROWD {
            let ask = wait(&path).header("x-reflex-fill-id", &format!("next {number}"));
            let unix = unix.clone();
            next.spawn(async move { unix.fetch(ask).await });
        }
        waiting(&daemon, CROWD).await;
        assert_eq!(unix.fetch(release(&path, "c")).await.status, 204);
        let answers = told(next).await;
        let count = |said| answers.iter().filter(|answer| fill(answer) == said).count();
        assert_eq!((count("leader"), count("busy")), (1, CROWD as usize - 1));
    }
}

#[tokio::test]
async fn a_wait_is_as_long_as_it_was_asked_for() {
    let daemon = daemon().await;
    for (unix, digest) in both(&daemon.socket()).await.into_iter().zip(1..) {
        let path = path(digest);
        check_fill(&unix.fetch(lead(&path, "a")).await, "leader");
        for milliseconds in [0, 1, 150] {
            let began = Instant::now();
            let ask = get(&path).header("x-reflex-wait", &milliseconds.to_string());
            check_fill(&unix.fetch(ask).await, "busy");
            assert!(began.elapsed() >= Duration::from_millis(milliseconds));
        }
    }
}

#[tokio::test]
async fn a_follower_that_stops_waiting_costs_nothing() {
    let daemon = daemon().await;
    for (unix, digest) in both(&daemon.socket()).await.into_iter().zip(1..) {
        let path = path(digest);
        check_fill(&unix.fetch(lead(&path, "a")).await, "leader");
        for _ in 0..3 {
            drop(crowd(&daemon, &unix, &path).await);
            waiting(&daemon, 0).await;
        }
        // The connection and the fill are as they were.
        check_fill(&unix.fetch(lead(&path, "b")).await, "busy");
        let stored = put(&path, "{}").header("x-reflex-fill-id", "a");
        check_stored(&unix.fetch(stored).await);
        check_found(&unix.fetch(wait(&path)).await, b"{}");
    }
}

/// A paused daemon found many cancelled requests when it went on, and
/// closed the connection for them, as for an attack.
#[tokio::test]
async fn requests_that_were_taken_back_while_it_slept_cost_no_connection() {
    let daemon = daemon().await;
    let unix = Unix::http2(&daemon.socket()).await;
    check_stored(&unix.fetch(put(&path(1), "{}")).await);
    daemon.pause();
    let mut left = JoinSet::new();
    for _ in 0..500 {
        let unix = unix.clone();
        left.spawn(async move { unix.fetch(get(&path(1))).await });
    }
    // All run on this thread: after this they are on their way.
    for _ in 0..100 {
        yield_now().await;
    }
    drop(left);
    for _ in 0..100 {
        yield_now().await;
    }
    daemon.resume();
    check_found(&unix.fetch(get(&path(1))).await, b"{}");
}

/// A lookup that could wait did so for a fill, though the answer was stored already.
#[tokio::test]
async fn what_is_there_is_not_waited_for() {
    let daemon = daemon().await;
    for (unix, digest) in both(&daemon.socket()).await.into_iter().zip(1..) {
        let path = path(digest);
        check_fill(&unix.fetch(lead(&path, "a")).await, "leader");
        // An edge that does not wait has fetched it.
        check_stored(&unix.fetch(put(&path, "{}")).await);
        let began = Instant::now();
        let found = unix.fetch(wait(&path)).await;
        check_found(&found, b"{}");
        assert_eq!(fill(&found), "");
        // As long as it would have waited for the leader, which does not come back.
        assert!(began.elapsed() < Duration::from_millis(WAIT.parse().expect("a number")));
    }
}

/// Followers went on waiting for a leader when another edge had stored the answer.
#[tokio::test]
async fn an_answer_of_any_edge_ends_the_wait() {
    let daemon = daemon().await;
    for (unix, digest) in both(&daemon.socket()).await.into_iter().zip(1..) {
        let path = path(digest);
        check_fill(&unix.fetch(lead(&path, "a")).await, "leader");
        let crowd = crowd(&daemon, &unix, &path).await;
        check_stored(&unix.fetch(put(&path, "{}")).await);
        for answer in told(crowd).await {
            check_found(&answer, b"{}");
            assert_eq!(fill(&answer), "collapsed");
        }
        // The leader comes late, and its answer is stored.
        let stored = put(&path, "late").header("x-reflex-fill-id", "a");
        check_stored(&unix.fetch(stored).await);
        check_found(&unix.fetch(get(&path)).await, b"late");
    }
}

#[tokio::test]
async fn a_leader_that_hangs_up_while_it_puts_lets_all_go() {
    let daemon = daemon().await;
    for (unix, digest) in both(&daemon.socket()).await.into_iter().zip(1..) {
        for way in ["hangs up", "cuts", "hangs up at the end"] {
            let path = path(digest);
            check_fill(&unix.fetch(lead(&path, way)).await, "leader");
            let crowd = crowd(&daemon, &unix, &path).await;
            let (feed, sent) = unix.begin(put(&path, "").header("x-reflex-fill-id", way));
            // More than sockets hold: then the daemon has begun to read.
            for _ in 0..64 {
                assert!(feed.send(vec![b'x'; 64 << 10]).await);
            }
            match way {
                "cuts" => feed.cut().await,
                "hangs up" => {
                    drop(sent);
                    // Until it has no receiver: the body's end would be a proper one.
                    while feed.send(vec![b'x'; 64 << 10]).await {}
                }
                _ => {
                    drop(feed);
                    drop(sent);
                }
            }
            for answer in told(crowd).await {
                match way {
                    // The daemon may have had all of it.
                    "hangs up at the end" if answer.status == 200 => {}
                    _ => check_fill(&answer, ""),
                }
            }
        }
    }
}

/// A leader that hung up while its answer was being stored left its fill behind: all followers
/// waited to the end, and no other request could lead for two minutes.
#[tokio::test]
async fn a_leader_that_hangs_up_while_its_answer_is_stored_lets_all_go() {
    let daemon = daemon().await;
    let others = Unix::http1(&daemon.socket());
    for (unix, protocol) in both(&daemon.socket()).await.into_iter().zip([1, 2]) {
        for round in 0..60 {
            let path = path(protocol * 1000 + round);
            check_fill(&unix.fetch(lead(&path, "a")).await, "leader");
            let (feed, sent) = unix.begin(put(&path, "").header("x-reflex-fill-id", "a"));
            for _ in 0..16 {
                assert!(feed.send(vec![b'x'; 256 << 10]).await);
            }
            drop(feed);
            for _ in 0..round {
                others.fetch(get("/v1/epoch")).await;
            }
            drop(sent);
            let answer = others.fetch(wait(&path)).await;
            assert_ne!(fill(&answer), "busy", "round {round}");
        }
    }
}

/// A lookup found nothing, then the fill ended with an answer. The lookup then became the
/// leader of a second fill of a stored answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_fill_that_ends_well_is_not_begun_again() {
    let daemon = daemon().await;
    let [one, two] = [
        Unix::http2(&daemon.socket()).await,
        Unix::http2(&daemon.socket()).await,
    ];
    for digest in 0..2000 {
        let path = path(digest);
        check_fill(&one.fetch(lead(&path, "a")).await, "leader");
        let stored = put(&path, "{}").header("x-reflex-fill-id", "a");
        let (stored, other) = tokio::join!(one.fetch(stored), two.fetch(lead(&path, "b")));
        check_stored(&stored);
        assert_ne!(fill(&other), "leader", "round {digest}");
    }
}
