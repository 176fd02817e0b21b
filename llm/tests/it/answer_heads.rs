//! Which headers are kept with an answer, and which stay with the exchange that fetched it.

use reflex_llm::{Api, KEPT_BYTES_MAX, Limits, Part, Recorder, Rejected, Representation, Shape};

use crate::answers::{JSON, LIMITS};

/// A header that real providers, gateways and CDNs send, and where it goes.
const HEADERS: &[(&str, Part)] = &[
    // Without these, a page that read the miss cannot read the hit.
    ("access-control-allow-origin", Part::Answer),
    ("access-control-allow-credentials", Part::Answer),
    ("access-control-expose-headers", Part::Answer),
    ("access-control-allow-methods", Part::Answer),
    ("access-control-max-age", Part::Answer),
    ("vary", Part::Answer),
    ("cross-origin-resource-policy", Part::Answer),
    ("cross-origin-embedder-policy", Part::Answer),
    ("timing-allow-origin", Part::Answer),
    ("x-content-type-options", Part::Answer),
    ("content-security-policy", Part::Answer),
    ("strict-transport-security", Part::Answer),
    // Buffers and caches on the way.
    ("x-accel-buffering", Part::Answer),
    ("cache-control", Part::Answer),
    ("expires", Part::Answer),
    ("pragma", Part::Answer),
    // How to read it.
    ("content-type", Part::Answer),
    ("content-language", Part::Answer),
    ("content-disposition", Part::Answer),
    ("openai-version", Part::Answer),
    ("deprecation", Part::Answer),
    ("x-api-warning", Part::Answer),
    // These very bytes.
    ("etag", Part::Bytes),
    ("last-modified", Part::Bytes),
    ("content-md5", Part::Bytes),
    ("content-digest", Part::Bytes),
    ("repr-digest", Part::Bytes),
    ("digest", Part::Bytes),
    ("x-goog-hash", Part::Bytes),
    ("x-amz-checksum-crc32c", Part::Bytes),
    // One exchange.
    ("date", Part::Exchange),
    ("server", Part::Exchange),
    ("via", Part::Exchange),
    ("alt-svc", Part::Exchange),
    ("x-request-id", Part::Exchange),
    ("request-id", Part::Exchange),
    ("cf-ray", Part::Exchange),
    ("openai-processing-ms", Part::Exchange),
    ("server-timing", Part::Exchange),
    ("x-envoy-upstream-service-time", Part::Exchange),
    ("retry-after", Part::Exchange),
    ("retry-after-ms", Part::Exchange),
    ("x-should-retry", Part::Exchange),
    ("x-ratelimit-remaining-requests", Part::Exchange),
    ("x-ratelimit-remaining-tokens", Part::Exchange),
    ("x-ratelimit-reset-tokens", Part::Exchange),
    ("anthropic-ratelimit-tokens-remaining", Part::Exchange),
    ("ratelimit", Part::Exchange),
    ("x-header-of-tomorrow", Part::Exchange),
    // One call and its price.
    ("x-litellm-response-cost", Part::Call),
    ("x-compute-tokens", Part::Call),
    ("x-prompt-tokens", Part::Call),
    ("num_tokens", Part::Call),
    ("x-usage", Part::Call),
    ("x-billed-units", Part::Call),
    ("signature", Part::Call),
    ("signature-input", Part::Call),
    // One client.
    ("set-cookie", Part::Client),
    ("set-cookie2", Part::Client),
    ("openai-organization", Part::Client),
    ("anthropic-organization-id", Part::Client),
    ("mcp-session-id", Part::Client),
    ("x-csrf-token", Part::Client),
    ("cache-status", Part::Client),
    ("age", Part::Client),
    ("x-reflex-status", Part::Client),
    // One connection.
    ("connection", Part::Connection),
    ("transfer-encoding", Part::Connection),
    ("content-length", Part::Connection),
    ("keep-alive", Part::Connection),
    (":status", Part::Connection),
];

#[test]
fn each_header_belongs_where_it_is_true() {
    for &(name, part) in HEADERS {
        assert_eq!(Part::of(name), part, "{name}");
        assert_eq!(reflex_llm::is_kept(name), part.is_kept(), "{name}");
    }
    // A cookie, an account and a session reach one client only.
    assert!(!Part::Client.is_kept() && !Part::Client.is_followed());
    assert!(!Part::Bytes.survives_other_bytes() && !Part::Call.survives_other_bytes());
}

fn recorded(headers: &[(&str, &[u8])]) -> Result<Vec<(String, Vec<u8>)>, Rejected> {
    let shape = Shape::new(Api::ChatCompletions, Representation::Json);
    let limits = Limits { ..LIMITS };
    let mut recorder = Recorder::new(shape, limits);
    recorder.head(200, headers)?;
    recorder.feed(JSON);
    recorder.finish().map(|answer| answer.headers)
}

#[test]
fn the_recorder_keeps_what_belongs_to_the_answer_in_order() {
    let json: (&str, &[u8]) = ("content-type", b"application/json");
    let sent: Vec<(&str, &[u8])> = HEADERS
        .iter()
        .filter(|(name, _)| !["content-type", "content-length"].contains(name))
        .map(|&(name, _)| (name, &b"1"[..]))
        .chain([json, ("vary", b"origin")])
        .collect();
    let kept = recorded(&sent).unwrap();
    let expected: Vec<(String, Vec<u8>)> = sent
        .iter()
        .filter(|(name, _)| Part::of(name).is_kept())
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(kept, expected);
    assert_eq!(
        kept.last().unwrap(),
        &("vary".to_owned(), b"origin".to_vec())
    );
}

#[test]
fn a_head_over_its_bound_is_not_kept_and_a_long_one_that_is_not_kept_does_not_count() {
    let json: (&str, &[u8]) = ("content-type", b"application/json");
    let room = KEPT_BYTES_MAX - json.0.len() - json.1.len() - "link".len();
    let link = |bytes: usize| "x".repeat(bytes).into_bytes();
    assert_eq!(recorded(&[json, ("link", &link(room))]).unwrap().len(), 2);
    let over = recorded(&[json, ("link", &link(room + 1))]);
    assert_eq!(over, Err(Rejected::HeadTooLarge));
    let other = recorded(&[json, ("set-cookie", &link(2 * KEPT_BYTES_MAX))]);
    assert_eq!(other.unwrap().len(), 1);
}
