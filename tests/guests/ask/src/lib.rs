//! A guest in Rust: answers prompts, and asks the cache before it thinks. `python`, `js` and `c`
//! beside this are the same in other languages.

// Native linkers take no symbol of the names that components export.
#![cfg(target_arch = "wasm32")]

#[allow(missing_docs, unsafe_code, unreachable_pub, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../../wit", "wit"],
        world: "reflex:example/ask",
        generate_all,
    });
    export!(Ask with_types_in self);
    use super::Ask;
}

use bindings::reflex::cache::cache::{InsertOptions, Name, Prompt, insert, lookup};
use bindings::{Answer, Guest};

struct Ask;

impl Guest for Ask {
    fn ask(tenant: Vec<u8>, prompt: String) -> Answer {
        let name = Name::Prompt(Prompt {
            tenant,
            text: prompt.clone(),
        });
        let known = look_up(&name).and_then(|payload| String::from_utf8(payload).ok());
        if let Some(text) = known {
            return Answer { text, cached: true };
        }
        let text = think(&prompt);
        let options = InsertOptions {
            ttl_seconds: Some(3600),
        };
        // The answer is good, also if the cache does not take it.
        let _ = insert(&name, b"text/plain", text.as_bytes(), options);
        Answer {
            text,
            cached: false,
        }
    }
}

/// The cached answer of that name; nothing if the cache is in trouble.
fn look_up(name: &Name) -> Option<Vec<u8>> {
    let entry = lookup(name).unwrap_or_default()?;
    let mut payload = Vec::new();
    loop {
        // One read may give less than what is asked for.
        let part = entry.read(payload.len() as u64, entry.size());
        if part.is_empty() {
            return Some(payload);
        }
        payload.extend(part);
    }
}

/// Stands for a call of a model.
fn think(prompt: &str) -> String {
    format!("You said: {prompt}")
}
