//! What is exported comes back as it was, byte for byte, or not at all.

use super::*;
use std::collections::BTreeSet;

async fn export(edge: &Edge) -> String {
    let answer = get(edge, "/v1/export").await;
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body.to_vec()).expect("text")
}

async fn import(edge: &Edge, lines: &str) -> Answer {
    let ask = post(edge, "/v1/import", lines.to_owned()).chunked(1000);
    admin(edge).fetch(ask).await
}

fn set(lines: &str) -> BTreeSet<&str> {
    lines.lines().collect()
}

async fn daemon(lines: u32) -> Edge {
    let edge = Plan::daemon().start().await;
    let unix = Unix::http1(&edge.socket());
    for digest in 0..lines {
        put(&unix, 1, digest, "gpt-4o").await;
    }
    edge
}

#[tokio::test]
async fn answers_come_back_byte_for_byte_in_another_daemon() {
    let upstream = Upstream::start().await;
    let edge = filled(&upstream, &["one?", "two?"]).await;
    edge.client.fetch(Ask::stream("a stream?")).await;
    let batch = json!({"model": "small", "input": ["one text", "another text"]});
    edge.client.fetch(Ask::to("/v1/embeddings", &batch)).await;
    edge.recorded(6, 0).await;
    let exported = export(&edge).await;
    let first = exported.lines().next().expect("a first line");
    assert!(first.contains("reflex-edge-entries"), "{first}");
    assert!(
        exported.ends_with("{\"end\":true,\"entries\":7}\n"),
        "{exported}"
    );

    let other = Edge::before(&upstream).await;
    let report = import(&other, &exported).await;
    assert_eq!(report.status, 200);
    let report = report.json();
    assert_eq!(report["imported"], 7, "{report}");
    assert_eq!(report["complete"], true);
    assert_eq!(set(&export(&other).await), set(&exported));
    let calls = upstream.call_count();
    for prompt in ["one?", "two?"] {
        let ask = Ask::chat(prompt).key(Some("one"));
        let (old, new) = (
            edge.client.fetch(ask.clone()).await,
            other.client.fetch(ask).await,
        );
        assert_eq!((new.reflex(), &new.body), (HIT, &old.body));
        assert_eq!(new.headers["content-type"], old.headers["content-type"]);
    }
    let ask = Ask::stream("a stream?");
    let (old, new) = (
        edge.client.fetch(ask.clone()).await,
        other.client.fetch(ask).await,
    );
    assert_eq!((new.reflex(), &new.body), (HIT, &old.body));
    let new = other.client.fetch(Ask::to("/v1/embeddings", &batch)).await;
    assert_eq!(new.reflex(), HIT);
    assert!(!is_hit(&other, "one?", "somebody else").await);
    assert_eq!(upstream.call_count(), calls);
    // Once more changes nothing.
    let report = import(&other, &exported).await.json();
    assert_eq!(
        (&report["imported"], &report["already_here"]),
        (&json!(0), &json!(7))
    );
}

#[tokio::test]
async fn wrong_lines_are_named_and_left_out() {
    let edge = daemon(5).await;
    let exported = export(&edge).await;
    let mut lines: Vec<String> = exported.lines().map(str::to_owned).collect();
    lines[1] = lines[1].replace("\"stored_at_ms\":", "\"stored_at_ms\":1");
    lines[2] = lines[2].replace("\"payload\":\"", "\"payload\":\"AAAA");
    lines[3].truncate(100);
    let changed = lines.join("\n");
    purge(&edge, json!({"all": true})).await;
    let report = import(&edge, &changed).await;
    assert_eq!(report.status, 200);
    let report = report.json();
    assert_eq!(report["imported"], 2, "{report}");
    assert_eq!(report["refused"], 3);
    let expected = json!([
        {"line": 2, "reason": "checksum"},
        {"line": 3, "reason": "checksum"},
        {"line": 4, "reason": "not-json"},
    ]);
    assert_eq!(report["errors"], expected);
    // Strictly, the first one ends it.
    purge(&edge, json!({"all": true})).await;
    let ask = post(&edge, "/v1/import?strict=true", changed);
    let report = admin(&edge).fetch(ask).await;
    assert_eq!(report.status, 422);
    assert_eq!(report.json()["errors"][0]["line"], 2);
    assert_eq!(edge.health().await["entries"], 0);
}

