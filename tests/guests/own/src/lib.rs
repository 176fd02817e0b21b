//! A middleware of another author around ours: it refuses requests that are not for an LLM, and
//! signs those that it passes on.

// Native linkers take no symbol of the names that components export.
#![cfg(target_arch = "wasm32")]

use reflex_middleware::bindings::exports::wasi::http::handler::Guest;
use reflex_middleware::bindings::reflex::cache::http;
use reflex_middleware::bindings::wasi::http::types::{ErrorCode, Request, Response};
use reflex_middleware::{Middleware, Told};

struct Own;

reflex_middleware::bindings::export!(Own with_types_in reflex_middleware::bindings);

impl Guest for Own {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        if !Told::of(&request).path().starts_with("/v1/") {
            return Ok(http::respond(404, &[], b"not here"));
        }
        let response = Middleware::handle(request).await?;
        http::edit_response(&response, &[], &[("x-own".into(), b"yes".to_vec())]);
        Ok(response)
    }
}
