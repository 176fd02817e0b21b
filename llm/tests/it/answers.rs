//! Which answers are good enough to be kept.

use reflex_llm::{
    Api, Limits, ProviderControl, Recorder, Rejected, Representation, Shape, Storable,
};

pub(crate) const LIMITS: Limits = Limits {
    body_bytes_max: 1 << 20,
    allow_length: false,
    provider_control: ProviderControl::Ignore,
};

pub(crate) const JSON: &[u8] = br#"{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"h\u00e9, \"you\"","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"total_tokens":3}}"#;

/// A stream as OpenAI writes it, with two choices and the usage.
const SSE: &str = r#"data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"finish_reason":null}],"usage":null}

data: {"id":"c","choices":[{"index":1,"delta":{"role":"assistant","content":"é"},"finish_reason":null}]}

: a comment

data: {"id":"c","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}

event: message
id: 7
data: {"id":"c",
data: "choices":[{"index":1,"delta":{},"finish_reason":"tool_calls"}]}

data: {"id":"c","choices":[],"usage":{"total_tokens":3}}

data: [DONE]

"#;

pub(crate) fn shape(representation: Representation) -> Shape {
    Shape::new(Api::ChatCompletions, representation)
}

pub(crate) fn content_type(representation: Representation) -> (&'static str, &'static [u8]) {
    match representation {
        Representation::Json => ("content-type", b"application/json"),
        Representation::Sse => ("content-type", b"text/event-stream; charset=utf-8"),
    }
}

pub(crate) fn record<'a>(
    representation: Representation,
    limits: Limits,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Storable, Rejected> {
    let mut recorder = Recorder::new(shape(representation), limits);
    recorder.head(200, &[content_type(representation)])?;
    for chunk in chunks {
        recorder.feed(chunk);
    }
    recorder.finish()
}

fn json(body: &[u8]) -> Result<(), Rejected> {
    record(Representation::Json, LIMITS, [body]).map(|_| ())
}

pub(crate) fn sse(body: &[u8]) -> Result<(), Rejected> {
    record(Representation::Sse, LIMITS, [body]).map(|_| ())
}

#[test]
fn a_whole_answer_is_kept_byte_for_byte() {
    let kept = record(Representation::Json, LIMITS, JSON.chunks(7)).unwrap();
    assert_eq!((kept.status, &kept.body[..]), (200, JSON));
    let kept = record(Representation::Sse, LIMITS, SSE.as_bytes().chunks(7)).unwrap();
    assert_eq!((kept.status, &kept.body[..]), (200, SSE.as_bytes()));
}

/// With any end of line, in any two pieces, and byte by byte.
#[test]
fn where_a_stream_is_cut_into_chunks_does_not_matter() {
    let refused = SSE.replace("\"tool_calls\"", "\"length\"");
    for (text, expected) in [(SSE, Ok(())), (&refused, Err(Rejected::Length))] {
        for end in ["\n", "\r\n", "\r"] {
            let text = format!("\u{feff}{}", text.replace('\n', end));
            let bytes = text.as_bytes();
            for at in 0..=bytes.len() {
                let verdict = record(Representation::Sse, LIMITS, [&bytes[..at], &bytes[at..]]);
                assert_eq!(verdict.map(|_| ()), expected, "{at} {end:?}");
            }
            let verdict = record(Representation::Sse, LIMITS, bytes.chunks(1));
            assert_eq!(verdict.map(|_| ()), expected);
        }
    }
}

#[test]
fn every_proper_prefix_is_refused() {
    for cut in 0..JSON.len() {
        assert_eq!(json(&JSON[..cut]), Err(Rejected::NotJson), "{cut}");
    }
    for end in ["\n", "\r\n", "\r"] {
        let text = SSE.replace('\n', end);
        for cut in 0..text.len() {
            assert_eq!(
                sse(&text.as_bytes()[..cut]),
                Err(Rejected::Cut),
                "{cut} {end:?}"
            );
        }
    }
}

#[test]
fn case_finish_reason_length_cached() {
    let with = |reason: &str| {
        format!(r#"{{"choices":[{{"message":{{"content":"x"}},"finish_reason":{reason}}}]}}"#)
    };
    for (reason, expected) in [
        (r#""stop""#, Ok(())),
        (r#""tool_calls""#, Ok(())),
        (r#""function_call""#, Ok(())),
        (r#""st\u006fp""#, Ok(())),
        (r#""length""#, Err(Rejected::Length)),
        (r#""l\u0065ngth""#, Err(Rejected::Length)),
        (r#""content_filter""#, Err(Rejected::FinishReason)),
        (r#""error""#, Err(Rejected::FinishReason)),
        (r#""abort""#, Err(Rejected::FinishReason)),
        (r#""something new""#, Err(Rejected::FinishReason)),
        (r#""""#, Err(Rejected::Unfinished)),
        ("true", Err(Rejected::FinishReason)),
        ("null", Err(Rejected::Unfinished)),
    ] {
        assert_eq!(json(with(reason).as_bytes()), expected, "{reason}");
        let stream = format!(
            "data: {}\n\ndata: [DONE]\n\n",
            with(reason).replace("message", "delta")
        );
        assert_eq!(sse(stream.as_bytes()), expected, "{reason}");
    }
    let allowed = Limits {
        allow_length: true,
        ..LIMITS
    };
    let verdict = record(
        Representation::Json,
        allowed,
        [with(r#""length""#).as_bytes()],
    );
    assert!(verdict.is_ok());
    let verdict = record(
        Representation::Json,
        allowed,
        [with(r#""content_filter""#).as_bytes()],
    );
    assert_eq!(verdict, Err(Rejected::FinishReason));
}

#[test]
fn case_an_error_text_cached_past_the_outage() {
    let good = r#""choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}]"#;
    for (body, expected) in [
        (format!("{{{good}}}"), Ok(())),
        (format!(r#"{{"error":null,{good}}}"#), Ok(())),
        (
            format!(r#"{{"error":{{"message":"overloaded"}},{good}}}"#),
            Err(Rejected::Error),
        ),
        (
            format!(r#"{{"error":"overloaded",{good}}}"#),
            Err(Rejected::Error),
        ),
        (
            r#"{"error":{"message":"overloaded"}}"#.into(),
            Err(Rejected::Error),
        ),
        (
            format!(r#"{{"moderation":{{"output":{{"type":"moderation_results"}}}},{good}}}"#),
            Ok(()),
        ),
        (
            format!(r#"{{"moderation":{{"output":{{"type":"error"}}}},{good}}}"#),
            Err(Rejected::Error),
        ),
        (
            r#"{"choices":[{"error":{"code":502},"message":{},"finish_reason":"stop"}]}"#.into(),
            Err(Rejected::Error),
        ),
        ("{}".into(), Err(Rejected::Unexpected)),
        (r#"{"choices":[]}"#.into(), Err(Rejected::Unexpected)),
        (r#"{"choices":{}}"#.into(), Err(Rejected::Unexpected)),
        (r#"{"choices":["stop"]}"#.into(), Err(Rejected::Unexpected)),
        (
            r#"{"choices":[{"finish_reason":"stop"}]}"#.into(),
            Err(Rejected::Unexpected),
        ),
        (
            r#"{"choices":[{"message":{"content":"x"}}]}"#.into(),
            Err(Rejected::Unfinished),
        ),
        (format!("[{{{good}}}]"), Err(Rejected::NotJson)),
        ("<html>Bad gateway</html>".into(), Err(Rejected::NotJson)),
        (format!("{{{good}}}{{}}"), Err(Rejected::NotJson)),
        (format!("{{{good},{good}}}"), Err(Rejected::NotJson)),
        ("".into(), Err(Rejected::NotJson)),
    ] {
        assert_eq!(json(body.as_bytes()), expected, "{body}");
    }
}

#[test]
fn every_choice_must_be_good() {
    let two = |message: &str, reason: &str| {
        let message = match message {
            "" => r#""content":"x""#.to_owned(),
            fields => format!(r#""content":"x",{fields}"#),
        };
        format!(
            r#"{{"choices":[{{"message":{{"content":"x"}},"finish_reason":"stop"}},{{"message":{{{message}}},"finish_reason":{reason}}}]}}"#
        )
    };
    let stop = r#""stop""#;
    for (message, reason, expected) in [
        ("", stop, Ok(())),
        ("", r#""length""#, Err(Rejected::Length)),
        ("", "null", Err(Rejected::Unfinished)),
        (r#""refusal":"I can't.""#, stop, Err(Rejected::Refusal)),
        (r#""refusal":"\n""#, stop, Err(Rejected::Refusal)),
        (r#""refusal":"\u0041""#, stop, Err(Rejected::Refusal)),
        (r#""refusal":{}"#, stop, Err(Rejected::Refusal)),
        (r#""refusal":"""#, stop, Ok(())),
        (r#""annotations":[]"#, stop, Ok(())),
        (r#""error":{"code":502}"#, stop, Err(Rejected::Error)),
    ] {
        let body = two(message, reason);
        assert_eq!(json(body.as_bytes()), expected, "{body}");
    }
}

#[test]
fn a_stream_ends_with_its_terminal_event() {
    let stop = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\n";
    let open = "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"x\"},\"finish_reason\":null}]}\n\n";
    let refusal = "data: {\"choices\":[{\"index\":0,\"delta\":{\"refusal\":\"No\"}}]}\n\n";
    let error = "data: {\"error\":{\"message\":\"overloaded\"}}\n\n";
    let done = "data: [DONE]\n\n";
    for (frames, expected) in [
        (vec![stop, done], Ok(())),
        (vec![stop, "data:[DONE]\n\n"], Ok(())),
        (vec!["\n\n: hello\n\n", stop, done], Ok(())),
        (vec![stop, done, "\n: bye\n\n"], Ok(())),
        (
            vec![open, &open.replace("null", "\"stop\""), stop, done],
            Ok(()),
        ),
        (vec!["data: {\"choices\":[]}\n\n", stop, done], Ok(())),
        (vec![&stop.replace("\"index\":0,", ""), done], Ok(())),
        (
            vec!["retry: 3\nid: x\nfoo: bar\n", stop, "event: ping\n\n", done],
            Ok(()),
        ),
        (vec![], Err(Rejected::Cut)),
        (vec![stop], Err(Rejected::Cut)),
        (vec![stop, "data: [DONE]\n"], Err(Rejected::Cut)),
        (vec![stop, "data: [DONE]"], Err(Rejected::Cut)),
        (vec![stop, ": [DONE]\n\n"], Err(Rejected::Cut)),
        (vec![stop, done, ": bye"], Err(Rejected::Cut)),
        (vec![done], Err(Rejected::Unfinished)),
        (vec![open, done], Err(Rejected::Unfinished)),
        (vec![stop, open, done], Err(Rejected::Unfinished)),
        (vec![stop, done, done], Err(Rejected::AfterEnd)),
        (vec![stop, done, "event: x\n"], Err(Rejected::AfterEnd)),
        (vec![stop, done, "garbage\n"], Err(Rejected::AfterEnd)),
        (vec![stop, error, done], Err(Rejected::Error)),
        (
            vec![stop, "event: error\ndata: {\"choices\":[]}\n\n", done],
            Err(Rejected::Error),
        ),
        (vec![stop, "event: error\n\n", done], Err(Rejected::Error)),
        (vec![refusal, stop, done], Err(Rejected::Refusal)),
        (
            vec![stop, "data: {\"choices\":[}\n\n", done],
            Err(Rejected::NotJson),
        ),
        (
            vec![stop, "data: [DONE] \n\n", done],
            Err(Rejected::NotJson),
        ),
        (vec![stop, "data\n\n", done], Err(Rejected::NotJson)),
        (vec![stop, "data: 1\n\n", done], Err(Rejected::NotJson)),
        (vec![stop, "data: {}\n\n", done], Err(Rejected::Unexpected)),
        (
            vec![&stop.replace(":0,", ":-1,"), done],
            Err(Rejected::Unexpected),
        ),
        (
            vec![&stop.replace(":0,", ":\"0\","), done],
            Err(Rejected::Unexpected),
        ),
        (
            vec![stop, &open.replace(":1,", ":0,"), done],
            Err(Rejected::AfterEnd),
        ),
        // Joined by a line feed, the lines of this frame are not JSON.
        (
            vec![stop, "data: {\"choices\":[],\"x\":1\ndata: 2}\n\n", done],
            Err(Rejected::NotJson),
        ),
        // A client never sees what its last blank line did not complete.
        (
            vec![stop, "data: [DONE]\ndata: x\n\n"],
            Err(Rejected::NotJson),
        ),
    ] {
        assert_eq!(sse(frames.concat().as_bytes()), expected, "{frames:?}");
    }
}
