//! Failures of other caches that their users reported, where they concern answers of any API.
//! Those that concern one part of this crate stand beside the tests of that part.

use std::collections::HashSet;

use reflex_llm::{Recorder, Rejected};

use crate::judging::LIMITS;
use crate::request::{chat, counts, differ};
use crate::samples::ALL;

#[test]
fn case_replay_is_one_aggregated_chunk() {
    for sample in &ALL {
        // `judge` compares the kept bytes with the sent ones.
        let bytes = sample.body.as_bytes();
        for size in [1, 7, 64, bytes.len()] {
            assert_eq!(sample.judge(bytes.chunks(size)), Ok(()), "{}", sample.shape);
        }
    }
}

#[test]
fn case_reasoning_content_or_usage_details_lost_on_a_hit() {
    for sample in &ALL {
        let mut recorder = Recorder::new(sample.shape(), LIMITS);
        let content_type: &[u8] = match sample.is_stream() {
            true => b"text/event-stream",
            false => b"application/json",
        };
        let headers: [(&str, &[u8]); 1] = [("content-type", content_type)];
        recorder.head(200, &headers).unwrap();
        recorder.feed(sample.body.as_bytes());
        let kept = recorder.finish().unwrap();
        assert_eq!(kept.body, sample.body.as_bytes());
        assert_eq!(kept.headers, [("content-type".into(), content_type.into())]);
        // So the tokens saved are those that were paid once.
        let usage = sample.shape().usage(&kept.body).unwrap();
        assert_eq!(usage.total_tokens, 8, "{}", sample.shape);
    }
}

/// The answer says `"hi"`, and its end is that quote.
#[test]
fn case_an_answer_ending_in_a_double_quote_comes_back_broken() {
    let speaking = ALL.iter().filter(|sample| sample.ending.is_some());
    for sample in speaking {
        assert!(sample.body.contains(r#"\"hi\"""#), "{}", sample.shape);
        for at in 0..sample.body.len() {
            let (head, tail) = sample.body.as_bytes().split_at(at);
            assert_eq!(sample.judge([head, tail]), Ok(()), "{}", sample.shape);
        }
    }
}

#[test]
fn case_invalid_sse_or_json_sent_to_a_client_that_asked_for_a_stream() {
    for sample in &ALL {
        for other in &ALL {
            let shape = sample.shape();
            let mut recorder = Recorder::new(shape, LIMITS);
            let content_type: &[u8] = match other.is_stream() {
                true => b"text/event-stream",
                false => b"application/json",
            };
            let head = recorder.head(200, &[("content-type", content_type)]);
            if sample.is_stream() != other.is_stream() {
                assert_eq!(head, Err(Rejected::ContentType));
            } else if sample.shape != other.shape {
                // The body of another API, under the right content type.
                recorder.feed(other.body.as_bytes());
                let related = |name: &str| {
                    let start = name.split(['-', '+']).next();
                    start.map(str::to_owned)
                };
                let verdict = recorder.finish();
                let may_be = related(sample.shape) == related(other.shape)
                    || sample.shape.contains("completions");
                assert!(
                    verdict.is_err() || may_be,
                    "{} as {}",
                    other.shape,
                    sample.shape
                );
            }
        }
        if sample.is_stream() {
            for (from, to) in [
                // Frames that are not JSON, or are none.
                ("data: {", "data: "),
                ("}\n", "\n"),
                ("\n\n", "\n"),
                ("data: ", ""),
                (":", ""),
            ] {
                let broken = sample.body.replace(from, to);
                assert!(sample.judge([broken.as_bytes()]).is_err(), "{broken}");
            }
        }
    }
}

#[test]
fn case_finish_reason_length_cached_by_any_api() {
    for sample in &ALL {
        let Some((good, short)) = sample.ending else {
            continue;
        };
        let body = sample.body.replace(good, short);
        assert_ne!(body, sample.body);
        let verdict = sample.judge([body.as_bytes()]);
        assert_eq!(verdict, Err(Rejected::Length), "{}", sample.shape);
        // And a reason that no list has.
        let body = sample.body.replace(good, r#""something_new""#);
        assert!(sample.judge([body.as_bytes()]).is_err(), "{}", sample.shape);
    }
}

#[test]
fn case_an_error_text_cached_past_the_outage_by_any_api() {
    let errors = [
        r#"{"error":{"message":"overloaded"}}"#,
        r#"{"error":"overloaded"}"#,
        r#"{"type":"error","error":{"type":"overloaded_error"}}"#,
        r#"[{"error":{"code":503,"status":"UNAVAILABLE"}}]"#,
        r#"{"detail":"overloaded"}"#,
        r#""overloaded""#,
        "overloaded",
        "<html>Bad gateway</html>",
        "",
        "null",
        "{}",
        "[]",
    ];
    for sample in &ALL {
        for error in errors {
            let verdict = sample.judge([error.as_bytes()]);
            assert!(verdict.is_err(), "{}: {error}", sample.shape);
            if !sample.is_stream() {
                continue;
            }
            let frame = format!("data: {error}\n\n");
            assert!(sample.judge([frame.as_bytes()]).is_err(), "{frame}");
            // In the middle of a stream that goes on as usual.
            if error.contains("\"error\"") {
                for (at, _) in sample.body.match_indices("\n\n") {
                    let (head, tail) = sample.body.split_at(at + 2);
                    let body = [head, &frame, tail].concat();
                    assert!(sample.judge([body.as_bytes()]).is_err(), "{body}");
                }
            }
        }
    }
}

/// An answer of thirty choices is one answer. Thirty requests for one choice each differ only in
/// what they ask for: a client that needs variety says so, in the request or by `samples`.
#[test]
fn case_thirty_samples_wanted_one_answer_thirty_times() {
    differ(&chat().fields(r#""n":30"#), &chat().fields(r#""n":1"#));
    counts(&chat(), r#""n":30"#);
    let keys: HashSet<_> = (0..30)
        .map(|seed| chat().fields(&format!(r#""seed":{seed}"#)))
        .map(|request| request.exchange().key)
        .collect();
    assert_eq!(keys.len(), 30);
    let anew = chat().header("cache-control", "no-cache").exchange();
    assert!(!anew.control.accepts(0, None));
    let once = chat().header("x-reflex-ttl", "0").exchange();
    assert!(!once.control.keeps());

    // All of them are there, or none is kept.
    let choice = |index: usize, reason: &str| {
        format!(r#"{{"index":{index},"message":{{"content":"{index}"}},"finish_reason":{reason}}}"#)
    };
    let whole: Vec<String> = (0..30).map(|index| choice(index, r#""stop""#)).collect();
    let body = |choices: &[String]| format!(r#"{{"choices":[{}]}}"#, choices.join(","));
    let sample = &ALL[0];
    assert_eq!(sample.judge([body(&whole).as_bytes()]), Ok(()));
    let mut open = whole;
    open[17] = choice(17, "null");
    let verdict = sample.judge([body(&open).as_bytes()]);
    assert_eq!(verdict, Err(Rejected::Unfinished));
}
