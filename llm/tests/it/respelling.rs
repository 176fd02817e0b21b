//! Random bodies: which spellings are equal, which changes count, and what is JSON at all.

use reflex_llm::{Bypass, Classified};

use crate::random::{Json, Random};
use crate::request::{chat, differ, same};

/// A body whose top level holds no name with a meaning.
fn spelled(json: &Json, random: &mut Random) -> String {
    let mut body = String::from("{\"x\":");
    json.spell(random, &mut body);
    body.push('}');
    body
}

#[test]
fn another_spelling_is_the_same_request() {
    let mut random = Random(1);
    for _ in 0..3_000 {
        let json = Json::random(&mut random, 4);
        let one = spelled(&json, &mut random);
        let other = spelled(&json, &mut random);
        same(&chat().body(one), &chat().body(other));
    }
}

#[test]
fn another_value_anywhere_is_another_request() {
    let mut random = Random(2);
    let mut changed = 0;
    while changed < 3_000 {
        let json = Json::random(&mut random, 4);
        let mut other = json.clone();
        let mut at = random.below(other.count());
        *other.nth(&mut at).unwrap() = Json::random(&mut random, 2);
        if json != other {
            let one = spelled(&json, &mut random);
            differ(
                &chat().body(one),
                &chat().body(spelled(&other, &mut random)),
            );
            changed += 1;
        }
    }
}

/// Our reader takes what `serde_json` takes, and refuses what it refuses, but for keys that come
/// twice, of which `serde_json` keeps the last.
#[test]
fn json_is_what_serde_json_takes_for_json() {
    let mut random = Random(3);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let json = Json::random(&mut random, 3);
        let mut body = spelled(&json, &mut random).into_bytes();
        for _ in 0..random.below(3) {
            mutate(&mut body, &mut random);
        }
        let serde = serde_json::from_slice::<serde_json::Value>(&body);
        if let Err(error) = &serde
            && error.to_string().starts_with("number out of range")
        {
            // It makes a number of it; our reader keeps the spelling.
            continue;
        }
        match chat().body(&body).classify() {
            Classified::Bypass(Bypass::DuplicateKey) => continue,
            Classified::Bypass(
                Bypass::NotJson
                | Bypass::TrailingData
                | Bypass::NotUtf8
                | Bypass::LoneSurrogate
                | Bypass::ByteOrderMark,
            ) => {
                assert!(serde.is_err(), "{}", body.escape_ascii());
                refused += 1;
            }
            _ => {
                assert!(serde.is_ok(), "{}: {serde:?}", body.escape_ascii());
                taken += 1;
            }
        }
    }
    assert!(taken > 5_000 && refused > 5_000, "{taken} and {refused}");
}

fn mutate(body: &mut Vec<u8>, random: &mut Random) {
    const BYTES: &[u8] = b"{}[]:,\"\\u0d19-.eE+ \n\x00\x1f\x7f\x80\xc3\xef\xffntf/";
    let at = random.below(body.len() + 1);
    match random.below(4) {
        0 => body.insert(at, random.pick(BYTES)),
        1 if at < body.len() => body[at] = random.pick(BYTES),
        2 if at < body.len() => drop(body.remove(at)),
        _ => body.truncate(at),
    }
}
