//! The provider's answer: which parts are kept, and the memory that it takes.

use super::*;

/// A request at the provider.
fn forwarded(play: &mut Play, ask: &Ask) -> Id {
    let id = play.asked(ask);
    play.provider(id);
    id
}

/// Nothing is kept, the reason is counted, and the daemon is told that nothing will come.
fn check_rejected(why: Rejected, answer: impl FnOnce(&mut Play, Id)) {
    let mut play = Play::with(r#""entry_bytes_max": 1000"#);
    let id = forwarded(&mut play, &Ask::chat("hello"));
    answer(&mut play, id);
    assert_eq!(play.rejected(why), 1, "{why}");
    play.settle();
    assert!(play.daemon.entries.is_empty() && play.daemon.fills.is_empty());
    play.leaves(id);
    let next = play.asks(&Ask::chat("hello"));
    play.held(next);
    play.ends();
}

#[test]
fn what_must_not_be_kept_is_not() {
    let whole = |status, content_type: &'static str, body: String| {
        move |play: &mut Play, id| {
            play.head(id, status, content_type);
            play.chunk(id, &body, true);
            assert_eq!(play.clients[&id].marked, Some(Status::Miss));
        }
    };
    const JSON: &str = "application/json";
    check_rejected(Rejected::Status, whole(500, JSON, json("hi")));
    check_rejected(Rejected::Status, whole(429, JSON, json("hi")));
    check_rejected(Rejected::ContentType, whole(200, "text/html", json("hi")));
    check_rejected(Rejected::NotJson, whole(200, JSON, "{".into()));
    let error = r#"{"error": {"message": "overloaded"}}"#;
    check_rejected(Rejected::Error, whole(200, JSON, error.into()));
    let length = json("hi").replace("stop", "length");
    check_rejected(Rejected::Length, whole(200, JSON, length));
    let filtered = json("hi").replace("stop", "content_filter");
    check_rejected(Rejected::FinishReason, whole(200, JSON, filtered));
    check_rejected(
        Rejected::TooLarge,
        whole(200, JSON, json(&"x".repeat(1000))),
    );
}

#[test]
fn what_does_not_arrive_whole_is_not_kept() {
    check_rejected(Rejected::Cut, |play, id| play.leaves_and_returns(id));
    check_rejected(Rejected::Cut, |play, id| {
        play.head(id, 200, "application/json");
        play.on(id, Event::Unread);
        play.chunk(id, &json("hi"), true);
    });
    check_rejected(Rejected::Cut, |play, id| {
        let length: &[(&str, &[u8])] = &[
            ("content-type", b"application/json"),
            ("content-length", b"999"),
        ];
        play.on(id, Event::IsProviders(true));
        play.on(id, Event::Head(200, length));
        play.chunk(id, &json("hi"), true);
    });
}

#[test]
fn a_stream_is_kept_byte_for_byte_however_it_is_cut() {
    let whole = sse("hi").concat();
    for size in [1, 7, 1000] {
        let mut play = Play::new();
        let id = forwarded(&mut play, &Ask::chat("hello").streamed());
        play.head(id, 200, "text/event-stream; charset=utf-8");
        for part in whole.as_bytes().chunks(size) {
            play.on(id, Event::Chunk(part, false));
        }
        play.chunk(id, "", true);
        let next = play.asks(&Ask::chat("hello").streamed());
        play.hit(next, &whole);
        play.ends();
    }
}

