//! Envoy's own compression before the filter: bodies are decompressed before they are read, and
//! answers are compressed after they were recorded.

use super::{check_miss, patient};
use reflex_tests::client::{Answer, Ask};
use reflex_tests::edge::Plan;
use reflex_tests::envoy::{Envoy, EnvoyPlan};
use reflex_tests::raw_client::RawClient;
use reflex_tests::upstream::Upstream;
use serde_json::{Value, json};

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

/// Puts a filter before or behind ours, at that place of the chain.
fn with(plan: EnvoyPlan, at: usize, filter: Value) -> EnvoyPlan {
    plan.edit(move |config| {
        let filters = config.pointer_mut(&format!("{MANAGER}/http_filters"));
        let filters = filters.and_then(Value::as_array_mut).expect("filters");
        filters.insert(at, filter);
    })
}

fn compressor() -> Value {
    json!({"name": "compressor", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor",
        "compressor_library": {"name": "gzip", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip",
        }},
    }})
}

fn decompressor() -> Value {
    json!({"name": "decompressor", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.decompressor.v3.Decompressor",
        "decompressor_library": {"name": "gzip", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.compression.gzip.decompressor.v3.Gzip",
        }},
    }})
}

async fn started(filter: Value, at: usize) -> (Upstream, reflex_tests::edge::Edge, Envoy) {
    let upstream = Upstream::start().await;
    let daemon = Plan::daemon().start().await;
    let envoy = with(patient(&upstream, &daemon), at, filter).start().await;
    (upstream, daemon, envoy)
}

/// RFC 1952's checksum.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 * (crc & 1))
        })
    })
}

/// RFC 1952's format with uncompressed bytes, which every reader accepts.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a short body");
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    gzip.extend(length.to_le_bytes());
    gzip.extend((!length).to_le_bytes());
    gzip.extend(bytes);
    gzip.extend(crc32(bytes).to_le_bytes());
    gzip.extend(u32::from(length).to_le_bytes());
    gzip
}

/// Checks that a compressed body is of these bytes, by its trailer.
fn is_gzip_of(answer: &Answer, bytes: &[u8]) {
    assert_eq!(answer.header("content-encoding"), "gzip");
    assert_eq!(answer.body[..2], [0x1f, 0x8b]);
    let length = u32::try_from(bytes.len()).expect("a short body");
    let end = [crc32(bytes).to_le_bytes(), length.to_le_bytes()].concat();
    assert!(answer.body.ends_with(&end));
}

/// Envoy's decompressor adds trailers to each body, which were taken for the client's.
#[tokio::test]
async fn a_body_that_envoy_has_decompressed_is_read() {
    let (upstream, _daemon, envoy) = started(decompressor(), 0).await;
    let plain = Ask::chat("compressed on the way?");
    let first = envoy.client.fetch(plain.clone()).await;
    check_miss(&first);
    for part in [7, 1_000_000] {
        let sent = gzip(plain.sent());
        let ask = plain.clone().header("content-encoding", "gzip");
        let answer = envoy.client.fetch(ask.bytes(sent).chunked(part)).await;
        super::check_hit(&answer, &first);
    }
    assert_eq!(upstream.call_count(), 1);

    // A miss reaches the provider decompressed.
    let other = Ask::chat("another, compressed");
    let ask = other.clone().header("content-encoding", "gzip");
    let miss = envoy.client.fetch(ask.bytes(gzip(other.sent()))).await;
    check_miss(&miss);
    let sent = upstream.calls().pop().expect("a call");
    assert_eq!(
        (&sent.body, sent.header("content-encoding")),
        (other.sent(), "")
    );
    super::check_hit(&envoy.client.fetch(other).await, &miss);
}

