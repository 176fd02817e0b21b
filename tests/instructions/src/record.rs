//! A streamed answer through the recorder, one event a chunk, as providers send them.

use crate::Pass;
use reflex_llm::{Api, Limits, ProviderControl, Recorder, Representation, Shape};
use std::hint::black_box;

const EVENTS: usize = 50;

const LIMITS: Limits = Limits {
    body_bytes_max: 1 << 20,
    allow_length: false,
    provider_control: ProviderControl::Ignore,
};

pub(crate) fn pass() -> Pass {
    let shape = Shape {
        api: Api::ChatCompletions,
        representation: Representation::Sse,
        parts: None,
    };
    let chunks = chunks();
    Box::new(move || {
        let mut recorder = Recorder::new(shape, LIMITS);
        let headers: [(&str, &[u8]); 1] = [("content-type", b"text/event-stream")];
        recorder.head(200, black_box(&headers)).expect("kept");
        for chunk in &chunks {
            recorder.feed(black_box(chunk));
        }
        let storable = recorder.finish().expect("complete");
        black_box(storable.body).len()
    })
}

fn chunks() -> Vec<Vec<u8>> {
    let event = |delta: &str, finish: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"gpt-4o\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
        )
        .into_bytes()
    };
    let mut chunks = vec![event(r#"{"role":"assistant","content":""}"#, "null")];
    chunks.resize_with(EVENTS - 2, || event(r#"{"content":" nevermore"}"#, "null"));
    chunks.push(event("{}", r#""stop""#));
    chunks.push(b"data: [DONE]\n\n".to_vec());
    chunks
}
