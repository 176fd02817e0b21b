//! How old an answer is when it comes, and until when it may be served: by its own statement, and
//! by its provider's headers, if they are obeyed.

use core::time::Duration;
use reflex_llm::{
    Api, Limits, ProviderControl, Recorder, Rejected, Representation, Shape, Stated, Term,
};

use crate::judging::{LIMITS, record};

const NOW_MS: u64 = 1_767_225_600_000;
const NOW: u64 = NOW_MS / 1000;

fn chat(representation: Representation, body: &str) -> Result<Stated, Rejected> {
    let shape = Shape::new(Api::ChatCompletions, representation);
    record(shape, LIMITS, [body.as_bytes()]).map(|kept| kept.stated)
}

/// The id of a spoken answer is named by the next request, until it expires at the provider.
#[test]
fn case_a_spoken_answer_whose_id_has_expired() {
    let audio = |expires: &str| {
        format!(
            r#"{{"choices":[{{"index":0,"message":{{"content":null,"audio":{{"id":"a","data":"AAAA","transcript":"x","expires_at":{expires}}}}},"finish_reason":"stop"}}]}}"#
        )
    };
    for (expires, expected) in [
        ("1767229200", Ok(Some(NOW + 3600))),
        ("1767229200.75", Ok(Some(NOW + 3600))),
        ("1767229200000", Ok(Some(NOW + 3600))),
        (r#""2026-01-01T01:00:00Z""#, Ok(Some(NOW + 3600))),
        (r#""2026-01-01T02:00:00.5+01:00""#, Ok(Some(NOW + 3600))),
        ("null", Ok(None)),
        (r#""soon""#, Err(Rejected::Expired)),
        ("-1", Err(Rejected::Expired)),
        ("{}", Err(Rejected::Expired)),
    ] {
        let json = audio(expires);
        let stated = chat(Representation::Json, &json).map(|stated| stated.expires_at);
        assert_eq!(stated, expected, "{expires}");
        let chunk = json.replace("message", "delta");
        let stream = format!("data: {chunk}\n\ndata: [DONE]\n\n");
        let stated = chat(Representation::Sse, &stream).map(|stated| stated.expires_at);
        assert_eq!(stated, expected, "{expires}");
    }
    // The earliest counts.
    let two = audio("1767229200").replace(
        r#""index":0"#,
        r#""index":0,"file":{"expires_at":1767225700}"#,
    );
    let stated = chat(Representation::Json, &two).expect("kept");
    assert_eq!(stated.expires_at, Some(NOW + 100));
}

#[test]
fn a_picture_behind_a_signed_link_is_kept_until_the_link_ends() {
    let body = r#"{"choices":[{"message":{"content":"","images":[{"type":"image_url","image_url":{"url":"https://oss.test/a.png?Expires=1767229200&Signature=s"}}]},"finish_reason":"stop"}]}"#;
    let stated = chat(Representation::Json, body).expect("kept");
    assert_eq!(stated.expires_at, Some(NOW + 3600));
}

#[test]
fn no_rule_makes_an_answer_outlive_what_it_states() {
    let day = Some(Duration::from_secs(86_400));
    let check =
        |stated: Stated, ttl: Option<Duration>, expected: Result<(u64, Option<u64>), Rejected>| {
            let term = stated.within(ttl, NOW_MS);
            let seconds = |term: Term| {
                let life = term.expires_at_ms.map(|end| (end - NOW_MS) / 1000);
                ((NOW_MS - term.stored_at_ms) / 1000, life)
            };
            assert_eq!(term.map(seconds), expected, "{stated:?} {ttl:?}");
            if let Ok(term) = term {
                let end = term.ttl_ms().map(|ttl| term.stored_at_ms + ttl);
                assert_eq!(end, term.expires_at_ms);
            }
        };
    let stated = Stated::default();
    check(stated, None, Ok((0, None)));
    check(stated, day, Ok((0, Some(86_400))));
    check(stated, Some(Duration::ZERO), Err(Rejected::Expired));
    // Two caches in a row do not add up.
    let aged = |age_seconds| Stated {
        age_seconds,
        ..stated
    };
    check(aged(400), None, Ok((400, None)));
    check(aged(400), day, Ok((400, Some(86_000))));
    check(aged(86_399), day, Ok((86_399, Some(1))));
    check(aged(86_400), day, Err(Rejected::Expired));
    let until = |at| Stated {
        expires_at: Some(at),
        ..stated
    };
    check(until(NOW + 60), None, Ok((0, Some(60))));
    check(until(NOW + 60), day, Ok((0, Some(60))));
    check(until(NOW + 100_000), day, Ok((0, Some(86_400))));
    check(until(NOW), day, Err(Rejected::Expired));
    check(until(0), None, Err(Rejected::Expired));
    let life = |life| Stated {
        life_seconds: Some(life),
        ..aged(400)
    };
    check(life(1000), None, Ok((400, Some(600))));
    check(life(400), None, Err(Rejected::Expired));
    // Numbers that overflow are the end of time.
    check(
        until(u64::MAX),
        None,
        Ok((0, Some((u64::MAX - NOW_MS) / 1000))),
    );
}

fn head(control: ProviderControl, headers: &[(&str, &[u8])]) -> Result<Stated, Rejected> {
    let limits = Limits {
        provider_control: control,
        ..LIMITS
    };
    let shape = Shape::new(Api::ChatCompletions, Representation::Json);
    let mut recorder = Recorder::new(shape, limits);
    let json: (&str, &[u8]) = ("content-type", b"application/json");
    recorder.head(200, &[&[json], headers].concat())?;
    recorder.feed(crate::answers::JSON);
    recorder.finish().map(|kept| kept.stated)
}

#[test]
fn an_answer_that_comes_from_a_cache_is_as_old_as_that_says() {
    let age = |ages: &[&str]| {
        let ages: Vec<(&str, &[u8])> = ages.iter().map(|age| ("age", age.as_bytes())).collect();
        head(ProviderControl::Ignore, &ages).map(|stated| stated.age_seconds)
    };
    assert_eq!(age(&[]), Ok(0));
    assert_eq!(age(&["0"]), Ok(0));
    assert_eq!(age(&[" 17 "]), Ok(17));
    assert_eq!(age(&["17", "23"]), Ok(23));
    assert_eq!(age(&["23, 17"]), Ok(23));
    assert_eq!(age(&["99999999999999999999"]), Ok(1 << 31));
    // An unreadable age may be any age.
    for garbage in ["", "-1", "1.5", "soon", "17,", "1 7"] {
        assert_eq!(age(&[garbage]), Err(Rejected::Expired), "{garbage:?}");
    }
}

#[test]
fn what_the_provider_says_of_caches_counts_where_it_is_obeyed() {
    let check = |name: &str, value: &str, expected: Result<Option<u64>, Rejected>| {
        let header = [(name, value.as_bytes())];
        let ignored = head(ProviderControl::Ignore, &header);
        assert_eq!(ignored, Ok(Stated::default()), "{name}: {value}");
        let obeyed = head(ProviderControl::Obey, &header);
        let life = obeyed.map(|stated| stated.life_seconds);
        assert_eq!(life, expected, "{name}: {value}");
    };
    let no = Err(Rejected::ProviderControl);
    check("cache-control", "no-store", no);
    check("cache-control", "No-Cache", no);
    check("cache-control", "private, max-age=60", no);
    check("cache-control", "no-cache=\"set-cookie\"", no);
    check("cache-control", "max-age=0", no);
    check("cache-control", "max-age=soon", no);
    check("cache-control", "max-age=60, s-maxage=0", no);
    check("cache-control", "x=\"no end", no);
    check("cache-control", "max-age=60", Ok(Some(60)));
    check("cache-control", "max-age=60, s-maxage=600", Ok(Some(600)));
    check("cache-control", "max-age=60, max-age=30", Ok(Some(30)));
    check("cache-control", "public", Ok(None));
    check("cache-control", "public, must-revalidate", Ok(None));
    check("cache-control", "", Ok(None));
    check("vary", "*", no);
    check("vary", "Origin, *", no);
    check("vary", "Origin, Accept-Encoding", Ok(None));
    check("expires", "0", no);
    check("expires", "-1", no);

    let headers: [(&str, &[u8]); 2] = [("age", b"60"), ("cache-control", b"max-age=60")];
    assert_eq!(
        head(ProviderControl::Obey, &headers),
        Err(Rejected::ProviderControl)
    );
    let until: [(&str, &[u8]); 1] = [("expires", b"Thu, 01 Jan 2026 01:00:00 GMT")];
    let stated = head(ProviderControl::Obey, &until).expect("kept");
    assert_eq!(
        (stated.fresh_until, stated.expires_at),
        (Some(NOW + 3600), None)
    );
    // A life in seconds counts more than a date.
    let both = [until[0], ("cache-control", b"max-age=60")];
    let stated = head(ProviderControl::Obey, &both).expect("kept");
    assert_eq!((stated.life_seconds, stated.fresh_until), (Some(60), None));
}

/// An expired answer may stand in for a failing provider's, but not past the end that it states
/// itself, nor where the provider forbids it: `stale_if_error` used to know only when it expired.
#[test]
fn an_answer_that_has_ended_is_not_served_stale() {
    let hour = Some(Duration::from_secs(3600));
    let check = |stated: Stated, expires: Option<u64>, ends: Option<u64>| {
        let term = stated.within(hour, NOW_MS).expect("not over");
        let seconds = |at: Option<u64>| at.map(|at| (at - NOW_MS) / 1000);
        assert_eq!(
            (seconds(term.expires_at_ms), seconds(term.ends_at_ms)),
            (expires, ends),
            "{stated:?}"
        );
    };
    let stated = Stated::default();
    check(stated, Some(3600), None);
    let own = |seconds| Stated {
        expires_at: Some(NOW + seconds),
        ..stated
    };
    check(own(60), Some(60), Some(60));
    check(own(7200), Some(3600), Some(7200));
    let said = |value: &str| {
        let header: (&str, &[u8]) = ("cache-control", value.as_bytes());
        head(ProviderControl::Obey, &[header]).expect("kept")
    };
    // Stale on purpose, as the operator wants it.
    check(said("max-age=60"), Some(60), None);
    check(said("max-age=60, stale-if-error=9"), Some(60), None);
    for forbidden in [
        "max-age=60, must-revalidate",
        "max-age=60, Proxy-Revalidate",
        "s-maxage=60",
        "s-maxage=60, max-age=600",
    ] {
        check(said(forbidden), Some(60), Some(60));
    }
    check(said("must-revalidate"), Some(3600), Some(3600));
    let until: (&str, &[u8]) = ("expires", b"Thu, 01 Jan 2026 00:01:00 GMT");
    let soft = head(ProviderControl::Obey, &[until]).expect("kept");
    check(soft, Some(60), None);
    let hard = [until, ("cache-control", b"must-revalidate")];
    let hard = head(ProviderControl::Obey, &hard).expect("kept");
    check(hard, Some(60), Some(60));
    // Without obedience only the answer's own statement counts.
    let ignored = head(
        ProviderControl::Ignore,
        &[("cache-control", b"s-maxage=60")],
    );
    check(ignored.expect("kept"), Some(3600), None);
}
