//! The key vectors, inside a component: wasm hashes what the host and all other parts
//! hash. Natively they are checked beside `reflex-llm` itself.

use serde_json::{Value, json};
use wasmtime::component::{Component, Linker, bindgen};
use wasmtime::{Engine, Store};

bindgen!({
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
            export classify: func(vector: vector) -> result<tuple<list<u8>, list<u8>, string>, string>;
        }
    ",
});

/// Requests of each API.
pub(crate) const FILES: [&str; 6] = [
    include_str!("../vectors/chat-completions.json"),
    include_str!("../vectors/completions.json"),
    include_str!("../vectors/responses.json"),
    include_str!("../vectors/embeddings.json"),
    include_str!("../vectors/anthropic-messages.json"),
    include_str!("../vectors/gemini.json"),
];

#[test]
fn keys_are_the_same_inside_a_component() {
    let mut guest = Guest::start();
    for file in FILES {
        let file: Value = serde_json::from_str(file).expect("JSON");
        let cases = file["cases"].as_array().expect("cases");
        assert!(cases.len() >= 10);
        for case in cases {
            let outcome = match guest.classify(&vector(case)) {
                Ok((tenant, digest, shape)) => {
                    json!({ "tenant": hex(&tenant), "digest": hex(&digest), "shape": shape })
                }
                Err(reason) => json!({ "bypass": reason }),
            };
            assert_eq!(outcome, case["expected"], "{}", case["name"]);
        }
    }
}

/// The component, running.
pub(crate) struct Guest {
    store: Store<()>,
    guest: Vectors,
}

impl Guest {
    pub(crate) fn start() -> Self {
        let engine = Engine::default();
        let bytes = include_bytes!(env!("REFLEX_TEST_CLASSIFY_WASM"));
        let component = Component::from_binary(&engine, bytes).expect("a component");
        let mut store = Store::new(&engine, ());
        // It imports nothing: the linker is empty.
        let guest = Vectors::instantiate(&mut store, &component, &Linker::new(&engine));
        Self {
            guest: guest.expect("instantiates"),
            store,
        }
    }

    /// The tenant, the digest and the shape's name, or the reason for a bypass.
    pub(crate) fn classify(
        &mut self,
        vector: &Vector,
    ) -> Result<(Vec<u8>, Vec<u8>, String), String> {
        let classified = self.guest.call_classify(&mut self.store, vector);
        classified.expect("no trap")
    }
}

pub(crate) fn vector(case: &Value) -> Vector {
    let (request, policy) = (&case["request"], &case["policy"]);
    let headers = request["headers"].as_array().expect("headers");
    Vector {
        method: text(&request["method"]),
        upstream: text(&request["upstream"]),
        path: text(&request["path"]),
        headers: headers
            .iter()
            .map(|pair| (text(&pair[0]), text(&pair[1]).into_bytes()))
            .collect(),
        body: match request.get("body_hex") {
            Some(hex) => unhex(&text(hex)),
            None => text(&request["body"]).into_bytes(),
        },
        share_anonymous: policy["anonymous"] == "share",
        tenant_header: policy["tenant_header"].as_str().map(str::to_owned),
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex"))
        .collect()
}
