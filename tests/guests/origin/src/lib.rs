//! An ordinary `wasi:http` 0.3 service: a model that answers chat completions,
//! plain and streamed, and says how long a body is that was sent to any other path. It knows
//! nothing of a cache.
//!
//! Before each part of a stream but the first it asks `http://pace.test/` whether to go on, so that
//! a test decides when the next one comes.

// Native linkers take no symbol of the names that components export.
#![cfg(target_arch = "wasm32")]

#[allow(missing_docs, unsafe_code, unreachable_pub, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        world: "wasi:http/service@0.3.0",
        generate_all,
    });
    export!(Origin with_types_in self);
    use super::Origin;
}

use bindings::exports::wasi::http::handler::Guest;
use bindings::wasi::http::client;
use bindings::wasi::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use bindings::{wit_future, wit_stream};
use wit_bindgen::{StreamReader, StreamResult, StreamWriter, spawn_local};

struct Origin;

/// What is read of a body at once.
const READ_BYTES: usize = 64 << 10;

/// The parts of a streamed answer.
const PARTS: [&str; 4] = [
    "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"On\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"ce.\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: [DONE]\n\n",
];

impl Guest for Origin {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        let (_, done) = wit_future::new(|| Ok(()));
        let (body, _trailers) = Request::consume_body(request, done);
        if !path.ends_with("/chat/completions") {
            let length = length(body).await;
            return Ok(whole("text/plain", length.to_string()));
        }
        let body = String::from_utf8(collect(body).await).unwrap_or_default();
        if body.contains("\"model\":\"none\"") {
            return Err(ErrorCode::DestinationUnavailable);
        }
        if body.contains("\"stream\":true") {
            return Ok(streamed());
        }
        let answer = format!(
            "{{\"id\":\"1\",\"object\":\"chat.completion\",\"choices\":[{{\"index\":0,\"message\":\
             {{\"role\":\"assistant\",\"content\":\"{} bytes\"}},\"finish_reason\":\"stop\"}}]}}",
            body.len()
        );
        Ok(whole("application/json", answer))
    }
}

fn whole(content_type: &str, body: String) -> Response {
    let (mut writer, reader) = wit_stream::new();
    spawn_local(async move {
        let _ = writer.write_all(body.into_bytes()).await;
    });
    response(content_type, reader)
}

fn streamed() -> Response {
    let (writer, reader) = wit_stream::new();
    spawn_local(write_parts(writer));
    response("text/event-stream", reader)
}

async fn write_parts(mut writer: StreamWriter<u8>) {
    for (number, part) in PARTS.iter().enumerate() {
        if number > 0 && !may_go_on().await {
            return;
        }
        let unwritten = writer.write_all(part.as_bytes().to_vec()).await;
        if !unwritten.is_empty() {
            return;
        }
    }
}

/// Whether the server at `pace.test` lets it go on.
async fn may_go_on() -> bool {
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, trailers, None);
    let aimed = request.set_scheme(Some(&Scheme::Http)).is_ok()
        && request.set_authority(Some("pace.test")).is_ok()
        && request.set_path_with_query(Some("/")).is_ok();
    aimed && client::send(request).await.is_ok()
}

fn response(content_type: &str, body: StreamReader<u8>) -> Response {
    let headers = Fields::new();
    // By the second of these a test knows an answer of this component's from a replay.
    for (name, value) in [("content-type", content_type), ("x-origin", "asked")] {
        let _ = headers.append(name, value.as_bytes());
    }
    let (_, trailers) = wit_future::new(|| Ok(None));
    Response::new(headers, Some(body), trailers).0
}

async fn length(mut body: StreamReader<u8>) -> u64 {
    let mut length = 0;
    while let Some(chunk) = next(&mut body).await {
        length += chunk.len() as u64;
    }
    length
}

async fn collect(mut body: StreamReader<u8>) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(mut chunk) = next(&mut body).await {
        whole.append(&mut chunk);
    }
    whole
}

async fn next(body: &mut StreamReader<u8>) -> Option<Vec<u8>> {
    match body.read(Vec::with_capacity(READ_BYTES)).await {
        (StreamResult::Complete(_), chunk) => Some(chunk),
        (StreamResult::Dropped | StreamResult::Cancelled, _) => None,
    }
}
