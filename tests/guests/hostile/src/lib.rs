//! The middleware with a switch: the header `x-test-guest` makes it misbehave, without it it
//! behaves.

// Native linkers take no symbol of the names that components export.
#![cfg(target_arch = "wasm32")]

use reflex_middleware::Middleware;
use reflex_middleware::bindings::exports::wasi::http::handler::Guest;
use reflex_middleware::bindings::reflex::cache::http;
use reflex_middleware::bindings::wasi::http::types::{ErrorCode, Request, Response};
use std::hint::black_box;

struct Hostile;

reflex_middleware::bindings::export!(Hostile with_types_in reflex_middleware::bindings);

impl Guest for Hostile {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let head = http::inspect(&request);
        let switch = head.headers.iter().find(|(name, _)| name == "x-test-guest");
        match switch.map(|(_, value)| value.as_slice()) {
            None => Middleware::handle(request).await,
            Some(b"trap") => panic!("told to"),
            Some(b"trap-after-reading") => {
                let _ = http::peek(request, 1 << 20).await;
                panic!("told to, with the body in hand")
            }
            Some(b"spin") => spin(),
            Some(b"allocate") => allocate(),
            Some(b"recurse") => Err(ErrorCode::InternalError(Some(
                recurse(u64::MAX).to_string(),
            ))),
            Some(b"refuse") => Err(ErrorCode::InternalError(Some("told to".into()))),
            Some(_) => Err(ErrorCode::ConfigurationError),
        }
    }
}

fn spin() -> ! {
    loop {
        black_box(());
    }
}

fn allocate() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(vec![1_u8; 1 << 20]));
    }
}

fn recurse(depth: u64) -> u64 {
    if black_box(depth) == 0 {
        0
    } else {
        recurse(depth - 1) + black_box(1)
    }
}
