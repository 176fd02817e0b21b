//! What the recorder keeps of an answer, and how much it takes in.

use reflex_llm::{Api, Limits, Recorder, Rejected, Representation, Validator};

use crate::answers::{JSON, LIMITS, content_type, record, shape, sse};
use crate::judging::Judged;

#[test]
fn a_stream_cannot_fill_memory() {
    let many: String = (0..129)
        .map(|index| format!("data: {{\"choices\":[{{\"index\":{index},\"delta\":{{}}}}]}}\n\n"))
        .collect();
    assert_eq!(sse(many.as_bytes()), Err(Rejected::Unexpected));

    let bounded = Limits {
        body_bytes_max: 4 << 20,
        ..LIMITS
    };
    for piece in [
        vec![b'x'; 1 << 16],
        [b"data: ", &[b'x'; 1 << 16][..], b"\n"].concat(),
    ] {
        let mut recorder = Recorder::new(shape(Representation::Sse), bounded);
        recorder
            .head(200, &[content_type(Representation::Sse)])
            .unwrap();
        for _ in 0..65 {
            recorder.feed(&piece);
        }
        let rejected = recorder.rejected();
        assert_eq!(rejected, Some(Rejected::TooLarge), "one without end");
    }
}

/// A picture in base64, 12 million characters of it, in one frame: as long as an answer may be.
#[test]
fn a_frame_may_be_as_long_as_the_answer() {
    let picture = "A".repeat(12 << 20);
    let frame = format!(
        "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"inlineData\":{{\"data\":\"{picture}\"}}}}]}},\"finishReason\":\"STOP\"}}]}}\n\n"
    );
    let roomy = Limits {
        body_bytes_max: 16 << 20,
        ..LIMITS
    };
    let judged = Judged(Api::GeminiStreamGenerateContent, roomy);
    let chunks = frame.as_bytes().chunks(16 << 10);
    assert_eq!(judged.record(Representation::Sse, chunks), Ok(()));
}

#[test]
fn a_body_over_the_limit_is_given_up() {
    let exact = Limits {
        body_bytes_max: JSON.len(),
        ..LIMITS
    };
    assert!(record(Representation::Json, exact, JSON.chunks(10)).is_ok());
    let short = Limits {
        body_bytes_max: JSON.len() - 1,
        ..LIMITS
    };
    let verdict = record(Representation::Json, short, JSON.chunks(10));
    assert_eq!(verdict, Err(Rejected::TooLarge));
}

#[test]
fn the_head_alone_can_refuse() {
    let check = |status: u16, headers: &[(&str, &[u8])], expected| {
        let mut recorder = Recorder::new(shape(Representation::Json), LIMITS);
        assert_eq!(recorder.head(status, headers), expected, "{status}");
        assert_eq!(recorder.rejected(), expected.err());
        if let Err(rejected) = expected {
            recorder.feed(JSON);
            assert_eq!(recorder.finish(), Err(rejected));
        }
    };
    let json: (&str, &[u8]) = ("content-type", b"application/json");
    check(200, &[json], Ok(()));
    check(
        200,
        &[("content-type", b"Application/JSON; charset=utf-8")],
        Ok(()),
    );
    check(200, &[json, ("content-encoding", b"identity")], Ok(()));
    for status in [100, 201, 204, 206, 301, 400, 401, 429, 500, 503] {
        check(status, &[json], Err(Rejected::Status));
    }
    check(200, &[], Err(Rejected::ContentType));
    check(200, &[json, json], Err(Rejected::ContentType));
    check(
        200,
        &[("content-type", b"text/event-stream")],
        Err(Rejected::ContentType),
    );
    check(
        200,
        &[("content-type", b"text/html")],
        Err(Rejected::ContentType),
    );
    check(
        200,
        &[("content-type", b"application/jsonl")],
        Err(Rejected::ContentType),
    );
    check(
        200,
        &[json, ("content-encoding", b"gzip")],
        Err(Rejected::ContentEncoding),
    );
    check(200, &[json, ("content-length", b"1048576")], Ok(()));
    check(
        200,
        &[json, ("content-length", b"1048577")],
        Err(Rejected::TooLarge),
    );
    check(
        200,
        &[json, ("content-length", b"many")],
        Err(Rejected::Unexpected),
    );
}

