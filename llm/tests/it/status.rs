//! The status for the client, and the names that cross borders.

use reflex_llm::status::{cache_status_after, last_cache_status, with_number};
use reflex_llm::{Api, Bypass, Rejected, Representation, Shape, Status};

#[test]
fn a_number_is_written_as_formatting_writes_it_and_leaves_no_room() {
    for number in [0, 7, 10, 99, 3600, 1 << 32, u64::MAX] {
        let text = with_number("ttl=", number);
        assert_eq!(text, format!("ttl={number}"));
        assert_eq!(text.capacity(), text.len());
    }
}

#[test]
fn each_outcome_has_its_headers() {
    let check = |status: Status, short: &str, long: &str| {
        assert_eq!(
            (status.x_reflex_status(), &*status.cache_status()),
            (short, long)
        );
    };
    check(
        Status::Hit {
            ttl_seconds: Some(3540),
        },
        "HIT_L1_EXACT",
        "reflex; hit; ttl=3540",
    );
    check(
        Status::Hit { ttl_seconds: None },
        "HIT_L1_EXACT",
        "reflex; hit",
    );
    for (fwd_status, expired_seconds, long) in [
        (Some(503), 12, "reflex; fwd=stale; fwd-status=503; ttl=-12"),
        (Some(429), 0, "reflex; fwd=stale; fwd-status=429; ttl=0"),
        (None, 1, "reflex; fwd=stale; ttl=-1"),
    ] {
        let status = Status::Stale {
            fwd_status,
            expired_seconds,
        };
        check(status, "HIT_STALE", long);
    }
    check(Status::Miss, "MISS", "reflex; fwd=miss");
    check(Status::Collapsed, "MISS", "reflex; fwd=miss; collapsed");
    check(Status::Partial, "MISS", "reflex; fwd=partial");
    check(Status::Refresh, "MISS", "reflex; fwd=request");
    check(Status::Absent, "MISS", r#"reflex; detail="only-if-cached""#);
    check(
        Status::Bypass(Bypass::NoCredential),
        "BYPASS",
        r#"reflex; fwd=bypass; detail="no-credential""#,
    );
}

#[test]
fn shapes_and_reasons_have_names_that_lead_back() {
    for &api in Api::ALL {
        for representation in [Representation::Json, Representation::Sse] {
            let shape = Shape::new(api, representation);
            assert_eq!(Shape::from_token(shape.name()), Some(shape));
        }
    }
    let stream = Shape::new(Api::ChatCompletions, Representation::Sse);
    assert_eq!(stream.token(), "chat-completions+sse");
    let three = Shape {
        parts: Some(3),
        ..stream
    };
    assert_eq!(three.token(), "chat-completions+sse;parts=3");
    assert_eq!(three.name(), stream.name());
    assert_eq!(Shape::from_token(&three.token()), Some(three));
    for none in ["chat-completions ", "chat-completions;parts=", "x;parts=1"] {
        assert_eq!(Shape::from_token(none), None, "{none}");
    }
    for &rejected in Rejected::ALL {
        assert_eq!(Rejected::from_detail(rejected.detail()), Some(rejected));
    }
    for &bypass in Bypass::ALL {
        assert_eq!(Bypass::from_detail(bypass.detail()), Some(bypass));
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert!(
            bypass.detail().bytes().all(plain),
            "it stands in a quoted string"
        );
    }
}

/// RFC 9211 defines a list: the cache nearest the client stands last.
#[test]
fn what_others_say_of_their_caches_stays_and_ours_stands_last() {
    const OURS: &str = "reflex; fwd=miss";
    let check = |others: &[&[u8]], list: &str| {
        let said = cache_status_after(others.iter().copied(), OURS);
        assert_eq!(said, list, "{others:?}");
        assert_eq!(last_cache_status(&said), OURS, "{others:?}");
    };
    check(&[], OURS);
    check(&[b""], OURS);
    check(&[b"cdn; hit"], "cdn; hit, reflex; fwd=miss");
    check(
        &[b" a; hit ,b; fwd=miss ", b"\"c, d\"; hit"],
        "a; hit ,b; fwd=miss, \"c, d\"; hit, reflex; fwd=miss",
    );
    check(
        &[br#"a; detail="x\",y""#],
        r#"a; detail="x\",y", reflex; fwd=miss"#,
    );
    // One of ours in front of another.
    check(
        &[b"reflex; hit; ttl=9"],
        "reflex; hit; ttl=9, reflex; fwd=miss",
    );
    // No reader would find our part behind these.
    for broken in [
        &b"a; detail=\"x"[..],
        b"a; detail=\"x\\\"",
        b"a,",
        b"a; \xff",
        "a; detail=\"é\"".as_bytes(),
        b"a\x01",
        &[b'a'; 4097],
    ] {
        check(&[broken], OURS);
        check(&[b"b; hit", broken], OURS);
    }
    for (value, last) in [
        ("", ""),
        ("a", "a"),
        ("a, b; hit", "b; hit"),
        (r#"a; detail=", b""#, r#"a; detail=", b""#),
        (r#"a; detail=", b"#, ""),
        ("é, ü", "ü"),
    ] {
        assert_eq!(last_cache_status(value), last, "{value}");
    }
}
