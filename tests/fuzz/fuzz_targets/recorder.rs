//! Any bytes as the answer of an API: the verdict does not depend on how they are cut, kept bytes
//! are the sent ones, and no part of a stream is kept without its end.
//!
//! Input: the shape's token, a line feed, the body.

#![no_main]

use libfuzzer_sys::fuzz_target;
use reflex_fuzz::bytes::Bytes;
use reflex_fuzz::events;
use reflex_fuzz::json::{self, Json};
use reflex_llm::{Api, Limits, ProviderControl, Recorder, Rejected, Representation, Shape, Stated};

/// More places than this are not tried in one body.
const CUTS_MAX: usize = 40;

const ROOMY: Limits = Limits {
    body_bytes_max: 1 << 20,
    allow_length: false,
    provider_control: ProviderControl::Ignore,
};

fn begin(shape: Shape, limits: Limits, length: Option<usize>) -> Recorder {
    let content_type: &[u8] = match shape.representation {
        Representation::Sse => b"text/event-stream",
        Representation::Json => b"application/json",
    };
    let length = length.map(|length| length.to_string());
    let mut headers = vec![("content-type", content_type)];
    headers.extend(length.iter().map(|it| ("content-length", it.as_bytes())));
    let mut recorder = Recorder::new(shape, limits);
    recorder.head(200, &headers).expect("a good head");
    recorder
}

/// The end that it states. Where the recorder says that it is complete, it is.
fn verdict(shape: Shape, limits: Limits, chunks: &[&[u8]]) -> Result<Stated, Rejected> {
    let mut recorder = begin(shape, limits, None);
    let mut fed = Vec::new();
    for chunk in chunks {
        recorder.feed(chunk);
        fed.extend_from_slice(chunk);
        let so_far = recorder.so_far();
        assert_eq!(so_far.is_some(), recorder.complete().is_some());
        if let Some(kept) = so_far {
            assert_eq!(recorder.complete(), Some(fed.len()));
            let mut stopped = begin(shape, limits, None);
            stopped.feed(&fed);
            assert_eq!(stopped.finish().ok(), Some(kept), "complete, and not kept");
        }
    }
    let kept = recorder.finish()?;
    assert!(kept.body == fed && kept.status == 200);
    assert!(fed.len() <= limits.body_bytes_max);
    // A caller that judges by itself is told the same end.
    assert_eq!(shape.stated(&fed), Ok(kept.stated));
    Ok(kept.stated)
}

/// The same with other characters for surrogates: of answers, half a pair is kept, which the reader
/// here refuses.
fn without_surrogates(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    for at in 0..body.len().saturating_sub(3) {
        let is_surrogate = body[at..].starts_with(b"\\u")
            && matches!(body[at + 2], b'd' | b'D')
            && matches!(body[at + 3], b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F');
        if is_surrogate {
            body[at + 2] = b'0';
        }
    }
    body
}

// Required of every kept answer.
fn has_its_end(shape: Shape, body: &[u8]) -> bool {
    let body = &*without_surrogates(body);
    if shape.representation == Representation::Json {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        return json::read(body).is_some();
    }
    let (events, _) = events::read(body);
    let data: Vec<Vec<u8>> = events.into_iter().filter_map(|(_, data)| data).collect();
    let is = |data: &[u8], wanted: &[&str]| match json::read(data) {
        Some(Json::Object(members)) => match members
            .iter()
            .find(|(key, _)| key == "type")
            .map(|(_, kind)| kind)
        {
            Some(Json::Text(found)) => wanted.contains(&found.as_str()),
            _ => false,
        },
        _ => false,
    };
    data.iter().any(|data| match shape.api {
        Api::ChatCompletions | Api::Completions => data == b"[DONE]",
        Api::Responses => is(data, &["response.completed", "response.incomplete"]),
        Api::AnthropicMessages => is(data, &["message_stop"]),
        _ => json::read(data).is_some_and(|it| it.canonical().contains("\"finishReason\":")),
    })
}

fuzz_target!(|input: &[u8]| {
    let Some(at) = input.iter().position(|&byte| byte == b'\n') else {
        return;
    };
    let (name, body) = (&input[..at], &input[at + 1..]);
    let Some(shape) = std::str::from_utf8(name).ok().and_then(Shape::from_token) else {
        return;
    };
    let allowing = Limits {
        allow_length: true,
        ..ROOMY
    };
    let whole = verdict(shape, ROOMY, &[body]);
    let allowed = verdict(shape, allowing, &[body]);
    assert!(whole.is_err() || allowed.is_ok(), "allowing keeps less");
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(verdict(shape, ROOMY, &bytes), whole, "byte by byte");
    let chunks = Bytes(body).cut(body);
    assert_eq!(verdict(shape, ROOMY, &chunks), whole, "in chunks");
    assert_eq!(verdict(shape, allowing, &chunks), allowed, "in chunks");
    let tight = Limits {
        body_bytes_max: body.len() / 2,
        ..ROOMY
    };
    let _ = verdict(shape, tight, &chunks);

    for (promised, is_kept) in [(body.len(), whole.is_ok()), (body.len() + 1, false)] {
        let mut recorder = begin(shape, ROOMY, Some(promised));
        recorder.feed(body);
        assert_eq!(recorder.finish().is_ok(), is_kept, "{promised} promised");
    }
    let step = body.len().div_ceil(CUTS_MAX).max(1);
    let ends = (0..=body.len()).rev().step_by(step);
    for end in ends {
        let part = &body[..end];
        if verdict(shape, allowing, &[part]).is_ok() {
            assert!(has_its_end(shape, part), "kept without its end");
        }
    }
    let _ = shape.usage(body);
});
