//! A policy component that misbehaves on request: the prompt says how.

// Native linkers take no symbol of the names that components export.
#![cfg(target_arch = "wasm32")]
// What wit-bindgen's macro exports is unsafe by nature, and its items have no docs.
#![expect(
    unsafe_code,
    reason = "generated code, and a handle that is dropped twice"
)]
#![allow(missing_docs, unreachable_pub, reason = "generated code")]

#[path = "../../hostile/src/excess.rs"]
mod excess;

use exports::reflex::cache::decider::{Decision, Guest, Keeping};
use reflex::cache::cache::{Entry, Error};
use reflex::cache::request;
use std::sync::atomic::{AtomicU16, Ordering};

wit_bindgen::generate!({
    path: "../../../wit",
    world: "reflex:cache/policy",
    generate_all,
});

struct Unruly;

export!(Unruly);

/// Questions that this instance was asked.
static ASKED: AtomicU16 = AtomicU16::new(0);

impl Guest for Unruly {
    fn decide() -> Decision {
        let asked = ASKED.fetch_add(1, Ordering::Relaxed) + 1;
        match request::read(0, 100).as_slice() {
            b"spin" => excess::spin(),
            b"allocate" => excess::allocate(),
            b"recurse" => Decision::Pass(excess::recurse(u64::MAX).to_string()),
            b"trap" => panic!("told to"),
            b"trap-with-an-entry" => panic!("told to, with {:?}", request::lookup()),
            b"count" => Decision::Refuse((asked, String::new())),
            b"other-tenant" => match request::act_for(&[9; 32]) {
                Err(Error::Denied(reason)) => Decision::Pass(reason),
                other => Decision::Pass(format!("{other:?}")),
            },
            b"as-two" => {
                // The first one's is forgotten.
                let found = request::lookup().map(drop);
                match found.and_then(|()| request::act_for(&[9; 32])) {
                    Ok(()) => looked_up(),
                    Err(error) => Decision::Pass(format!("{error:?}")),
                }
            }
            b"open" => {
                let opened = (0..1_000_000).map_while(|_| request::lookup().ok().flatten());
                Decision::Pass(opened.map(std::mem::forget).count().to_string())
            }
            b"drop-twice" => {
                if let Ok(Some(entry)) = request::lookup() {
                    drop(excess::twin!(entry));
                    drop(entry);
                }
                Decision::Pass("dropped".into())
            }
            _ => looked_up(),
        }
    }
}

fn looked_up() -> Decision {
    match request::lookup() {
        Ok(Some(entry)) => Decision::Serve(entry),
        _ => Decision::Ask(Keeping { ttl_seconds: None }),
    }
}
