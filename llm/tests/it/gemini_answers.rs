//! Gemini's answers: which are kept, in one piece, in an array, as a stream.

use reflex_llm::{Api, Recorder, Rejected, Representation, Shape};

use crate::judging::{Judged, LENGTH_ALLOWED, LIMITS};

const GENERATE: Judged = Judged(Api::GeminiGenerateContent, LIMITS);
const STREAM: Judged = Judged(Api::GeminiStreamGenerateContent, LIMITS);

fn candidate(text: &str, reason: &str) -> String {
    format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}],"role":"model"}},"finishReason":{reason},"index":0}}],"usageMetadata":{{"totalTokenCount":3}},"modelVersion":"m"}}"#
    )
}

fn piece(text: &str) -> String {
    candidate(text, "null").replace(r#""finishReason":null,"#, "")
}

fn frames(chunks: &[&str]) -> String {
    let frames = chunks.iter().map(|chunk| format!("data: {chunk}\n\n"));
    frames.collect()
}

#[test]
fn every_candidate_must_have_stopped() {
    for (reason, expected) in [
        (r#""STOP""#, Ok(())),
        (r#""MAX_TOKENS""#, Err(Rejected::Length)),
        (r#""SAFETY""#, Err(Rejected::FinishReason)),
        (r#""RECITATION""#, Err(Rejected::FinishReason)),
        (r#""PROHIBITED_CONTENT""#, Err(Rejected::FinishReason)),
        (r#""MALFORMED_FUNCTION_CALL""#, Err(Rejected::FinishReason)),
        (
            r#""FINISH_REASON_UNSPECIFIED""#,
            Err(Rejected::FinishReason),
        ),
        (r#""stop""#, Ok(())),
        ("1", Err(Rejected::FinishReason)),
        ("null", Err(Rejected::Unfinished)),
    ] {
        let answer = candidate("a", reason);
        assert_eq!(GENERATE.json(&answer), expected, "{reason}");
        let array = format!("[{},{answer}]", piece("b"));
        assert_eq!(STREAM.json(&array), expected, "{reason}");
        let expected = match expected {
            // A cut and an end look the same.
            Err(Rejected::Unfinished) => Err(Rejected::Cut),
            other => other,
        };
        let stream = frames(&[&piece("b"), &answer]);
        assert_eq!(STREAM.sse(&stream), expected, "{reason}");
    }
    let short = candidate("a", r#""MAX_TOKENS""#);
    let allowed = |api| Judged(api, LENGTH_ALLOWED);
    assert_eq!(allowed(Api::GeminiGenerateContent).json(&short), Ok(()));
    let streams = allowed(Api::GeminiStreamGenerateContent);
    assert_eq!(streams.sse(&frames(&[&short])), Ok(()));

    let two = |reason: &str| {
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"a"}}]}},"finishReason":"STOP"}},{{"content":{{"parts":[{{"text":"b"}}]}},"index":1,"finishReason":{reason}}}]}}"#
        )
    };
    assert_eq!(GENERATE.json(&two(r#""STOP""#)), Ok(()));
    assert_eq!(GENERATE.json(&two("null")), Err(Rejected::Unfinished));
    assert_eq!(
        GENERATE.json(&two(r#""SAFETY""#)),
        Err(Rejected::FinishReason)
    );
}

#[test]
fn what_is_no_answer_is_not_kept() {
    let stop = candidate("a", r#""STOP""#);
    let with_metadata =
        |metadata: &str| stop.replace(r#""index":0"#, &format!(r#""index":0,{metadata}"#));
    let with_part = |part: &str| stop.replace(r#"{"text":"a"}"#, part);
    for (body, expected) in [
        ("{}".to_owned(), Err(Rejected::Unexpected)),
        (r#"{"candidates":[]}"#.into(), Err(Rejected::Unfinished)),
        (r#"{"candidates":{}}"#.into(), Err(Rejected::Unexpected)),
        (r#"{"candidates":["a"]}"#.into(), Err(Rejected::Unexpected)),
        (
            r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#.into(),
            Err(Rejected::FinishReason),
        ),
        (
            r#"{"error":{"code":503,"status":"UNAVAILABLE"}}"#.into(),
            Err(Rejected::Error),
        ),
        (with_part(""), Err(Rejected::Empty)),
        (
            stop.replace(r#""parts":[{"text":"a"}],"#, ""),
            Err(Rejected::Empty),
        ),
        (
            stop.replace(r#""parts":["#, r#""parts":[1,"#),
            Err(Rejected::Unexpected),
        ),
        (
            with_part(r#"{"functionCall":{"name":"f","args":{}}}"#),
            Ok(()),
        ),
        (
            with_part(r#"{"inlineData":{"mimeType":"image/png","data":"AAAA"}}"#),
            Ok(()),
        ),
        // Google looked something up or ran something, though the request did not ask for it.
        (
            with_part(r#"{"executableCode":{"code":"1"}}"#),
            Err(Rejected::ProviderWork),
        ),
        (
            with_metadata(r#""groundingMetadata":{"webSearchQueries":["x"]}"#),
            Err(Rejected::ProviderWork),
        ),
        (with_metadata(r#""groundingMetadata":{}"#), Ok(())),
        (with_metadata(r#""safetyRatings":[{}]"#), Ok(())),
        (
            stop.replace(r#""index":0"#, r#""index":"0""#),
            Err(Rejected::Unexpected),
        ),
        (format!("[{stop}]"), Err(Rejected::NotJson)),
        (format!("{stop}{stop}"), Err(Rejected::NotJson)),
    ] {
        assert_eq!(GENERATE.json(&body), expected, "{body}");
    }
}

#[test]
fn an_array_of_pieces_is_one_answer() {
    let stop = candidate("a", r#""STOP""#);
    let usage = r#"{"usageMetadata":{"totalTokenCount":3}}"#;
    let error = r#"{"error":{"code":503,"status":"UNAVAILABLE"}}"#;
    for (body, expected) in [
        (format!("[{stop}]"), Ok(())),
        (format!("[{}\n,\r\n{stop},{usage}]", piece("b")), Ok(())),
        (format!("[{}]", piece("b")), Err(Rejected::Unfinished)),
        ("[]".into(), Err(Rejected::Unfinished)),
        (format!("[{error}]"), Err(Rejected::Error)),
        (format!("[{stop},{error}]"), Err(Rejected::Error)),
        (error.into(), Err(Rejected::Error)),
        (stop.clone(), Err(Rejected::Unexpected)),
        (format!("[{stop},1]"), Err(Rejected::NotJson)),
        ("1".into(), Err(Rejected::NotJson)),
    ] {
        assert_eq!(STREAM.json(&body), expected, "{body}");
    }
    let whole = format!("[{},{stop}]", piece("b"));
    for cut in 0..whole.len() {
        assert_eq!(STREAM.json(&whole[..cut]), Err(Rejected::NotJson), "{cut}");
    }
}

#[test]
fn a_stream_without_terminal_event_is_whole_when_it_ends_cleanly() {
    let stop = candidate("a \\\"quote\\\"", r#""STOP""#);
    let text = frames(&[&piece("b"), &stop]);
    STREAM.good_stream(&text);

    let usage = r#"{"usageMetadata":{"totalTokenCount":3}}"#;
    let error = r#"{"error":{"code":503,"status":"UNAVAILABLE"}}"#;
    let early = r#"{"candidates":[{"content":{"parts":[]},"finishReason":"STOP"}]}"#;
    let silent = r#"{"candidates":[{"content":{"role":"model"}}]}"#;
    let other = piece("c").replace(r#""index":0"#, r#""index":1"#);
    for (chunks, expected) in [
        (vec![&*stop], Ok(())),
        (vec![&stop, usage], Ok(())),
        (vec![&stop, &stop], Ok(())),
        // An early reason to stop does not cover later pieces.
        (vec![&stop, &piece("c")], Err(Rejected::Cut)),
        (vec![&stop, &piece("c"), &stop], Ok(())),
        (vec![early, &piece("c")], Err(Rejected::Cut)),
        (vec![&piece("c"), early, usage], Ok(())),
        (vec![&piece("c"), early, silent], Ok(())),
        (vec![&stop, "[DONE]"], Ok(())),
        (vec![&piece("b"), "[DONE]"], Err(Rejected::Unfinished)),
        (vec![&piece("b")], Err(Rejected::Cut)),
        (vec![&other, &stop], Err(Rejected::Cut)),
        (vec![usage], Err(Rejected::Cut)),
        (vec![], Err(Rejected::Cut)),
        (vec![&stop, error], Err(Rejected::Error)),
        (vec![&stop, "["], Err(Rejected::NotJson)),
        (vec![&stop, "[DONE]", "[DONE]"], Err(Rejected::AfterEnd)),
    ] {
        assert_eq!(STREAM.sse(&frames(&chunks)), expected, "{chunks:?}");
    }
}

/// A client that hangs up after a reason to stop may have missed a part.
#[test]
fn a_stream_without_terminal_event_is_never_complete_before_its_end() {
    let shape = Shape::new(Api::GeminiStreamGenerateContent, Representation::Sse);
    let mut recorder = Recorder::new(shape, LIMITS);
    recorder
        .head(200, &[("content-type", b"text/event-stream")])
        .unwrap();
    recorder.feed(frames(&[&candidate("a", r#""STOP""#)]).as_bytes());
    assert_eq!(recorder.complete(), None);
    assert!(recorder.finish().is_ok());
}

#[test]
fn embeddings_are_vectors_of_numbers() {
    let one = Judged(Api::GeminiEmbedContent, LIMITS);
    let many = Judged(Api::GeminiBatchEmbedContents, LIMITS);
    let values = r#"{"values":[0.5,-1e-3]}"#;
    for (embedding, expected) in [
        (values, Ok(())),
        (r#"{"values":[]}"#, Err(Rejected::Unexpected)),
        (r#"{"values":[null]}"#, Err(Rejected::Unexpected)),
        (r#"{"values":"AACAPw=="}"#, Err(Rejected::Unexpected)),
        ("{}", Err(Rejected::Unexpected)),
        ("[1]", Err(Rejected::Unexpected)),
    ] {
        let single = format!(r#"{{"embedding":{embedding}}}"#);
        assert_eq!(one.json(&single), expected, "{embedding}");
        let batch = format!(r#"{{"embeddings":[{values},{embedding}]}}"#);
        assert_eq!(many.json(&batch), expected, "{embedding}");
    }
    assert_eq!(many.json(r#"{"embeddings":[]}"#), Err(Rejected::Unexpected));
    assert_eq!(one.json(r#"{"embeddings":[]}"#), Err(Rejected::Unexpected));
    assert_eq!(one.json(r#"{"error":{"code":503}}"#), Err(Rejected::Error));
}
