//! Any text as the value of a field that counts: it is accepted if it is JSON and refused if it is
//! not, and the key is that of `tests/vectors/README.md`, computed here in the simplest way.

#![no_main]

use libfuzzer_sys::fuzz_target;
use reflex_fuzz::json::{self, Json};
use reflex_llm::{Bypass, Classified, Head, Policy, classify};

const UPSTREAM: &str = "https://provider";
const PATH: &str = "/v1/chat/completions";

fn field(hasher: &mut blake3::Hasher, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), value] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
}

fn expected(tenant: &[u8; 32], canonical: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("reflex-edge key v2");
    field(&mut hasher, "tenant", tenant);
    field(&mut hasher, "upstream", UPSTREAM.as_bytes());
    field(&mut hasher, "shape", b"chat-completions");
    field(&mut hasher, "method", b"POST");
    field(&mut hasher, "path", PATH.as_bytes());
    hasher.update(&4_u64.to_le_bytes());
    hasher.update(b"body");
    hasher.update(&u64::MAX.to_le_bytes());
    hasher.update(canonical.as_bytes());
    *hasher.finalize().as_bytes()
}

fuzz_target!(|input: &[u8]| {
    let body = [b"{\"x\":", input, b"}"].concat();
    let head = Head {
        method: "POST",
        upstream: UPSTREAM,
        path: PATH,
        headers: &[("authorization", b"Bearer sk-one")],
    };
    let classified = classify(&head, &Policy::default(), &body);
    let Some(read) = json::read(&body) else {
        let Classified::Bypass(bypass) = classified else {
            panic!("what is not JSON is cacheable");
        };
        assert!(matches!(
            bypass,
            Bypass::NotJson
                | Bypass::TrailingData
                | Bypass::NotUtf8
                | Bypass::LoneSurrogate
                | Bypass::DuplicateKey
                | Bypass::TooDeep
        ));
        return;
    };
    let canonical = read.canonical();
    assert_eq!(json::read(canonical.as_bytes()), Some(read.clone()));
    let Json::Object(members) = &read else {
        unreachable!("it begins with a brace");
    };
    if members.len() > 1 {
        // It ended the field, and may have begun one with a meaning.
        return;
    }
    let Classified::Cacheable(exchange) = classified else {
        panic!("JSON is not cacheable: {classified:?}");
    };
    let tenant = exchange.key.tenant.0;
    assert_eq!(exchange.key.digest, expected(&tenant, &canonical));
});
