//! The cost of a key: reading, canonicalising and hashing a request, natively and in wasm.
//!
//! In wasm it is the same code in a component, built as all our guests and the filter are, and run
//! by wasmtime. The guest repeats it, so that the way into it does not count.

use crate::clock::thread_nanoseconds;
use crate::{ROUNDS, median, report};
use reflex_llm::{Classified, Head, Policy, classify};
use std::hint::black_box;
use std::process::ExitCode;
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
            export repeat: func(vector: vector, times: u32) -> u32;
        }
    ",
});

/// Bodies of these lengths, and how often each is read in a round: for long enough that it does
/// not matter that the system counts a thread's time by the millisecond.
const SIZES: [(&str, usize, u32); 3] = [
    ("1 KiB", 1 << 10, 100_000),
    ("16 KiB", 16 << 10, 20_000),
    ("256 KiB", 256 << 10, 2000),
];

const HEADERS: [(&str, &str); 5] = [
    (
        "authorization",
        "Bearer sk-0123456789abcdefghijklmnopqrstuv",
    ),
    ("content-type", "application/json"),
    ("accept", "application/json"),
    ("user-agent", "OpenAI/Python 1.0.0"),
    ("x-stainless-lang", "python"),
];

const UPSTREAM: &str = "https://api.openai.com";
const PATH: &str = "/v1/chat/completions";

/// A chat with lines of text in it, this many bytes in all.
fn body(bytes: usize) -> Vec<u8> {
    const LINE: &str = "Once upon a midnight dreary, while I pondered, weak and weary,\\n";
    let start = r#"{"model":"gpt-4o","temperature":0.2,"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":""#;
    let end = r#""}]}"#;
    let mut text = LINE.repeat(bytes / LINE.len());
    text.truncate(bytes - start.len() - end.len());
    // An escape must not be cut in two.
    let text = text.trim_end_matches('\\');
    let fill = bytes - start.len() - end.len() - text.len();
    format!("{start}{text}{}{end}", "x".repeat(fill)).into()
}

pub(crate) fn run() -> ExitCode {
    println!("classify: a request's key, from head and body");
    let engine = Engine::default();
    let bytes = include_bytes!(env!("REFLEX_TEST_CLASSIFY_WASM"));
    let component = Component::from_binary(&engine, bytes).expect("a component");
    let mut store = Store::new(&engine, ());
    // It imports nothing: the linker is empty.
    let guest =
        Vectors::instantiate(&mut store, &component, &Linker::new(&engine)).expect("instantiates");
    for (name, length, times) in SIZES {
        let body = body(length);
        assert_eq!(body.len(), length);
        let vector = Vector {
            method: "POST".into(),
            upstream: UPSTREAM.into(),
            path: PATH.into(),
            headers: HEADERS
                .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
                .into(),
            body: body.clone(),
            share_anonymous: false,
            tenant_header: None,
        };
        let (mut native, mut wasm) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            native.push(microseconds(times, || {
                let keys = (0..times).filter(|_| is_cacheable(black_box(&body)));
                assert_eq!(keys.count(), times as usize);
            }));
            wasm.push(microseconds(times, || {
                let keys = guest.call_repeat(&mut store, &vector, times);
                assert_eq!(keys.expect("no trap"), times);
            }));
        }
        report(&format!("{name}, natively"), median(native), "µs");
        report(&format!("{name}, in wasm"), median(wasm), "µs");
    }
    println!();
    ExitCode::SUCCESS
}

fn is_cacheable(body: &[u8]) -> bool {
    let headers = HEADERS.map(|(name, value)| (name, value.as_bytes()));
    let head = Head {
        method: "POST",
        upstream: UPSTREAM,
        path: PATH,
        headers: &headers,
    };
    matches!(
        classify(&head, &Policy::default(), body),
        Classified::Cacheable(_)
    )
}

fn microseconds(times: u32, run: impl FnOnce()) -> f64 {
    let began = thread_nanoseconds();
    run();
    (thread_nanoseconds() - began) / 1e3 / f64::from(times)
}
