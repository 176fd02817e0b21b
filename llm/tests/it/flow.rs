//! The steps of a request through the cache.

use reflex_llm::flow::{Flow, LOOKS_MAX, is_failure};
use reflex_llm::{Control, Status, status};

/// A request with these headers.
fn flow(headers: &[(&str, &str)]) -> Flow {
    let headers: Vec<(&str, &[u8])> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_bytes()))
        .collect();
    Flow::of(&Control::of(&headers))
}

fn controlled(value: &str) -> Flow {
    flow(&[("cache-control", value)])
}

/// As with `x-reflex-ttl: 0`.
fn unkept() -> Flow {
    flow(&[("x-reflex-ttl", "0")])
}

#[test]
fn a_clients_control_decides_what_its_request_may_do() {
    #[track_caller]
    fn check(flow: Flow, expected: [bool; 4]) {
        let is = [flow.looks_up(), flow.joins(), flow.asks(), flow.keeps()];
        assert_eq!(is, expected, "looks up, joins, asks, keeps");
    }
    check(controlled(""), [true, true, true, true]);
    check(controlled("max-age=60"), [true, true, true, true]);
    // It refreshes the entry for others.
    check(controlled("no-cache"), [false, false, true, true]);
    check(controlled("max-age=soon"), [false, false, true, true]);
    check(controlled("only-if-cached"), [true, false, false, true]);
    let neither = "no-cache, only-if-cached";
    check(controlled(neither), [false, false, false, true]);
    check(unkept(), [true, false, true, false]);
    let forbidden = controlled("").kept_if(false);
    check(forbidden, [true, false, true, false]);
    check(controlled("").kept_if(true), [true, true, true, true]);
    // The operator's rule does not keep an answer that its client excludes.
    check(unkept().kept_if(true), [true, false, true, false]);
}

#[test]
fn a_request_looks_a_bounded_number_of_times_and_never_leads_without_a_look() {
    let looks = |flow: Flow| flow.looks().collect::<Vec<_>>();
    let all = looks(controlled(""));
    assert_eq!(all.len(), LOOKS_MAX);
    let (last, before) = all.split_last().unwrap();
    assert!(before.iter().all(|joins| *joins));
    assert!(!last, "a turn after the last look would lead without one");
    assert_eq!(looks(controlled("only-if-cached")), [false]);
    assert_eq!(looks(unkept()), [false]);
    assert!(looks(controlled("no-cache")).is_empty());
    assert!(looks(controlled("no-cache, only-if-cached")).is_empty());
}

#[test]
fn any_sample_will_do_only_where_the_provider_is_not_asked() {
    assert!(controlled("only-if-cached").takes_any_sample());
    for value in ["", "no-cache", "max-age=60", "no-cache, only-if-cached"] {
        assert!(!controlled(value).takes_any_sample(), "{value}");
    }
}

#[test]
fn the_provider_never_hears_of_our_header_and_compresses_only_what_is_not_kept() {
    #[track_caller]
    fn check(flow: Flow, is_part: bool, set: &[(&str, &str)]) {
        let edits = flow.edits(is_part);
        assert_eq!(edits.remove, ["x-reflex-ttl"]);
        assert_eq!(edits.set, set);
    }
    let identity = &[("accept-encoding", "identity")][..];
    check(controlled(""), false, identity);
    check(controlled("no-cache"), false, identity);
    check(controlled(""), true, identity);
    // Only this client reads it, and it has stated its encodings.
    check(unkept(), false, &[]);
    check(controlled("").kept_if(false), false, &[]);
    // Its vectors are joined with cached ones.
    check(unkept(), true, identity);
}

#[test]
fn a_stale_answer_replaces_only_a_failure_and_only_for_a_client_that_accepts_it() {
    for status in [200, 201, 304, 400, 401, 404, 408, 428, 430, 499, 600] {
        assert!(!is_failure(status), "{status}");
        assert!(!controlled("").serves_stale(Some(status)), "{status}");
    }
    for status in [429, 500, 502, 503, 504, 529, 599] {
        assert!(is_failure(status), "{status}");
        assert!(controlled("").serves_stale(Some(status)), "{status}");
        assert!(unkept().serves_stale(Some(status)), "{status}");
    }
    assert!(controlled("").serves_stale(None));
    for value in ["no-cache", "max-age=60", "min-fresh=0"] {
        assert!(!controlled(value).serves_stale(None), "{value}");
        assert!(!controlled(value).serves_stale(Some(503)), "{value}");
    }
}

#[test]
fn a_client_is_told_whether_it_asked_for_the_provider() {
    assert_eq!(controlled("").answered(), Status::Miss);
    assert_eq!(unkept().answered(), Status::Miss);
    assert_eq!(controlled("no-cache").answered(), Status::Refresh);
}

#[test]
fn each_answer_of_ours_has_both_statuses_and_its_age() {
    let headers = |status: Status, age| {
        let headers = status.headers(age);
        headers
            .map(|(name, value)| (name, value.into_owned()))
            .collect::<Vec<_>>()
    };
    let hit = Status::Hit {
        ttl_seconds: Some(5),
    };
    let expected = [
        ("x-reflex-status", "HIT_L1_EXACT"),
        ("cache-status", "reflex; hit; ttl=5"),
        ("age", "7"),
    ];
    let expected = expected.map(|(name, value)| (name, value.to_owned()));
    assert_eq!(headers(hit, Some(7)), expected);
    assert_eq!(headers(hit, None), expected[..2]);
    assert_eq!(status::AGE, "age");
}
