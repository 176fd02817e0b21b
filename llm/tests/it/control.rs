//! The client's instructions to the cache.

use reflex_llm::{Bypass, Classified, ClientControl, Control, Head, Policy, classify};

fn read(value: &str) -> Control {
    Control::of(&[("cache-control", value.as_bytes())])
}

fn nothing() -> Control {
    Control::default()
}

#[track_caller]
fn check(value: &str, expected: Control) {
    assert_eq!(read(value), expected);
}

#[test]
fn directives_are_understood_in_any_spelling() {
    let no_cache = Control {
        no_cache: true,
        ..nothing()
    };
    let max_age = |seconds| Control {
        max_age: Some(seconds),
        ..nothing()
    };
    check("", nothing());
    check("no-cache", no_cache);
    check(" NO-Cache ", no_cache);
    check(r#"no-cache="set-cookie""#, no_cache);
    check(
        "no-store",
        Control {
            no_store: true,
            ..nothing()
        },
    );
    check(
        "only-if-cached",
        Control {
            only_if_cached: true,
            ..nothing()
        },
    );
    check("max-age=60", max_age(60));
    check("max-age = 60", max_age(60));
    check(r#"Max-Age="60""#, max_age(60));
    check(
        "min-fresh=5",
        Control {
            min_fresh: Some(5),
            ..nothing()
        },
    );
    check(
        "max-age=60, only-if-cached,,no-cache",
        Control {
            max_age: Some(60),
            only_if_cached: true,
            no_cache: true,
            ..nothing()
        },
    );
    check("max-age=99999999999999999999999", max_age(1 << 31));
    // The strictest counts.
    check("max-age=60, max-age=30, max-age=90", max_age(30));
    check(
        "min-fresh=1,min-fresh=3,min-fresh=2",
        Control {
            min_fresh: Some(3),
            ..nothing()
        },
    );
}

#[test]
fn what_is_unknown_is_skipped() {
    for value in [
        "no-transform",
        "max-stale",
        "max-stale=5",
        "no-cachex",
        "x=no-cache",
        "=",
        ",,,",
        "public",
        r#"x="no-cache, no-store""#,
        r#"x="\", no-store""#,
    ] {
        check(value, nothing());
    }
    check(
        r#"x="a,b", no-store"#,
        Control {
            no_store: true,
            ..nothing()
        },
    );
}

#[test]
fn a_request_that_says_how_fresh_an_answer_has_to_be_gets_no_stale_one() {
    for value in ["no-cache", "max-age=99999", "min-fresh=0", "max-age=soon"] {
        assert!(!read(value).accepts_stale(), "{value}");
    }
    for value in ["", "only-if-cached", "max-stale"] {
        assert!(read(value).accepts_stale(), "{value}");
    }
}

#[test]
fn in_doubt_nothing_comes_from_the_cache() {
    for value in [
        "max-age",
        "max-age=",
        "max-age=x",
        "max-age=-1",
        "max-age=1.5",
        "max-age=0",
        "max-age=1 2",
        "min-fresh",
        "min-fresh=soon",
        r#"x="no-store"#,
        r#"max-age="5"#,
    ] {
        assert!(read(value).no_cache, "{value}");
        assert!(!read(value).accepts(0, None), "{value}");
    }
}

#[test]
fn every_header_counts_and_pragma_only_without() {
    let both = Control::of(&[
        ("cache-control", b"max-age=5"),
        ("cache-control", b"no-store"),
    ]);
    assert_eq!(
        both,
        Control {
            max_age: Some(5),
            no_store: true,
            ..nothing()
        }
    );
    assert!(Control::of(&[("pragma", b"no-cache")]).no_cache);
    assert!(Control::of(&[("pragma", b"x, No-Cache")]).no_cache);
    assert!(!Control::of(&[("pragma", b"no-cache"), ("cache-control", b"")]).no_cache);
}

#[test]
fn age_and_freshness_decide_what_is_served() {
    let check = |value: &str, age, fresh, expected| {
        assert_eq!(
            read(value).accepts(age, fresh),
            expected,
            "{value} {age} {fresh:?}"
        );
    };
    check("", u64::MAX, Some(0), true);
    check("max-age=60", 60, None, true);
    check("max-age=60", 61, None, false);
    check("min-fresh=60", 0, Some(60), true);
    check("min-fresh=60", 0, Some(59), false);
    check("min-fresh=60", 0, None, true);
    check("max-age=60, min-fresh=60", 61, Some(60), false);
    check("no-cache", 0, None, false);
    check("only-if-cached", 5, Some(1), true);
}

#[test]
fn case_array_input_gets_a_ttl_of_minus_one_or_ttl_cannot_be_disabled() {
    let of = |values: &[&str]| {
        let headers: Vec<(&str, &[u8])> = values
            .iter()
            .map(|value| ("x-reflex-ttl", value.as_bytes()))
            .collect();
        Control::of(&headers)
    };
    for (values, seconds) in [
        (&[][..], None),
        (&["60"], Some(60)),
        (&[" 060 "], Some(60)),
        (&["0"], Some(0)),
        (&["99999999999999999999999"], Some(1 << 31)),
        (&["60", "30"], Some(30)),
        (&["30", "60"], Some(30)),
        // A value that is no time keeps nothing: any other time would be a guess.
        (&["-1"], Some(0)),
        (&["1.5"], Some(0)),
        (&["60s"], Some(0)),
        (&["1, 2"], Some(0)),
        (&[""], Some(0)),
        (&["60", "x"], Some(0)),
    ] {
        let control = of(values);
        assert_eq!(control.ttl_seconds, seconds, "{values:?}");
        assert_eq!(control.keeps(), seconds != Some(0), "{values:?}");
        // It is about keeping new answers, not about stored ones.
        assert!(control.accepts(0, None) && !control.no_store && !control.no_cache);
    }
    assert!(!read("no-store").keeps());
}

/// The obeyed part of these headers, by the operator's setting.
fn obeyed(client_control: ClientControl, header: (&str, &str)) -> Classified {
    let headers: [(&str, &[u8]); 2] = [
        ("authorization", b"Bearer k"),
        (header.0, header.1.as_bytes()),
    ];
    let head = Head {
        method: "POST",
        upstream: "https://a.test",
        path: "/v1/chat/completions",
        headers: &headers,
    };
    let policy = Policy {
        client_control,
        ..Policy::default()
    };
    classify(&head, &policy, crate::request::CHAT.as_bytes())
}

#[test]
fn the_operator_says_what_counts() {
    let check = |obeys, header, expected: Control| match obeyed(obeys, header) {
        Classified::Cacheable(exchange) => assert_eq!(exchange.control, expected, "{header:?}"),
        bypass => panic!("{header:?}: {bypass:?}"),
    };
    let only = Control {
        only_if_cached: true,
        ..nothing()
    };
    let all = "only-if-cached, no-cache, max-age=0, min-fresh=9";
    check(ClientControl::NoRefresh, ("cache-control", all), only);
    check(ClientControl::NoRefresh, ("pragma", "no-cache"), nothing());
    let kept = Control {
        ttl_seconds: Some(7),
        ..nothing()
    };
    check(ClientControl::NoRefresh, ("x-reflex-ttl", "7"), kept);
    for header in [
        ("cache-control", all),
        ("cache-control", "no-store"),
        ("pragma", "no-cache"),
        ("x-reflex-ttl", "0"),
    ] {
        check(ClientControl::Ignore, header, nothing());
    }
    let unstored = obeyed(ClientControl::NoRefresh, ("cache-control", "no-store"));
    assert_eq!(unstored, Classified::Bypass(Bypass::NoStore));
}
