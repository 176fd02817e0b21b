//! `reflex-llm` inside a component, with nothing around it: the key vectors run through this, and
//! the benchmark.

// Native linkers take no symbol of the names that components export.
#![cfg(target_arch = "wasm32")]
// What wit-bindgen's macro exports is unsafe by nature, and its items have no docs.
#![expect(unsafe_code, reason = "generated code")]
#![allow(missing_docs, unreachable_pub, reason = "generated code")]

use std::hint::black_box;

use reflex_llm::{Anonymous, Classified, Head, Policy, classify};

wit_bindgen::generate!({
    inline: "
        package reflex:test;

        world vectors {
            record vector {
                method: string,
                upstream: string,
                path: string,
                headers: list<tuple<string, list<u8>>>,
                body: list<u8>,
                share-anonymous: bool,
                tenant-header: option<string>,
            }
            /// The tenant, the digest and the shape's name, or the reason for a bypass.
            export classify: func(vector: vector) -> result<tuple<list<u8>, list<u8>, string>, string>;
            /// The same so many times, for the benchmark. Returns the number of keys.
            export repeat: func(vector: vector, times: u32) -> u32;
        }
    ",
});

struct Vectors;

export!(Vectors);

impl Guest for Vectors {
    fn classify(vector: Vector) -> Result<(Vec<u8>, Vec<u8>, String), String> {
        match of(&vector) {
            Classified::Cacheable(exchange) => {
                let key = exchange.key;
                Ok((
                    key.tenant.0.to_vec(),
                    key.digest.to_vec(),
                    exchange.shape.name().into(),
                ))
            }
            Classified::Bypass(reason) => Err(reason.detail().into()),
        }
    }

    fn repeat(vector: Vector, times: u32) -> u32 {
        let is_cacheable = |_: &u32| matches!(of(black_box(&vector)), Classified::Cacheable(_));
        (0..times).filter(is_cacheable).count() as u32
    }
}

fn of(vector: &Vector) -> Classified {
    let headers: Vec<(&str, &[u8])> = vector
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    let head = Head {
        method: &vector.method,
        upstream: &vector.upstream,
        path: &vector.path,
        headers: &headers,
    };
    let policy = Policy {
        anonymous: if vector.share_anonymous {
            Anonymous::Share
        } else {
            Anonymous::Bypass
        },
        tenant_header: vector.tenant_header.as_deref(),
        ..Policy::default()
    };
    classify(&head, &policy, &vector.body)
}
