//! The middleware with a switch: the header `x-test-guest` makes it misbehave, without it it
//! behaves.

// Native linkers take no symbol of the names that components export.
#![cfg(target_arch = "wasm32")]

mod excess;

use reflex_middleware::bindings::exports::wasi::http::handler::Guest;
use reflex_middleware::bindings::reflex::cache::cache::{
    self, Entry, InsertOptions, Key, Name, Prompt,
};
use reflex_middleware::bindings::reflex::cache::embeddings;
use reflex_middleware::bindings::reflex::cache::http::{self, Recording};
use reflex_middleware::bindings::wasi::http::handler;
use reflex_middleware::bindings::wasi::http::types::{ErrorCode, Fields, Request, Response};
use reflex_middleware::bindings::{wit_future, wit_stream};
use reflex_middleware::{Middleware, Told};
use std::future::poll_fn;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use wit_bindgen::spawn_local;

struct Hostile;

reflex_middleware::bindings::export!(Hostile with_types_in reflex_middleware::bindings);

/// Requests that this instance has been asked to answer.
static SERVED: AtomicU64 = AtomicU64::new(0);

/// Entries that are opened, or tried to.
const OPEN: u64 = 1_000_000;

impl Guest for Hostile {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let served = SERVED.fetch_add(1, Ordering::Relaxed) + 1;
        let told = Told::of(&request);
        let switch = told.headers().find(|(name, _)| *name == "x-test-guest");
        match switch.map(|(_, value)| value) {
            None => Middleware::handle(request).await,
            Some(b"count") => Ok(text(served)),
            Some(b"trap") => panic!("told to"),
            Some(b"trap-after-reading") => {
                let _ = http::peek(request, 1 << 20).await;
                panic!("told to, with the body in hand")
            }
            Some(b"trap-with-an-entry") => {
                let entry = kept();
                panic!("told to, with an entry of {} bytes", entry.size())
            }
            Some(b"trap-as-leader") => {
                let turn = http::join(recording()).await;
                panic!("told to, when others may wait: {turn:?}")
            }
            Some(b"trap-with-the-answer") => {
                let response = handler::handle(request).await;
                panic!("told to, with the answer in hand: {response:?}")
            }
            Some(b"trap-after-sending") => {
                sending(request).await;
                panic!("told to, before the answer")
            }
            Some(b"spin-after-sending") => {
                sending(request).await;
                excess::spin()
            }
            Some(b"read-the-answer") => {
                let response = handler::handle(request).await?;
                let (_received, done) = wit_future::new(|| Ok(()));
                let (mut body, _trailers) = Response::consume_body(response, done);
                let (_, read) = body.read(Vec::with_capacity(1 << 16)).await;
                panic!("told to, with {} bytes read", read.len())
            }
            Some(b"spin-with-the-answer") => {
                let response = handler::handle(request).await;
                black_box(&response);
                excess::spin()
            }
            Some(b"trap-without-the-answer") => {
                drop(handler::handle(request).await);
                panic!("told to, with the answer dropped")
            }
            Some(b"trap-after-sending-twice") => {
                let (first, second) = twice(request).await;
                let responses = (handler::handle(first).await, handler::handle(second).await);
                panic!("told to, with both answers in hand: {responses:?}")
            }
            Some(b"trap-after-sending-another") => {
                let another = embeddings::with_body(&request, b"something else");
                let response = handler::handle(another).await;
                panic!("told to, with an answer to something else in hand: {response:?}")
            }
            Some(b"refuse-the-answer") => {
                drop(handler::handle(request).await);
                Err(ErrorCode::InternalError(Some("told to".into())))
            }
            Some(b"trap-while-streaming") => Ok(streamed(None, Ok(()), true)),
            Some(b"stream-too-short") => Ok(streamed(Some("10"), Ok(()), false)),
            Some(b"stream-too-long") => Ok(streamed(Some("2"), Ok(()), false)),
            Some(b"stream-failing") => {
                let error = ErrorCode::InternalError(Some("told to".into()));
                Ok(streamed(None, Err(error), false))
            }
            Some(b"spin") => excess::spin(),
            Some(b"allocate") => excess::allocate(),
            Some(b"recurse") => Ok(text(excess::recurse(u64::MAX))),
            Some(b"open") => {
                kept();
                let opened = (0..OPEN).map_while(|_| cache::lookup(&name()).ok().flatten());
                // Never dropped: their handles stay taken.
                Ok(text(opened.map(std::mem::forget).count() as u64))
            }
            Some(b"insert-a-gigabyte") => {
                let payload = black_box(vec![1; 1 << 30]);
                let options = InsertOptions { ttl_seconds: None };
                let inserted = cache::insert(&name(), b"", &payload, options);
                Ok(text(inserted.is_ok().into()))
            }
            Some(b"drop-twice") => {
                let entry = kept();
                drop(twin(&entry));
                drop(entry);
                Ok(text(0))
            }
            Some(b"peek-all") => {
                let peeked = http::peek(request, u64::MAX).await?;
                Ok(text(peeked.body.map_or(0, |body| body.len() as u64)))
            }
            Some(b"refuse") => Err(ErrorCode::InternalError(Some("told to".into()))),
            Some(_) => Err(ErrorCode::ConfigurationError),
        }
    }
}

/// Begins to send a request, and does not wait for the answer. What is begun goes on in the host
/// for as long as the guest lives.
async fn sending(request: Request) {
    let mut response = Box::pin(handler::handle(request));
    poll_fn(|cx| {
        let _ = response.as_mut().poll(cx);
        Poll::Ready(())
    })
    .await;
    std::mem::forget(response);
}

/// The same request two times.
async fn twice(request: Request) -> (Request, Request) {
    let peeked = http::peek(request, 1 << 20).await.expect("a body");
    let body = peeked.body.expect("a short one");
    let again = embeddings::with_body(&peeked.request, &body);
    (peeked.request, again)
}

fn text(number: u64) -> Response {
    http::respond(200, &[], number.to_string().as_bytes())
}

fn name() -> Name {
    Name::Prompt(Prompt {
        tenant: vec![7; 32],
        text: "of the hostile one".into(),
    })
}

/// An entry of its own, stored and opened.
fn kept() -> Entry {
    let options = InsertOptions { ttl_seconds: None };
    cache::insert(&name(), b"", b"anything", options).expect("room");
    cache::lookup(&name()).expect("a cache").expect("an entry")
}

/// A second owner of the same handle.
#[expect(
    unsafe_code,
    reason = "what the bindings keep a guest from doing is what is tested"
)]
fn twin(entry: &Entry) -> Entry {
    excess::twin!(entry)
}

fn recording() -> Recording {
    Recording {
        key: Key {
            tenant: vec![7; 32],
            digest: vec![8; 32],
        },
        shape: "chat-completions".into(),
        path: "/v1/chat/completions".into(),
        model: None,
        ttl_seconds: None,
    }
}

/// Three bytes, and an end that may fit or not.
fn streamed(length: Option<&str>, end: Result<(), ErrorCode>, trap: bool) -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (trailers, ended) = wit_future::new(|| Ok(None));
    spawn_local(async move {
        let _ = writer.write_all(b"abc".to_vec()).await;
        assert!(!trap, "told to, in the middle of a body");
        drop(writer);
        let _ = trailers.write(end.map(|()| None)).await;
    });
    let headers = Fields::new();
    if let Some(length) = length {
        let _ = headers.append("content-length", length.as_bytes());
    }
    Response::new(headers, Some(reader), ended).0
}
