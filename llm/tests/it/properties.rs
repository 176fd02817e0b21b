//! Properties of any request: a part that may change an answer changes the key, no other part does.

use reflex_llm::{Bypass, Classified, Key};

use crate::random::{Json, Random};
use crate::request::{Request, differ, many_values_change_nothing, same};
use crate::valid::{ALL, Valid};

/// Requests of each API.
const REQUESTS: usize = 1_500;

fn key(request: &Request) -> Option<Key> {
    match request.classify() {
        Classified::Cacheable(exchange) => Some(exchange.key),
        Classified::Bypass(_) => None,
    }
}

fn each(seed: u64, mut check: impl FnMut(&Valid, Json, &mut Random)) {
    for (nth, valid) in ALL.iter().enumerate() {
        let mut random = Random(seed << 8 | nth as u64);
        for _ in 0..REQUESTS {
            let body = valid.body(&mut random);
            check(valid, body, &mut random);
        }
    }
}

#[test]
fn keys_in_another_order_and_other_white_space_are_the_same_request() {
    each(11, |valid, body, random| {
        let one = valid.request(&body, random);
        let other = valid.request(&body, random);
        assert_eq!(one.classify(), other.classify(), "{}", valid.name);
    });
}

#[test]
fn a_request_of_more_values_than_are_listed_is_judged_as_any_other() {
    each(15, |valid, body, random| {
        // Reading so many takes a while.
        if random.below(10) == 0 {
            many_values_change_nothing(&valid.request(&body, random));
        }
    });
}

/// Some mutations make a request that bypasses, which is always right; most must not.
#[test]
fn a_mutation_changes_the_key_unless_it_is_on_the_short_list() {
    let (mut changed, mut kept) = ([0; ALL.len()], [0; ALL.len()]);
    each(12, |valid, body, random| {
        let mut other = body.clone();
        for _ in 0..=random.below(2) {
            other.mutate(random);
        }
        let one = valid.request(&body, random);
        let two = valid.request(&other, random);
        let (Some(a), Some(b)) = (key(&one), key(&two)) else {
            return;
        };
        let same = valid.counting(&body) == valid.counting(&other);
        let counts = if same { &mut kept } else { &mut changed };
        let nth = ALL.iter().position(|other| other.name == valid.name);
        counts[nth.unwrap()] += 1;
        assert_eq!(
            a == b,
            same,
            "{}:\n{}\n{}",
            valid.name,
            one.body.escape_ascii(),
            two.body.escape_ascii()
        );
    });
    for (nth, valid) in ALL.iter().enumerate() {
        assert!(changed[nth] > REQUESTS / 3, "{}: {changed:?}", valid.name);
        assert!(kept[nth] > REQUESTS / 100, "{}: {kept:?}", valid.name);
    }
}

#[test]
fn what_stands_around_the_body_is_in_the_key_of_every_api() {
    each(13, |valid, body, random| {
        if random.below(20) != 0 {
            return;
        }
        let one = valid.request(&body, random);
        let Some(key) = key(&one) else { return };
        let mark = if one.path.contains('?') { '&' } else { '?' };
        let elsewhere = Request {
            upstream: "https://elsewhere.example".into(),
            ..one.clone()
        };
        differ(&one, &elsewhere);
        differ(&one, &one.clone().path(&format!("/prefix{}", one.path)));
        differ(&one, &one.clone().path(&format!("{}{mark}a=b", one.path)));
        differ(&one, &one.clone().header("x-some-header", "a"));
        differ(&one, &one.clone().header("authorization", "Bearer other"));
        same(&one, &one.clone().header("x-request-id", "a"));
        same(&one, &one.clone().header("x-reflex-ttl", "60"));
        let mut names: Vec<_> = one.headers.iter().map(|(name, _)| name.clone()).collect();
        names.push("x-goog-api-key".into());
        for name in names {
            let other = one.clone().header(&name, "another");
            assert_ne!(other.exchange().key, key, "{name}");
        }
    });
}

/// The bounds of what is read are those of `bodies.rs` for every API.
#[test]
fn every_api_reads_json_as_strictly() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for valid in &ALL {
        let mut random = Random(14);
        let body = Json::of(&serde_json::from_str(r#"{"store":false}"#).unwrap());
        let empty = valid.request(&body, &mut random);
        let with = |value: &str| empty.clone().body(r#"{"store":false}"#).fields(value);
        for (fields, expected) in [
            (r#""a":1,"a":1"#, Bypass::DuplicateKey),
            (r#""x":{"a":1,"\u0061":1}"#, Bypass::DuplicateKey),
            (r#""a":"\ud800""#, Bypass::LoneSurrogate),
            (r#""a":01"#, Bypass::NotJson),
            (r#""a":NaN"#, Bypass::NotJson),
            (&format!(r#""a":{}"#, deep(128)), Bypass::TooDeep),
        ] {
            assert_eq!(with(fields).bypass(), expected, "{}", valid.name);
        }
        with(&format!(r#""a":{}"#, deep(127))).exchange();
        let bytes = with(r#""a":1"#).body;
        for (body, expected) in [
            ([b"\xef\xbb\xbf", &*bytes].concat(), Bypass::ByteOrderMark),
            ([&*bytes, b"{}"].concat(), Bypass::TrailingData),
            ([b"[", &*bytes, b"]"].concat(), Bypass::NotObject),
            (bytes.to_ascii_uppercase(), Bypass::NotJson),
            ([b"{\"\xff\":1,", &bytes[1..]].concat(), Bypass::NotUtf8),
        ] {
            assert_eq!(empty.clone().body(body).bypass(), expected);
        }
        // Numbers are their spelling, however great.
        for (a, b) in [
            ("1", "1.0"),
            ("1e400", "1e401"),
            ("-0", "0"),
            ("100000000000000000000001", "100000000000000000000002"),
        ] {
            let number = |number: &str| with(&format!(r#""a":{number}"#));
            differ(&number(a), &number(b));
        }
        same(&with(r#""a":"\u00e9\/""#), &with(r#""a":"é/""#));
    }
}