#[test]
fn a_stream_must_be_of_the_representation_asked_for() {
    let mut recorder = Recorder::new(shape(Representation::Sse), LIMITS);
    let verdict = recorder.head(200, &[content_type(Representation::Json)]);
    assert_eq!(verdict, Err(Rejected::ContentType));
}

#[test]
fn a_body_shorter_or_longer_than_promised_is_refused() {
    for (promised, expected) in [
        (0, Ok(())),
        (1, Err(Rejected::Cut)),
        (-1, Err(Rejected::Cut)),
    ] {
        let length = (JSON.len() as i64 + promised).to_string();
        let mut recorder = Recorder::new(shape(Representation::Json), LIMITS);
        let json = content_type(Representation::Json);
        recorder
            .head(200, &[json, ("content-length", length.as_bytes())])
            .unwrap();
        recorder.feed(JSON);
        assert_eq!(recorder.finish().map(|_| ()), expected);
    }
}

/// A host keeps the body for its clients anyway. A second copy in the recorder doubled its memory.
#[test]
fn a_validator_judges_like_a_recorder_and_takes_the_body_from_its_caller() {
    let json = content_type(Representation::Json);
    let validator = |parts: &[&[u8]]| {
        let mut validator = Validator::new(shape(Representation::Json), LIMITS);
        validator.head(200, &[json]).unwrap();
        parts.iter().for_each(|part| validator.feed(part));
        validator
    };
    let (first, second) = JSON.split_at(7);
    let kept = validator(&[first, second]).finish(JSON).unwrap();
    let mut recorder = Recorder::new(shape(Representation::Json), LIMITS);
    recorder.head(200, &[json]).unwrap();
    recorder.feed(JSON);
    let recorded = recorder.finish().unwrap();
    assert_eq!(
        (kept.body, kept.headers),
        (&*recorded.body, recorded.headers)
    );

    // Bytes that were not judged are not kept.
    assert_eq!(validator(&[first]).finish(JSON), Err(Rejected::Cut));
    assert_eq!(validator(&[JSON]).finish(first), Err(Rejected::Cut));
    let long = vec![b' '; LIMITS.body_bytes_max + 1];
    assert_eq!(validator(&[&long]).rejected(), Some(Rejected::TooLarge));
}

#[test]
fn calls_out_of_order_keep_nothing() {
    let recorder = Recorder::new(shape(Representation::Json), LIMITS);
    assert_eq!(recorder.finish(), Err(Rejected::Cut));

    let mut recorder = Recorder::new(shape(Representation::Json), LIMITS);
    recorder.feed(b"{");
    let json = content_type(Representation::Json);
    assert_eq!(recorder.head(200, &[json]), Err(Rejected::Unexpected));

    let mut recorder = Recorder::new(shape(Representation::Json), LIMITS);
    recorder.head(200, &[json]).unwrap();
    assert_eq!(recorder.head(200, &[json]), Err(Rejected::Unexpected));
    recorder.feed(JSON);
    assert_eq!(recorder.finish(), Err(Rejected::Unexpected));
}

#[test]
fn only_headers_that_the_answer_needs_are_kept() {
    let mut recorder = Recorder::new(shape(Representation::Json), LIMITS);
    let headers: &[(&str, &[u8])] = &[
        ("date", b"Mon, 01 Jan 2026 00:00:00 GMT"),
        ("content-type", b"application/json; charset=utf-8"),
        ("set-cookie", b"__cf_bm=secret"),
        ("openai-version", b"2020-10-01"),
        ("openai-organization", b"acme"),
        ("openai-processing-ms", b"12"),
        ("x-request-id", b"req_1"),
        ("x-ratelimit-remaining-requests", b"9"),
        ("cache-control", b"no-store"),
        ("connection", b"keep-alive"),
        ("transfer-encoding", b"chunked"),
        ("content-encoding", b"identity"),
        ("content-language", b"en"),
        ("cf-ray", b"1"),
    ];
    recorder.head(200, headers).unwrap();
    recorder.feed(JSON);
    let names: Vec<_> = recorder.finish().unwrap().headers;
    assert_eq!(
        names,
        [
            (
                "content-type".to_owned(),
                b"application/json; charset=utf-8".to_vec()
            ),
            ("openai-version".to_owned(), b"2020-10-01".to_vec()),
            ("cache-control".to_owned(), b"no-store".to_vec()),
            ("content-language".to_owned(), b"en".to_vec()),
        ]
    );
}
