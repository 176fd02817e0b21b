//! A program that keeps what it has worked out in the cache, through plain functions and without
//! WASI. The guest of the smallest embedding.

// Native linkers take no symbol of the names that components export.
#![cfg(target_arch = "wasm32")]
// What wit-bindgen's macro exports is unsafe by nature, and its items have no docs.
#![expect(unsafe_code, reason = "generated code")]
#![allow(missing_docs, unreachable_pub, reason = "generated code")]

use reflex::cache::cache::{self, InsertOptions, Name, Prompt};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package example:app;

        world app {
            import reflex:cache/cache@0.1.0;
            /// The answer, and whether it was in the cache.
            export answer: func(prompt: string) -> tuple<string, bool>;
        }
    ",
    world: "example:app/app",
    generate_all,
});

struct App;

export!(App);

impl Guest for App {
    fn answer(prompt: String) -> (String, bool) {
        let name = Name::Prompt(Prompt {
            // That of the grant.
            tenant: Vec::new(),
            text: prompt.clone(),
        });
        if let Ok(Some(entry)) = cache::lookup(&name) {
            let answer = entry.read(0, entry.size());
            return (String::from_utf8_lossy(&answer).into_owned(), true);
        }
        let answer: String = prompt.chars().rev().collect();
        let options = InsertOptions { ttl_seconds: None };
        // An error of the cache does not fail this program.
        let _ = cache::insert(&name, &[], answer.as_bytes(), options);
        (answer, false)
    }
}
