//! An ordinary program of WASI 0.2 that asks an LLM over `wasi:http/outgoing-handler`. It also
//! imports the cache, which has no WASI in it, and looks up its answers there.

// Native linkers take no symbol of the names that components export.
#![cfg(target_arch = "wasm32")]
// What wit-bindgen's macro exports is unsafe by nature, and its items have no docs.
#![expect(unsafe_code, reason = "generated code")]
#![allow(missing_docs, unreachable_pub, reason = "generated code")]

use reflex::cache::cache::{self, Name};
use std::cell::RefCell;
use wasi::http0_2_0::outgoing_handler;
use wasi::http0_2_0::types::{
    Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme,
};
use wasi::io::streams::{InputStream, StreamError};

wit_bindgen::generate!({
    path: ["../../../wit", "../../wit"],
    inline: "
        package example:caller02;

        world caller {
            import wasi:http/outgoing-handler@0.2.0;
            import reflex:cache/cache@0.1.0;

            record head {
                status: u16,
                headers: list<tuple<string, string>>,
            }

            /// Asks for a chat completion. The error is what WASI calls it.
            export ask: func(authority: string, body: string) -> result<head, string>;
            /// The next part of the answer; nothing at its end.
            export part: func() -> result<option<list<u8>>, string>;
            /// The whole answer, if the cache has it.
            export recall: func(authority: string, body: string) -> result<option<list<u8>>, string>;
            /// Removes it.
            export forget: func(authority: string, body: string) -> result<bool, string>;
        }
    ",
    world: "example:caller02/caller",
    generate_all,
});

struct Caller;

export!(Caller);

const PATH: &str = "/v1/chat/completions";

/// What is read of a body at once.
const READ_BYTES: u64 = 64 << 10;

thread_local! {
    /// The answer that is being read. What is read lives within what it is read from.
    static ANSWER: RefCell<Option<(InputStream, IncomingBody, IncomingResponse)>> =
        const { RefCell::new(None) };
}

fn headers() -> Vec<(String, Vec<u8>)> {
    [
        ("authorization", "Bearer caller"),
        ("content-type", "application/json"),
    ]
    .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
    .into()
}

/// What the cache calls the answer to a request.
fn name(authority: &str, body: String) -> Name {
    Name::Request(cache::LlmRequest {
        method: "POST".into(),
        upstream: format!("http://{authority}"),
        path: PATH.into(),
        headers: headers(),
        body: body.into_bytes(),
    })
}

fn send(authority: &str, body: &[u8]) -> Result<IncomingResponse, String> {
    let wrong = |()| "not a request".to_owned();
    let headers = Fields::from_list(&headers()).map_err(|error| error.to_string())?;
    let request = OutgoingRequest::new(headers);
    request.set_method(&Method::Post).map_err(wrong)?;
    request.set_scheme(Some(&Scheme::Http)).map_err(wrong)?;
    request.set_authority(Some(authority)).map_err(wrong)?;
    request.set_path_with_query(Some(PATH)).map_err(wrong)?;
    let outgoing = request.body().map_err(wrong)?;
    let response = outgoing_handler::handle(request, None).map_err(|error| error.to_string())?;

    let stream = outgoing.write().map_err(wrong)?;
    let written = stream.blocking_write_and_flush(body);
    written.map_err(|error| error.to_string())?;
    drop(stream);
    OutgoingBody::finish(outgoing, None).map_err(|error| error.to_string())?;

    response.subscribe().block();
    let response = response.get().ok_or("no response")?.map_err(wrong)?;
    response.map_err(|error| error.to_string())
}

impl Guest for Caller {
    fn ask(authority: String, body: String) -> Result<Head, String> {
        let response = send(&authority, body.as_bytes())?;
        let wrong = |()| "no body".to_owned();
        let status = response.status();
        let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
        let headers = response.headers().entries().into_iter();
        let headers = headers.map(|(name, value)| (name, text(value))).collect();
        let body = response.consume().map_err(wrong)?;
        let stream = body.stream().map_err(wrong)?;
        ANSWER.set(Some((stream, body, response)));
        Ok(Head { status, headers })
    }

    fn part() -> Result<Option<Vec<u8>>, String> {
        ANSWER.with_borrow(|answer| {
            let (stream, ..) = answer.as_ref().ok_or("nothing was asked")?;
            match stream.blocking_read(READ_BYTES) {
                Ok(part) => Ok(Some(part)),
                Err(StreamError::Closed) => Ok(None),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    fn recall(authority: String, body: String) -> Result<Option<Vec<u8>>, String> {
        let entry = cache::lookup(&name(&authority, body)).map_err(|error| error.to_string())?;
        Ok(entry.map(|entry| entry.read(0, entry.size())))
    }

    fn forget(authority: String, body: String) -> Result<bool, String> {
        cache::remove(&name(&authority, body)).map_err(|error| error.to_string())
    }
}