/// A page that has read the miss must be able to read the hit, and so must a follower. None of them
/// gets the cookie of another's exchange.
#[test]
fn the_head_of_a_hit_is_that_of_its_miss_but_for_what_belongs_to_the_exchange() {
    let sent: [(&str, &[u8]); 9] = [
        (":status", b"200"),
        ("content-type", b"application/json"),
        ("access-control-allow-origin", b"https://page.example"),
        ("vary", b"origin"),
        ("vary", b"accept-encoding"),
        ("cache-control", b"no-store"),
        ("content-md5", b"AAAA"),
        ("set-cookie", b"session=1"),
        ("x-request-id", b"req_1"),
    ];
    let kept = [
        ("content-type", "application/json"),
        ("access-control-allow-origin", "https://page.example"),
        ("vary", "origin"),
        ("vary", "accept-encoding"),
        ("cache-control", "no-store"),
        ("content-md5", "AAAA"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut play = Play::new();
    let id = forwarded(&mut play, &Ask::chat("hello"));
    let follower = play.asks(&Ask::chat("hello"));
    play.on(id, Event::IsProviders(true));
    play.on(id, Event::Head(200, &sent));
    play.chunk(id, &json("hi"), true);
    play.collapsed(follower, &json("hi"));
    assert_eq!(play.clients[&follower].head, kept);
    let next = play.asks(&Ask::chat("hello"));
    play.hit(next, &json("hi"));
    assert_eq!(play.clients[&next].head, kept);
    play.settle();
    play.ends();
}

#[test]
fn a_client_may_hang_up_at_the_terminal_event() {
    let mut play = Play::new();
    let id = forwarded(&mut play, &Ask::chat("hello").streamed());
    let follower = play.asks(&Ask::chat("hello").streamed());
    play.head(id, 200, "text/event-stream");
    let parts = sse("hi");
    play.chunk(id, &parts[0], false);
    play.chunk(id, &parts[1], false);
    play.leaves(id);
    play.collapsed(follower, &parts.concat());
    play.settle();
    assert_eq!(play.daemon.entries.len(), 1);
    play.ends();
}

#[test]
fn a_client_that_hangs_up_before_it_leaves_nothing_behind() {
    let mut play = Play::new();
    let id = forwarded(&mut play, &Ask::chat("hello").streamed());
    play.head(id, 200, "text/event-stream");
    play.chunk(id, &sse("hi")[0], false);
    play.leaves(id);
    play.settle();
    assert!(play.daemon.entries.is_empty() && play.daemon.fills.is_empty());
    assert_eq!(play.rejected(Rejected::Cut), 1);
    play.ends();
}

#[test]
fn recordings_together_stay_within_their_budget() {
    let mut play = Play::new();
    let first = forwarded(&mut play, &Ask::chat("hello"));
    let follower = play.asks(&Ask::chat("hello"));
    play.head(first, 200, "application/json");
    play.chunk(first, "{", false);
    // Other requests take all that is left, except one byte.
    let left = play.worker.shared().recording().left();
    assert!(play.worker.shared().recording().take(left - 1));
    play.chunk(first, "12", false);
    play.provider(follower);
    assert_eq!(play.counted("not_kept_total.memory"), 1);
    let recording = play.worker.shared().recording();
    assert_eq!(recording.left(), 2, "what it had taken is given back");
    recording.give_back(left - 1);
    play.settle();
    assert!(play.daemon.fills.is_empty());
    play.ends();
}

#[test]
fn inserts_together_stay_within_their_budget() {
    let mut play = Play::new();
    let first = forwarded(&mut play, &Ask::chat("hello"));
    let left = play.worker.shared().sending().left();
    assert!(play.worker.shared().sending().take(left));
    play.answers(first, &json("hi"));
    play.settle();
    assert_eq!(
        (play.counted("not_kept_total.busy"), play.counted("inserts")),
        (1, 0)
    );
    assert!(play.daemon.entries.is_empty() && play.daemon.fills.is_empty());
    play.worker.shared().sending().give_back(left);
    let next = play.asks(&Ask::chat("hello"));
    play.hit(next, &json("hi"));
    play.ends();
}

#[test]
fn a_stream_ends_with_its_connection_too() {
    let mut play = Play::new();
    let id = forwarded(&mut play, &Ask::chat("hello").streamed());
    play.streams(id, "hi");
    play.settle();
    assert_eq!(play.daemon.entries.len(), 1);
    play.ends();
}

/// An insert was counted when it was sent, and once more as a drop when it was refused.
#[test]
fn an_insert_counts_when_it_is_done() {
    let mut play = Play::new();
    let id = forwarded(&mut play, &Ask::chat("hello"));
    play.answers(id, &json("hi"));
    assert_eq!(play.counted("inserts"), 0);
    play.daemon.mood = Mood::Nonsense;
    play.settle();
    assert_eq!(
        (
            play.counted("inserts"),
            play.counted("not_kept_total.failed")
        ),
        (0, 1)
    );
    play.ends();
}

impl Play {
    /// The client hangs up in the middle of the answer; another takes its number.
    fn leaves_and_returns(&mut self, id: Id) {
        self.head(id, 200, "application/json");
        self.chunk(id, "{", false);
        self.leaves(id);
        let client = Client {
            saw: Saw::Provider,
            is_recorded: false,
            sent: Ask::chat("").head(),
            marked: None,
            head: Vec::new(),
        };
        self.clients.insert(id, client);
    }
}