/// One read becomes megabytes, beside the bytes that the filter holds. Envoy answered with 413.
#[tokio::test]
async fn a_long_body_that_envoy_has_decompressed_passes() {
    // Envoy's compressor makes the body: an answer that repeats a prompt.
    let (_upstream, _daemon, compressing) = started(compressor(), 0).await;
    let mut seed = 1_u32;
    let words = (0..500_000).map(|_| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ["hello-", "world-"][(seed >> 31) as usize]
    });
    let prompt: String = words.collect();
    let ask = Ask::chat(&prompt).header("accept-encoding", "gzip");
    let body = compressing.client.fetch(ask).await.body;
    assert!(body.len() < prompt.len() / 5, "{}", body.len());

    let upstream = Upstream::start().await;
    let daemon = Plan::daemon().start().await;
    let plan = with(patient(&upstream, &daemon), 0, decompressor());
    let plan = plan.edit(|config| {
        let host = format!("{MANAGER}/route_config/virtual_hosts/0");
        let host = config.pointer_mut(&host).expect("a host");
        host["request_body_buffer_limit"] = json!(119_013_376);
    });
    let envoy = plan.start().await;
    let mut client = RawClient::connect(&envoy.url).await;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer test\r\n\
         content-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let (begin, rest) = body.split_at(4000);
    client.send(head.as_bytes()).await;
    client.send(begin).await;
    let sent = (head.len() + begin.len()) as f64;
    envoy
        .until("the beginning is read", |metrics| {
            let prefix = [("envoy_http_conn_manager_prefix", "llm")];
            metrics.sum("envoy_http_downstream_cx_rx_bytes_total", &prefix) >= sent
        })
        .await;
    client.send(rest).await;
    let (head, _) = client.answer().await;
    // The provider does not understand the request, and its error reaches the client.
    assert!(!head.starts_with("HTTP/1.1 413 "), "{head}");
    assert!(head.contains("detail=\"body-too-large\""), "{head}");
    let passed = upstream.calls().pop().expect("a call").body;
    assert!(passed.len() > prompt.len());
}

/// Trailers of the client's own are in no key.
#[tokio::test]
async fn trailers_of_a_client_pass_by() {
    let upstream = Upstream::start().await;
    let envoy = EnvoyPlan::new(&upstream.url())
        .edit(|config| {
            let manager = config.pointer_mut(MANAGER).expect("a manager");
            manager["http_protocol_options"]["enable_trailers"] = json!(true);
        })
        .start()
        .await;
    let body = Ask::chat("and a trailer");
    let ask = |trailer: &str| {
        let body = String::from_utf8_lossy(body.sent()).into_owned();
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer test\r\n\
             content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n\
             {:x}\r\n{body}\r\n0\r\n{trailer}\r\n",
            body.len()
        )
    };
    let mut client = RawClient::connect(&envoy.url).await;
    for (trailer, status) in [
        ("x-signature: 1\r\n", "BYPASS"),
        ("x-envoy-decompressor-a: 1\r\nx-signature: 1\r\n", "BYPASS"),
        ("", "MISS"),
        ("x-envoy-decompressor-a: 1\r\n", "HIT"),
        ("x-signature: 1\r\n", "BYPASS"),
    ] {
        client.send(ask(trailer)).await;
        let (head, _) = client.answer().await;
        assert!(
            head.contains(&format!("x-reflex-status: {status}")),
            "{trailer}: {head}"
        );
    }
}

#[tokio::test]
async fn a_compressor_before_the_filter_compresses_misses_and_hits() {
    let (upstream, _daemon, envoy) = started(compressor(), 0).await;
    let ask = || Ask::chat(&"a long answer, please. ".repeat(20));
    let gzipped = || ask().header("accept-encoding", "gzip");
    let miss = envoy.client.fetch(gzipped()).await;
    check_miss(&miss);
    let plain = envoy.client.fetch(ask()).await;
    assert_eq!(
        (plain.reflex(), plain.header("content-encoding")),
        ("HIT_L1_EXACT", "")
    );
    is_gzip_of(&miss, &plain.body);
    let hit = envoy.client.fetch(gzipped()).await;
    assert_eq!(hit.reflex(), "HIT_L1_EXACT");
    is_gzip_of(&hit, &plain.body);
    assert_eq!(upstream.call_count(), 1);
}

/// An answer that it compresses would be recorded, and not every client could read it.
#[tokio::test]
async fn a_compressor_behind_the_filter_makes_no_hit_unreadable() {
    let (_upstream, _daemon, envoy) = started(compressor(), 1).await;
    let ask = || Ask::chat(&"a long answer, please. ".repeat(20));
    let gzipped = || ask().header("accept-encoding", "gzip");
    assert_eq!(envoy.client.fetch(gzipped()).await.reflex(), "MISS");
    let plain = envoy.client.fetch(ask()).await;
    assert_eq!(
        (plain.status.as_u16(), plain.header("content-encoding")),
        (200, "")
    );
    assert!(plain.json()["choices"].is_array());
    let hit = envoy.client.fetch(ask()).await;
    super::check_hit(&hit, &plain);
    // A client that accepts both gets the same.
    let hit = envoy.client.fetch(gzipped()).await;
    super::check_hit(&hit, &plain);
    assert_eq!(hit.header("content-encoding"), "");
}
