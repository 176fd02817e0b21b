//! A component that misbehaves on request, with plain functions and the cache only.

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

use reflex::cache::cache::{self, Entry, Error, InsertOptions, Key, Name};
use std::hint::black_box;
use std::sync::Mutex;

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package example:rogue;

        world rogue {
            import reflex:cache/cache@0.1.0;
            /// Does something, with the entry of this key, and says how it went: a number, or the
            /// error of the cache.
            export act: func(what: string, number: u64, tenant: list<u8>, digest: list<u8>) -> result<u64, string>;
        }
    ",
    world: "example:rogue/rogue",
    generate_all,
});

struct Rogue;

export!(Rogue);

/// Entries that it never drops.
static HELD: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

impl Guest for Rogue {
    fn act(what: String, number: u64, tenant: Vec<u8>, digest: Vec<u8>) -> Result<u64, String> {
        let name = Name::Key(Key { tenant, digest });
        match &*what {
            "spin" => excess::spin(),
            "allocate" => excess::allocate(),
            "recurse" => Ok(excess::recurse(u64::MAX)),
            "trap" => panic!("told to"),
            "insert" => insert(&name, number),
            "find" => cache::contains(&name).map(u64::from).map_err(text),
            "remove" => cache::remove(&name).map(u64::from).map_err(text),
            // Opens an entry so many times.
            "open" => {
                let mut held = HELD.lock().map_err(|_| "poisoned")?;
                for _ in 0..number {
                    held.extend(cache::lookup(&name).map_err(text)?);
                }
                Ok(held.len() as u64)
            }
            // Entries that are open and still read as they were stored.
            "read" => {
                let held = HELD.lock().map_err(|_| "poisoned")?;
                let good = |entry: &&Entry| {
                    let bytes = entry.read(0, 1 << 20);
                    !bytes.is_empty() && bytes.iter().all(|&byte| byte == 1)
                };
                Ok(held.iter().filter(good).count() as u64)
            }
            "drop-twice" => {
                let entry = cache::lookup(&name).map_err(text)?.ok_or("none")?;
                drop(excess::twin!(entry));
                drop(entry);
                Ok(0)
            }
            _ => Err("unknown".into()),
        }
    }
}

fn insert(name: &Name, bytes: u64) -> Result<u64, String> {
    let payload = black_box(vec![1; bytes as usize]);
    let options = InsertOptions { ttl_seconds: None };
    cache::insert(name, b"", &payload, options).map_err(text)?;
    Ok(bytes)
}

fn text(error: Error) -> String {
    match error {
        Error::Invalid(text) => format!("invalid: {text}"),
        Error::Bypass(text) => format!("bypass: {text}"),
        Error::TooLarge(most) => format!("too-large: {most}"),
        Error::Unavailable(text) => format!("unavailable: {text}"),
        Error::Denied(text) => format!("denied: {text}"),
        Error::QuotaExceeded(text) => format!("quota-exceeded: {text}"),
    }
}
