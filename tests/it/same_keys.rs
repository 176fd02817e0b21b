//! One request has one key everywhere: natively, in a component, and in the filter as
//! Envoy loads it.

#[allow(dead_code, reason = "the properties of keys need the rest")]
#[path = "../../llm/tests/it/random.rs"]
mod random;

use crate::proxy_wasm::{FilterModule, Seen};
use crate::vectors::{FILES, Guest, Vector, hex, vector};
use random::{Json, Random};
use reflex_llm::{Classified, Head, Policy, classify};
use reflex_tests::envoy;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const REQUESTS: usize = 10_000;

/// These headers would keep the filter from asking the daemon, or the answer from
/// being stored.
const CONTROLS: [&str; 3] = ["cache-control", "pragma", "x-reflex-ttl"];

/// The requests of the vectors that need no policy.
fn cases() -> Vec<Vector> {
    let mut cases = Vec::new();
    for file in FILES {
        let file: Value = serde_json::from_str(file).expect("JSON");
        for case in file["cases"].as_array().expect("cases") {
            let mut case = vector(case);
            case.headers
                .retain(|(name, _)| !CONTROLS.contains(&name.as_str()));
            if !case.share_anonymous && case.tenant_header.is_none() {
                cases.push(case);
            }
        }
    }
    cases
}

/// Another request like this one: with other members, in another spelling, or of another tenant.
fn vary(case: &Vector, random: &mut Random) -> Vector {
    let mut case = case.clone();
    if let Ok(body) = serde_json::from_slice::<Value>(&case.body)
        && body.is_object()
    {
        let mut body = Json::of(&body);
        match random.below(3) {
            0 if body.count() > 1 => body.mutate(random),
            1 => body.add_member(random),
            _ => {}
        }
        let mut text = String::new();
        body.spell(random, &mut text);
        case.body = text.into_bytes();
    }
    match random.below(8) {
        0 => case.body.truncate(random.below(case.body.len() + 1)),
        1 => case.body.push(random.next() as u8),
        2 => case.headers.push((
            "authorization".into(),
            format!("Bearer {}", random.below(9)).into(),
        )),
        3 => case.headers.push((
            format!("x-{}", random.below(9)),
            vec![b'a'; random.below(5000)],
        )),
        4 => case.path.push_str("?api-version=1"),
        5 => drop(case.headers.pop()),
        _ => {}
    }
    case
}

fn natively(case: &Vector) -> Result<(Vec<u8>, Vec<u8>), String> {
    let headers: Vec<(&str, &[u8])> = case
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    let head = Head {
        method: &case.method,
        upstream: &case.upstream,
        path: &case.path,
        headers: &headers,
    };
    match classify(&head, &Policy::default(), &case.body) {
        Classified::Cacheable(exchange) => {
            let key = exchange.key;
            Ok((key.tenant.0.to_vec(), key.digest.to_vec()))
        }
        Classified::Bypass(reason) => Err(reason.detail().into()),
    }
}

#[test]
fn a_request_has_one_key_natively_in_a_component_and_in_the_filter() {
    let cases = cases();
    let mut upstreams = BTreeMap::new();
    for case in &cases {
        upstreams.insert(case.upstream.clone(), case.upstream.clone());
    }
    let configuration = json!({"upstreams": upstreams, "fill_wait_ms": 0}).to_string();
    let mut filter = FilterModule::start(&envoy::filter(), &configuration);
    let mut guest = Guest::start();
    let mut random = Random(42);
    let mut cacheable = 0;
    for number in 0..REQUESTS {
        let case = vary(&cases[random.below(cases.len())], &mut random);
        let native = natively(&case);
        let what = || format!("{number}: {}", String::from_utf8_lossy(&case.body));
        let component = guest.classify(&case);
        let component = component.map(|(tenant, digest, _)| (tenant, digest));
        assert_eq!(component, native, "in the component: {}", what());
        let seen = Seen {
            method: case.method.clone(),
            path: case.path.clone(),
            headers: case.headers.clone(),
            body: case.body.clone(),
            cluster: case.upstream.clone(),
        };
        let expected = native.ok().map(|(tenant, digest)| {
            cacheable += 1;
            format!("/v1/entries/{}/{}", hex(&tenant), hex(&digest))
        });
        assert_eq!(
            filter.looks_up(&seen),
            expected,
            "in the filter: {}",
            what()
        );
    }
    assert!(cacheable > REQUESTS / 4, "{cacheable}");
}