#[tokio::test]
async fn a_truncated_file_is_not_complete() {
    let edge = daemon(5).await;
    let exported = export(&edge).await;
    let end = exported.find("{\"end\"").expect("a last line");
    for cut in [end, end - 1, end - 40] {
        let report = import(&edge, &exported[..cut]).await.json();
        assert_eq!(report["complete"], false, "{report}");
        let lines = u64::from(cut < end - 1);
        assert_eq!(report["refused"], lines, "{report}");
        assert_eq!(report["already_here"], 5 - lines, "{report}");
    }
}

#[tokio::test]
async fn what_is_no_export_of_ours_is_refused_as_a_whole() {
    let edge = daemon(2).await;
    let exported = export(&edge).await;
    purge(&edge, json!({"all": true})).await;
    for (from, to) in [
        ("\"version\":1", "\"version\":2"),
        ("\"keys\":", "\"keys\":9"),
        ("\"namespace\":\"default\"", "\"namespace\":\"other\""),
        ("reflex-edge-entries", "another program's"),
    ] {
        let answer = import(&edge, &exported.replacen(from, to, 1)).await;
        check_refused(&answer, 400, "format");
    }
    let (_, headless) = exported.split_once('\n').expect("lines");
    check_refused(&import(&edge, headless).await, 400, "format");
    check_refused(&import(&edge, "").await, 400, "format");
    assert_eq!(edge.health().await["entries"], 0);
    // Lines of another release's format, but for what is added to this one.
    let more = exported.replacen("{\"key\"", "{\"later\":1,\"key\"", 1);
    assert_eq!(import(&edge, &more).await.json()["imported"], 2);
}

/// A line whose parts are put together from others is another tenant's answer under this one's name: a purge
/// of its tenant would leave it.
#[tokio::test]
async fn a_key_that_is_not_of_its_tenant_is_refused_and_so_is_an_answer_that_no_insert_takes() {
    let edge = daemon(1).await;
    let exported = export(&edge).await;
    purge(&edge, json!({"all": true})).await;
    let mut lines: Vec<String> = exported.lines().map(str::to_owned).collect();
    let line: Value = serde_json::from_str(&lines[1]).expect("JSON");
    let payload = base64(line["payload"].as_str().expect("text"));
    let text = String::from_utf8(payload).expect("text");
    let error = text.replace("\"stop\"", "\"length\"");
    assert_ne!(error, text);
    for (tenant, payload, reason) in [
        ("02".repeat(32), text.clone(), "not-the-tenants-key"),
        ("01".repeat(32), error, "finish-reason"),
        (
            "01".repeat(32),
            text[..text.len() - 1].to_owned(),
            "not-json",
        ),
    ] {
        let mut changed = line.clone();
        changed["tenant"] = json!(tenant);
        changed["payload"] = json!(to_base64(payload.as_bytes()));
        changed["checksum"] = json!(checksum(&changed));
        lines[1] = changed.to_string();
        let report = import(&edge, &lines.join("\n")).await.json();
        assert_eq!(report["imported"], 0, "{report}");
        if reason == "not-the-tenants-key" {
            assert_eq!(report["errors"][0]["reason"], reason, "{report}");
        }
        assert_eq!(report["refused"], 1, "{report}");
    }
    assert_eq!(import(&edge, &exported).await.json()["imported"], 1);
}

#[tokio::test]
async fn expired_entries_stay_out() {
    let edge = Plan::daemon().start().await;
    let unix = Unix::http1(&edge.socket());
    put(&unix, 1, 1, "m").await;
    let path = format!("/v1/entries/{}/{:064x}", "01".repeat(32), 2);
    let brief = Ask::new(Method::PUT, &path, "brief").header("x-reflex-ttl", "1");
    assert_eq!(unix.fetch(brief).await.status, 201);
    let exported = export(&edge).await;
    while unix.fetch(Ask::get(&path)).await.status == 200 {
        tokio::task::yield_now().await;
    }
    // One that has expired meanwhile is not exported.
    assert!(
        export(&edge)
            .await
            .ends_with("{\"end\":true,\"entries\":1}\n")
    );
    purge(&edge, json!({"all": true})).await;
    let report = import(&edge, &exported).await.json();
    let counts = (&report["imported"], &report["complete"]);
    assert_eq!(counts, (&json!(1), &json!(true)), "{report}");
}

