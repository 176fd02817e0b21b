//! A program that was written for `wasi:keyvalue` and does not know `reflex:cache`.

// Native linkers take no symbol of the names that components export.
#![cfg(target_arch = "wasm32")]
// What wit-bindgen's macro exports is unsafe by nature, and its items have no docs.
#![expect(unsafe_code, reason = "generated code")]
#![allow(missing_docs, unreachable_pub, reason = "generated code")]

use wasi::keyvalue::store::{self, Error};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package example:kv;

        world kv {
            import wasi:keyvalue/store@0.2.0-draft;
            /// How often this was called, the value of a key.
            export count: func(bucket: string, key: string) -> result<u64, string>;
            export forget: func(bucket: string, key: string) -> result<bool, string>;
            export keys: func(bucket: string) -> result<list<string>, string>;
        }
    ",
    world: "example:kv/kv",
    generate_all,
});

struct Kv;

export!(Kv);

fn text(error: Error) -> String {
    match error {
        Error::NoSuchStore => "no such store".into(),
        Error::AccessDenied => "access denied".into(),
        Error::Other(text) => text,
    }
}

impl Guest for Kv {
    fn count(bucket: String, key: String) -> Result<u64, String> {
        let bucket = store::open(&bucket).map_err(text)?;
        let value = bucket.get(&key).map_err(text)?.unwrap_or_default();
        let count = <[u8; 8]>::try_from(value).map_or(0, u64::from_le_bytes) + 1;
        bucket.set(&key, &count.to_le_bytes()).map_err(text)?;
        Ok(count)
    }

    fn forget(bucket: String, key: String) -> Result<bool, String> {
        let bucket = store::open(&bucket).map_err(text)?;
        let was_there = bucket.exists(&key).map_err(text)?;
        bucket.delete(&key).map_err(text)?;
        Ok(was_there)
    }

    fn keys(bucket: String) -> Result<Vec<String>, String> {
        let bucket = store::open(&bucket).map_err(text)?;
        Ok(bucket.list_keys(None).map_err(text)?.keys)
    }
}
