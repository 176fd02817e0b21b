//! How keys are made of fields.

use reflex_llm::{Key, KeyHasher, Tenant};

use crate::request::{chat, differ};

#[test]
fn names_and_values_cannot_run_into_each_other() {
    differ(&chat().header("x-a", "bc"), &chat().header("x-ab", "c"));
    differ(
        &chat().header("x-a", "b").header("x-c", "d"),
        &chat().header("x-a", "bx-cd"),
    );
    let digest = |fields: &[(&str, &str)]| {
        let mut hasher = KeyHasher::new();
        for (name, value) in fields {
            hasher.field(name, value.as_bytes());
        }
        hasher.finish()
    };
    assert_ne!(digest(&[("ab", "c")]), digest(&[("a", "bc")]));
    assert_ne!(digest(&[("a", ""), ("b", "")]), digest(&[("a", "b")]));
    assert_ne!(
        digest(&[("a", "x"), ("b", "y")]),
        digest(&[("b", "y"), ("a", "x")])
    );
}

/// The hasher collects small fields before it hashes them; that must not show.
#[test]
fn a_field_of_any_length_is_hashed_whole() {
    for len in [
        0, 1, 4095, 16_353, 16_354, 16_355, 16_384, 32_767, 32_768, 32_769, 50_000,
    ] {
        let value: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        for before in [0, 1, 4000, 16_384] {
            let before = vec![7; before];
            let mut plain = Vec::new();
            for part in [&b"a"[..], &before, b"b", &value] {
                plain.extend((part.len() as u64).to_le_bytes());
                plain.extend(part);
            }
            let mut hasher = KeyHasher::new();
            hasher.field("a", &before).field("b", &value);
            assert_eq!(
                hasher.finish(),
                blake3::derive_key("reflex-edge key v2", &plain)
            );
        }
    }
}

#[test]
fn the_derivation_context_names_the_version() {
    assert_eq!(KeyHasher::VERSION, 2);
    assert_eq!(
        KeyHasher::new().finish(),
        blake3::derive_key(&format!("reflex-edge key v{}", KeyHasher::VERSION), b"")
    );
}

#[test]
fn a_prompt_has_the_key_of_its_tenant_and_text() {
    let one = chat().exchange().key.tenant;
    let other = Tenant([0; 32]);
    assert_eq!(Key::for_prompt(&one, "hi"), Key::for_prompt(&one, "hi"));
    assert_ne!(Key::for_prompt(&one, "hi"), Key::for_prompt(&other, "hi"));
    assert_ne!(Key::for_prompt(&one, "hi"), Key::for_prompt(&one, "hi "));
    assert_eq!(Key::for_prompt(&one, "hi").tenant, one);
}