/// 100,000 lines, a slow reader, and inserts and purges meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn many_entries_take_bounded_memory_and_hold_up_nothing() {
    const LINES: u32 = 100_000;
    let edge = daemon(1).await;
    let exported = export(&edge).await;
    let mut lines = exported.lines();
    let (first, line) = (
        lines.next().expect("a first line"),
        lines.next().expect("one"),
    );
    let many = many_lines(first, line, LINES);
    let before = edge.memory();
    let ask = post(&edge, "/v1/import", many).chunked(64 << 10);
    let report = admin(&edge).fetch(ask).await.json();
    assert_eq!(report["imported"], LINES, "{report}");
    assert_eq!(report["complete"], true);
    edge.written().await;

    // A reader that takes a part now and then.
    let ask = Ask::get("/v1/export").key(Some(&edge.token()));
    let mut slow = admin(&edge).send(ask).await;
    slow.chunk().await.expect("a part").expect("not the end");
    // Meanwhile everything else goes on.
    let unix = Unix::http1(&edge.socket());
    for digest in 0..50 {
        put(&unix, 9, digest, "meanwhile").await;
    }
    assert_eq!(
        purge(&edge, json!({"model": "meanwhile"})).await["entries"],
        50
    );
    assert_eq!(get(&edge, "/v1/top").await.json()["entries"], LINES + 1);
    let all = slow.whole().await;
    assert!(all.body.ends_with(b"}\n"));
    // A reader that leaves gives its place back.
    for _ in 0..5 {
        let ask = Ask::get("/v1/export").key(Some(&edge.token()));
        let mut left = admin(&edge).send(ask).await;
        if left.status == 200 {
            left.chunk().await.expect("a part").expect("not the end");
        }
    }
    loop {
        let scan = json!({"model": "none", "dry_run": true}).to_string();
        let answer = admin(&edge).fetch(post(&edge, "/v1/purge", scan)).await;
        if answer.status == 200 {
            break;
        }
        check_refused(&answer, 503, "busy");
        tokio::task::yield_now().await;
    }
    assert!(edge.memory() < before + (128 << 20), "{}", edge.memory());
}

/// An import of the same answer under many keys, each of a tenant of its own, made as a program would that
/// knows `docs/admin-api.md`.
fn many_lines(first: &str, line: &str, count: u32) -> String {
    let entry: Value = serde_json::from_str(line).expect("JSON");
    let text = |name: &str| entry[name].as_str().expect("text").to_owned();
    // Short ones, as a debug build takes its time.
    let payload = to_base64(&base64(&text("payload"))[..20]);
    let stored_at_ms = entry["stored_at_ms"].as_u64().expect("a time");
    let mut lines = format!("{first}\n");
    for number in 0..count {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
        let mut line = json!({
            "key": hex(&key),
            "tenant": "03".repeat(32),
            "stored_at_ms": stored_at_ms,
            "expires_at_ms": null,
            // Version 1: status 200, no headers, no notes.
            "metadata": "AcgAAAA=",
            "payload": payload,
        });
        line["checksum"] = json!(checksum(&line));
        lines.push_str(&line.to_string());
        lines.push('\n');
    }
    lines + &format!("{{\"end\":true,\"entries\":{count}}}\n")
}

/// As `docs/admin-api.md` describes it.
fn checksum(line: &Value) -> String {
    let text = |name: &str| line[name].as_str().expect("text");
    let metadata = base64(text("metadata"));
    let mut hasher = blake3::Hasher::new();
    hasher.update(&from_hex(text("key")));
    hasher.update(&from_hex(text("tenant")));
    let time = |name: &str| line[name].as_u64().unwrap_or(u64::MAX).to_le_bytes();
    hasher.update(&time("stored_at_ms"));
    hasher.update(&time("expires_at_ms"));
    hasher.update(&(metadata.len() as u64).to_le_bytes());
    hasher.update(&metadata);
    hasher.update(&base64(text("payload")));
    hasher.finalize().to_hex().to_string()
}

fn from_hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(|pair| byte(pair).expect("digits")).collect()
}

fn to_base64(bytes: &[u8]) -> String {
    let threes = bytes.chunks(3).map(|three| {
        let value = three
            .iter()
            .fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
        let value = value << (8 * (3 - three.len()));
        let digit = |at: usize| match at <= three.len() {
            true => DIGITS[(value >> (18 - 6 * at)) as usize & 63] as char,
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    });
    threes.collect()
}

const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .bytes()
        .filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte))
        .map(|digit| digit as u32)
        .collect();
    let bytes = digits.chunks(4).flat_map(|four| {
        let value =
            four.iter().fold(0, |value, digit| value << 6 | digit) << (6 * (4 - four.len()));
        let length = four.len() * 6 / 8;
        value.to_be_bytes()[1..=length].to_vec()
    });
    bytes.collect()
}
