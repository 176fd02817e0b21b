//! The spellings that an answer may have: JSON by its grammar. A replay has the same bytes, so a
//! client reads it like the miss.

use reflex_llm::{Api, Rejected, Representation, Shape};

use crate::judging::{Judged, LIMITS};

const CHAT: Judged = Judged(Api::ChatCompletions, LIMITS);

fn answer(text: &str) -> String {
    format!(r#"{{"choices":[{{"message":{{"content":"{text}"}},"finish_reason":"stop"}}]}}"#)
}

fn piece(text: &str, reason: &str) -> String {
    format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":{reason}}}]}}\n\n"
    )
}

/// A stream that splits an emoji: each half is in an event of its own, and a client in JavaScript
/// puts them together again.
#[test]
fn an_emoji_split_between_two_events_is_kept() {
    let stream = [
        &piece(r"\ud83d", "null"),
        &piece(r"\ude00", r#""stop""#),
        "data: [DONE]\n\n",
    ];
    CHAT.good_stream(&stream.map(str::to_owned).concat());
    for text in [
        r"\ud83d",
        r"\ude00",
        r"\ud83d\u0041",
        r"\ud83d\ud83d\ude00",
        r"\uDE00\uD83D",
        r"\ud83d\ude00",
        r"a\udfff\/",
    ] {
        assert_eq!(CHAT.json(&answer(text)), Ok(()), "{text}");
    }
    // An escape without its digits is no JSON at all.
    for text in [r"\ud8", r"\ud83d\u", r"\ud83d\u00g0", r"\x41"] {
        let verdict = CHAT.json(&answer(text));
        assert_eq!(verdict, Err(Rejected::NotJson), "{text}");
    }
    // The cost of such an answer is still read.
    let body = answer(r"\ud83d").replacen('{', r#"{"usage":{"total_tokens":3},"#, 1);
    let shape = Shape::new(Api::ChatCompletions, Representation::Json);
    let usage = shape.usage(body.as_bytes()).expect("it tells");
    assert_eq!(usage.total_tokens, 3);
}

/// Two keys that differ in their halves only are two keys.
#[test]
fn half_a_pair_in_a_key_is_a_key_of_its_own() {
    let with = |keys: &str| answer("x").replacen('{', &format!("{{{keys},"), 1);
    let two = with(r#""\ud83d":1,"\ud83e":2"#);
    assert_eq!(CHAT.json(&two), Ok(()));
    let twice = with(r#""\ud83d":1,"\uD83D":2"#);
    assert_eq!(CHAT.json(&twice), Err(Rejected::NotJson));
}

/// Readers differ in which of two counts, so the meaning of the body is uncertain.
#[test]
fn a_key_twice_is_not_kept() {
    let twice = answer("x").replace(r#""stop""#, r#""stop","finish_reason":"length""#);
    assert_eq!(CHAT.json(&twice), Err(Rejected::NotJson));
}

#[test]
fn a_byte_order_mark_before_an_answer_is_passed_over() {
    assert_eq!(CHAT.json(&format!("\u{feff}{}", answer("x"))), Ok(()));
    let two = format!("\u{feff}\u{feff}{}", answer("x"));
    assert_eq!(CHAT.json(&two), Err(Rejected::NotJson));
}

/// Bytes that are no UTF-8 show a broken text, other than half an escape: what a client makes of
/// them is its own replacement, and another try may be whole.
#[test]
fn bytes_that_are_no_text_are_not_kept() {
    let mut body = answer("x@y").into_bytes();
    let at = body
        .iter()
        .position(|&byte| byte == b'@')
        .expect("it is there");
    body[at] = 0xf0;
    let verdict = CHAT.record(Representation::Json, [&body[..]]);
    assert_eq!(verdict, Err(Rejected::NotJson));
}

#[test]
fn numbers_may_be_of_any_size() {
    for number in ["1e400", "-0.0", "123456789012345678901234567890", "1E-999"] {
        let body = answer("x").replacen('{', &format!("{{\"created\":{number},"), 1);
        assert_eq!(CHAT.json(&body), Ok(()), "{number}");
    }
    for number in ["NaN", "Infinity", "01", "1.", "+1"] {
        let body = answer("x").replacen('{', &format!("{{\"created\":{number},"), 1);
        assert_eq!(CHAT.json(&body), Err(Rejected::NotJson), "{number}");
    }
}
