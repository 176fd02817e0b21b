//! A body with several readers: what each reader gets, and which bytes are kept meanwhile.

use super::*;
use futures_util::stream;
use http_body_util::StreamBody;

/// A body of these parts, all of which the provider has sent.
fn body(parts: &[&'static str]) -> BoxBody {
    let frame = |part: &&'static str| Ok(Frame::data(Bytes::from_static(part.as_bytes())));
    let frames: Vec<_> = parts.iter().map(frame).collect();
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

fn share(parts: &[&'static str], bytes_max: usize, budget: &Arc<Budget>) -> Arc<Shared> {
    let head = (StatusCode::OK, HeaderMap::new());
    Shared::new(head, body(parts), None, bytes_max, budget)
}

fn roomy() -> Arc<Budget> {
    Budget::new(1 << 20)
}

fn follow(shared: &Arc<Shared>) -> BoxBody {
    shared.follower().expect("it may be joined").body
}

/// The reader's bytes now: `-` if it has to wait, `!` if it is cut, nothing at the end.
fn read(body: &mut BoxBody) -> String {
    text(Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())))
}

fn text(polled: Poll<Option<Result<Frame<Bytes>, Error>>>) -> String {
    match polled {
        Poll::Pending => "-".into(),
        Poll::Ready(None) => String::new(),
        Poll::Ready(Some(Err(_))) => "!".into(),
        Poll::Ready(Some(Ok(frame))) => {
            let data = frame.into_data().expect("data");
            String::from_utf8(data.to_vec()).expect("text")
        }
    }
}

/// The reader's next bytes, waiting for them.
async fn next(body: &mut BoxBody) -> String {
    let frame = tokio::time::timeout(Duration::from_secs(60), body.frame());
    text(Poll::Ready(frame.await.expect("nothing for a minute")))
}

#[test]
fn each_reader_reads_everything_whichever_polls() {
    let shared = share(&["one", "two", "six"], 100, &roomy());
    let (mut leader, mut follower) = (shared.leader(), follow(&shared));
    assert_eq!([read(&mut leader), read(&mut leader)], ["one", "two"]);
    // The bytes that came meanwhile, in one piece.
    for part in ["onetwo", "six", ""] {
        assert_eq!(read(&mut follower), part);
    }
    assert!(!leader.is_end_stream());
    assert_eq!(read(&mut leader), "six");
    assert!(leader.is_end_stream());
    assert_eq!(read(&mut leader), "");
    assert_eq!(read(&mut follow(&shared)), "onetwosix");
}

#[test]
fn the_length_is_known_and_what_is_left_of_it() {
    let head = (StatusCode::OK, HeaderMap::new());
    let whole = http_body_util::Full::new(Bytes::from_static(b"abcdef"));
    let inner = whole.map_err(Error::from).boxed_unsync();
    let shared = Shared::new(head, inner, None, 100, &roomy());
    let (mut leader, follower) = (shared.leader(), follow(&shared));
    assert_eq!(leader.size_hint().exact(), Some(6));
    assert_eq!(read(&mut leader), "abcdef");
    assert_eq!(leader.size_hint().exact(), Some(0));
    assert_eq!(follower.size_hint().exact(), Some(6));
}

/// It held up all others as soon as the body was longer than the kept part.
#[test]
fn a_leader_that_reads_nothing_holds_up_no_follower() {
    let shared = share(&["aaaa", "bbbb", "cccc", "dddd"], 4, &roomy());
    let (mut leader, mut follower) = (shared.leader(), follow(&shared));
    drop(shared);
    for part in ["aaaa", "bbbb", "cccc", "dddd", ""] {
        assert_eq!(read(&mut follower), part);
    }
    for part in ["aaaabbbbccccdddd", ""] {
        assert_eq!(read(&mut leader), part);
    }
}

/// It was cut as soon as the body was longer than the kept part.
#[test]
fn a_follower_that_reads_slowly_is_neither_cut_nor_waited_for() {
    let shared = share(&["aaaa", "bbbb", "cccc"], 4, &roomy());
    let (mut leader, mut follower) = (shared.leader(), follow(&shared));
    assert_eq!(read(&mut follower), "aaaa");
    drop(shared);
    for part in ["aaaa", "bbbb", "cccc", ""] {
        assert_eq!(read(&mut leader), part);
    }
    for part in ["bbbbcccc", ""] {
        assert_eq!(read(&mut follower), part);
    }
}

/// A request that has sent nothing yet can still ask the provider itself.
#[test]
fn a_body_too_long_to_be_kept_is_joined_by_no_request() {
    let shared = share(&["aaaa", "bbbb"], 4, &roomy());
    let mut leader = shared.leader();
    assert_eq!(read(&mut leader), "aaaa");
    let mut early = follow(&shared);
    assert_eq!(read(&mut leader), "bbbb");
    assert!(shared.follower().is_none());
    for part in ["aaaabbbb", ""] {
        assert_eq!(read(&mut early), part);
    }
}

#[test]
fn what_no_other_reader_can_read_is_not_kept() {
    let budget = roomy();
    let shared = share(&["aaaa", "bbbb", "cccc"], 100, &budget);
    let mut leader = shared.leader();
    let mut follower = follow(&shared);
    assert_eq!(read(&mut leader), "aaaa");
    assert_eq!(budget.held(), 4);
    drop(shared);
    // Both have read it, and no other can join.
    assert_eq!(read(&mut follower), "aaaa");
    assert_eq!(budget.held(), 0);
    assert_eq!(read(&mut leader), "bbbb");
    assert_eq!(budget.held(), 4);
    drop(follower);
    assert_eq!(read(&mut leader), "cccc");
    assert_eq!(budget.held(), 0);
}

/// After a good answer has just ended, or an error, every follower must get its copy.
#[test]
fn what_followers_have_not_joined_yet_is_kept() {
    let budget = roomy();
    let shared = share(&["aaaa", "bbbb"], 100, &budget);
    let mut leader = shared.leader();
    for part in ["aaaa", "bbbb", ""] {
        assert_eq!(read(&mut leader), part);
    }
    drop(leader);
    assert_eq!(read(&mut follow(&shared)), "aaaabbbb");
    drop(shared);
    assert_eq!(budget.held(), 0);
}

#[tokio::test]
async fn without_memory_the_provider_is_read_at_the_slowest_pace() {
    let shared = share(&["aaaa", "bbbb", "cccc"], 100, &Budget::new(0));
    let (mut leader, mut follower) = (shared.leader(), follow(&shared));
    drop(shared);
    assert_eq!([read(&mut leader), read(&mut leader)], ["aaaa", "-"]);
    assert_eq!(next(&mut follower).await, "aaaa");
    // It goes on as soon as no reader is behind.
    assert_eq!(next(&mut leader).await, "bbbb");
    drop(leader);
    for part in ["bbbb", "cccc", ""] {
        assert_eq!(next(&mut follower).await, part);
    }
}

#[tokio::test]
async fn readers_go_on_when_others_give_memory_back() {
    let budget = Budget::new(2 * FRAME_BYTES as u64);
    let shared = share(&["aaaa", "bbbb"], 100, &budget);
    let (mut leader, follower) = (shared.leader(), follow(&shared));
    drop(shared);
    let mut other = budget.reserve();
    assert!(other.grow(2 * FRAME_BYTES - 4));
    assert_eq!([read(&mut leader), read(&mut leader)], ["aaaa", "-"]);
    drop(other);
    assert_eq!(next(&mut leader).await, "bbbb");
    drop(follower);
}

#[tokio::test]
async fn without_memory_a_reader_that_takes_nothing_is_cut() {
    let mut shared = share(&["aaaa", "bbbb", "cccc"], 100, &Budget::new(0));
    let only = Arc::get_mut(&mut shared).expect("no reader yet");
    only.behind_max = Duration::from_millis(1);
    let (mut leader, mut follower) = (shared.leader(), follow(&shared));
    assert_eq!(next(&mut leader).await, "aaaa");
    assert_eq!(next(&mut follower).await, "aaaa");
    for part in ["bbbb", "cccc", ""] {
        assert_eq!(next(&mut follower).await, part);
    }
    assert!(shared.follower().is_none());
    assert_eq!([read(&mut leader), read(&mut leader)], ["!", ""]);
    drop(leader);
    assert_eq!(shared.lock().places.len(), 1);
    drop(follower);
    assert_eq!(shared.lock().places.len(), 0);
}

/// A frame of a byte cost 56 bytes beside it.
#[test]
fn frames_of_one_byte_cost_what_they_are_long() {
    let parts = vec!["x"; 1000];
    let budget = roomy();
    let shared = share(&parts, 10_000, &budget);
    let (mut leader, mut follower) = (shared.leader(), follow(&shared));
    while !read(&mut leader).is_empty() {}
    assert_eq!(budget.held(), 1000);
    assert_eq!(read(&mut follower), "x".repeat(1000));
}

/// Many readers of one body, of which a few leave on the way.
#[tokio::test]
async fn a_herd_reads_one_body_to_its_end() {
    let (sender, mut frames) = tokio::sync::mpsc::channel(1);
    let frames = stream::poll_fn(move |cx| frames.poll_recv(cx));
    let inner = StreamBody::new(frames).boxed_unsync();
    let head = (StatusCode::OK, HeaderMap::new());
    let shared = Shared::new(head, inner, None, 1 << 20, &roomy());
    let mut herd = vec![tokio::spawn(shared.leader().collect())];
    herd.extend((0..200).map(|_| tokio::spawn(follow(&shared).collect())));
    drop(shared);
    for number in 0..100_u8 {
        let frame = Frame::data(Bytes::from(vec![number; 10]));
        assert!(sender.send(Ok(frame)).await.is_ok());
        if number % 10 == 0 {
            herd.remove(0).abort();
        }
    }
    drop(sender);
    for reader in herd {
        let read = tokio::time::timeout(Duration::from_secs(60), reader).await;
        let read = read.expect("in time").expect("no panic").expect("a body");
        let whole = read.to_bytes();
        assert!((0..1000).all(|at| usize::from(whole[at]) == at / 10));
        assert_eq!(whole.len(), 1000);
    }
}
