//! `origin` once more, as a service of WASI 0.2: a model that answers chat completions, plain and
//! streamed, and says how long a body is that was sent to any other path. The header `x-test-guest`
//! makes it misbehave.
//!
//! Before each part of a stream but the first it asks `http://pace.test/` whether to go on, so that
//! a test decides when the next one comes.

// Native linkers take no symbol of the names that components export.
#![cfg(target_arch = "wasm32")]

#[allow(missing_docs, unsafe_code, unreachable_pub, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "example:wasi02/origin",
        generate_all,
    });
    export!(Origin with_types_in self);
    use super::Origin;
}

use bindings::exports::wasi::http::incoming_handler::Guest;
use bindings::wasi::cli::environment::get_environment;
use bindings::wasi::clocks::monotonic_clock::subscribe_duration;
use bindings::wasi::filesystem::preopens::get_directories;
use bindings::wasi::http::outgoing_handler;
use bindings::wasi::http::types::{
    ErrorCode, Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};
use std::hint::black_box;

struct Origin;

/// What is read of a body at once.
const READ_BYTES: u64 = 64 << 10;

/// What WASI 0.2 lets be written at once.
const WRITE_BYTES: usize = 4096;

/// Longer than any test.
const AN_HOUR: u64 = 3600 * 1_000_000_000;

/// The parts of a streamed answer.
const PARTS: [&str; 4] = [
    "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"On\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"ce.\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: [DONE]\n\n",
];

impl Guest for Origin {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let switch = request.headers().get("x-test-guest").pop();
        match switch.as_deref() {
            None => answer(&request, out),
            Some(b"trap") => panic!("told to"),
            Some(b"spin") => loop {
                black_box(());
            },
            Some(b"allocate") => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(black_box(vec![1_u8; 1 << 20]));
                }
            }
            Some(b"say-nothing") => {}
            Some(b"drop-the-response") => {
                drop(out);
                subscribe_duration(AN_HOUR).block();
            }
            Some(b"look-around") => {
                let seen = get_environment().len() + get_directories().len();
                whole(out, "text/plain", &seen.to_string());
            }
            Some(b"trap-while-streaming") => {
                let body = begin(out, "text/plain");
                // More than is taken before a reader comes.
                body.write_all(["whole?"; 8].into_iter());
                panic!("told to, in the middle of a body")
            }
            Some(b"sleep-while-streaming") => {
                let body = begin(out, "text/plain");
                body.write("whole?");
                subscribe_duration(AN_HOUR).block();
                body.end();
            }
            Some(b"end-nothing") => {
                begin(out, "text/plain").write("whole?");
            }
            Some(_) => ResponseOutparam::set(out, Err(ErrorCode::ConfigurationError)),
        }
    }
}

fn answer(request: &IncomingRequest, out: ResponseOutparam) {
    let path = request.path_with_query().unwrap_or_default();
    if !path.ends_with("/chat/completions") {
        let mut length = 0;
        read(request, |part| length += part.len());
        return whole(out, "text/plain", &length.to_string());
    }
    let mut body = Vec::new();
    read(request, |part| body.extend_from_slice(part));
    let body = String::from_utf8(body).unwrap_or_default();
    if body.contains("\"model\":\"none\"") {
        return ResponseOutparam::set(out, Err(ErrorCode::DestinationUnavailable));
    }
    if body.contains("\"stream\":true") {
        return streamed(out);
    }
    let answer = format!(
        "{{\"id\":\"1\",\"object\":\"chat.completion\",\"choices\":[{{\"index\":0,\"message\":\
         {{\"role\":\"assistant\",\"content\":\"{} bytes\"}},\"finish_reason\":\"stop\"}}]}}",
        body.len()
    );
    whole(out, "application/json", &answer);
}

fn read(request: &IncomingRequest, mut each: impl FnMut(&[u8])) {
    let Ok(body) = request.consume() else { return };
    let Ok(stream) = body.stream() else { return };
    while let Ok(part) = stream.blocking_read(READ_BYTES) {
        each(&part);
    }
}

/// A response whose head is out.
struct Body(OutgoingBody);

fn begin(out: ResponseOutparam, content_type: &str) -> Body {
    // By the second of these a test knows an answer of this component's from a replay.
    let headers = [("content-type", content_type), ("x-origin", "asked")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    let headers = Fields::from_list(&headers).expect("headers");
    let response = OutgoingResponse::new(headers);
    let body = response.body().expect("the first time");
    ResponseOutparam::set(out, Ok(response));
    Body(body)
}

impl Body {
    /// Writes all of it; false if the reader is gone. To be called once.
    fn write_all<'a>(&self, mut parts: impl Iterator<Item = &'a str>) -> bool {
        let stream = self.0.write().expect("the first time");
        parts.all(|part| {
            let mut pieces = part.as_bytes().chunks(WRITE_BYTES);
            pieces.all(|piece| stream.blocking_write_and_flush(piece).is_ok())
        })
    }

    fn write(&self, text: &str) {
        self.write_all([text].into_iter());
    }

    fn end(self) {
        let _ = OutgoingBody::finish(self.0, None);
    }
}

fn whole(out: ResponseOutparam, content_type: &str, text: &str) {
    let body = begin(out, content_type);
    body.write(text);
    body.end();
}

fn streamed(out: ResponseOutparam) {
    let body = begin(out, "text/event-stream");
    let paced = PARTS.iter().enumerate();
    let paced = paced.map_while(|(number, part)| (number == 0 || may_go_on()).then_some(*part));
    if body.write_all(paced) {
        body.end();
    }
}

/// Whether the server at `pace.test` lets it go on.
fn may_go_on() -> bool {
    let Ok(headers) = Fields::from_list(&[]) else {
        return false;
    };
    let request = OutgoingRequest::new(headers);
    let aimed = request.set_scheme(Some(&Scheme::Http)).is_ok()
        && request.set_authority(Some("pace.test")).is_ok()
        && request.set_path_with_query(Some("/")).is_ok();
    let sent = aimed.then(|| outgoing_handler::handle(request, None));
    let Some(Ok(response)) = sent else {
        return false;
    };
    response.subscribe().block();
    matches!(response.get(), Some(Ok(Ok(_))))
}
