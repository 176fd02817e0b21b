//! The policy component: it serves hits, asks the provider for everything else, and keeps answers
//! as the operator's rules say. A start for your own policies.
//!
//! It needs no WASI and makes no copies: the request stays with the host, and so does the entry.

// Native linkers take no symbol of the names that components export.
#![cfg(target_arch = "wasm32")]
// The exports of wit-bindgen's macro are unsafe, and its items have no docs.
#![expect(unsafe_code, reason = "generated code")]
#![allow(missing_docs, unreachable_pub, reason = "generated code")]

use exports::reflex::cache::decider::{Decision, Guest, Keeping};
use reflex::cache::cache::Error;
use reflex::cache::request;

wit_bindgen::generate!({
    path: "../../wit",
    world: "reflex:cache/policy",
    generate_all,
});

struct Policy;

export!(Policy);

impl Guest for Policy {
    fn decide() -> Decision {
        match request::lookup() {
            Ok(Some(entry)) => Decision::Serve(entry),
            Ok(None) => Decision::Ask(Keeping { ttl_seconds: None }),
            Err(Error::Bypass(reason)) => Decision::Pass(reason),
            // An error of the cache must not fail the request.
            Err(_) => Decision::Pass("unavailable".into()),
        }
    }
}
