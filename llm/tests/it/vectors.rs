//! `tests/vectors`, natively. Its README says what is in the files and how they change.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use reflex_llm::{Anonymous, Classified, Key, KeyHasher, Tenant};
use serde_json::{Value, json};

use crate::request::{Request, many_values_change_nothing};

const PROMPTS: &str = "prompts.json";
const ITEMS: &str = "items.json";

#[test]
fn vectors_of_chat_completions() {
    requests("chat-completions.json", 40);
}

#[test]
fn vectors_of_completions() {
    requests("completions.json", 10);
}

#[test]
fn vectors_of_responses() {
    requests("responses.json", 20);
}

#[test]
fn vectors_of_embeddings() {
    requests("embeddings.json", 10);
}

/// The keys of the texts of a batch.
#[test]
fn vectors_of_batches_of_embeddings() {
    let cases = check("embedding-batches.json", |case| {
        let batch = request(case).batch(|batch| {
            let elements = batch.elements().iter();
            let digests: Vec<String> = elements.map(|it| hex(&it.key.digest)).collect();
            json!({ "digests": digests, "places": batch.places() })
        });
        batch.unwrap_or(Value::Null)
    });
    assert!(cases.len() >= 7);
    for case in &cases {
        let is_whole = text(&case["name"]).starts_with("whole: ");
        assert_eq!(is_whole, case["expected"].is_null(), "{}", case["name"]);
    }
}

#[test]
fn vectors_of_anthropic_messages() {
    requests("anthropic-messages.json", 20);
}

#[test]
fn vectors_of_gemini() {
    requests("gemini.json", 25);
}

/// Checks a file with at least this many requests.
fn requests(file: &str, least: usize) {
    let cases = check(file, |case| {
        many_values_change_nothing(&request(case));
        let expected = |exchange: reflex_llm::Exchange| {
            json!({
                "tenant": hex(&exchange.key.tenant.0),
                "digest": hex(&exchange.key.digest),
                "shape": exchange.shape.name(),
            })
        };
        match request(case).classify() {
            Classified::Cacheable(exchange) => expected(exchange),
            Classified::Bypass(bypass) => json!({ "bypass": bypass.detail() }),
        }
    });
    assert!(cases.len() >= least, "{file}");

    let digests: HashMap<&str, &str> = cases
        .iter()
        .filter_map(|case| Some((text(&case["name"]), case["expected"]["digest"].as_str()?)))
        .collect();
    for case in &cases {
        let name = text(&case["name"]);
        if let Some(other) = case.get("key_equals") {
            assert_eq!(digests[name], digests[text(other)], "{name}");
        }
        for other in case.get("key_differs").into_iter().flat_map(list) {
            assert_ne!(digests[name], digests[text(other)], "{name}");
        }
        assert_eq!(
            name.starts_with("bypass: "),
            !digests.contains_key(name),
            "{name}"
        );
    }
}

#[test]
fn vectors_of_prompts() {
    let cases = check(PROMPTS, |case| {
        let tenant = unhex(text(&case["tenant"])).try_into().unwrap();
        json!(hex(&Key::for_prompt(
            &Tenant(tenant),
            text(&case["prompt"])
        )
        .digest))
    });
    let digests: HashSet<&str> = cases.iter().map(|case| text(&case["expected"])).collect();
    assert_eq!(digests.len(), cases.len());
}

#[test]
fn vectors_of_items() {
    let cases = check(ITEMS, |case| {
        let tenant = Tenant(unhex(text(&case["tenant"])).try_into().unwrap());
        let key = Key::for_item(&tenant, text(&case["bucket"]), text(&case["key"]));
        json!(hex(&key.digest))
    });
    let digests: HashSet<&str> = cases.iter().map(|case| text(&case["expected"])).collect();
    assert_eq!(digests.len(), cases.len());
}

/// Compares each case of a file with its expectation, or, when blessing, writes those that are
/// free to be written.
fn check(file: &str, actual: impl Fn(&Value) -> Value) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/vectors")
        .join(file);
    let mut vectors: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let version = vectors["version"].as_u64().unwrap();
    let bless = std::env::var_os("REFLEX_BLESS").is_some();
    assert!(
        version == u64::from(KeyHasher::VERSION)
            || (bless && version < u64::from(KeyHasher::VERSION)),
        "{file} is of version {version}"
    );

    let mut names = HashSet::new();
    let cases = vectors["cases"].as_array_mut().unwrap();
    for case in cases.iter_mut() {
        let name = text(&case["name"]).to_owned();
        let actual = actual(case);
        let free = case.get("expected").is_none() || version < u64::from(KeyHasher::VERSION);
        if bless && free {
            case["expected"] = actual;
        } else {
            assert_eq!(
                case["expected"], actual,
                "{name}: a change of keys needs a new KeyHasher::VERSION"
            );
        }
        assert!(names.insert(name), "names are unique");
    }
    let cases = cases.clone();
    if bless {
        vectors["version"] = KeyHasher::VERSION.into();
        let text = serde_json::to_string_pretty(&vectors).unwrap();
        std::fs::write(&path, text + "\n").unwrap();
    }
    cases
}

fn request(case: &Value) -> Request {
    let request = &case["request"];
    let policy = &case["policy"];
    Request {
        method: text(&request["method"]).into(),
        upstream: text(&request["upstream"]).into(),
        path: text(&request["path"]).into(),
        headers: list(&request["headers"])
            .map(|pair| (text(&pair[0]).into(), text(&pair[1]).into()))
            .collect(),
        body: match request.get("body_hex") {
            Some(hex) => unhex(text(hex)),
            None => text(&request["body"]).into(),
        },
        tenant_header: policy["tenant_header"].as_str().map(str::to_owned),
        anonymous: match text(&policy["anonymous"]) {
            "bypass" => Anonymous::Bypass,
            "share" => Anonymous::Share,
            other => panic!("{other}"),
        },
        temperature_max: None,
        rules: std::sync::Arc::default(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap().iter()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().as_chunks::<2>().0.iter();
    digits
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
