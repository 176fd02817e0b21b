//! The admin API's answers for people.

use super::call::Failed;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reflex_host::serve::plain::plain as plain_text;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, Write as _};

/// Times and lists have lines of these names, in this order.
const STATS: [(&str, &str); 18] = [
    ("version", "version"),
    ("uptime_seconds", "uptime, seconds"),
    ("healthy", "healthy"),
    ("trouble", "trouble"),
    ("entries", "entries"),
    ("payload_bytes", "payload bytes"),
    ("disk_bytes", "disk bytes"),
    ("disk_bytes_max", "disk bytes, at most"),
    ("dead_bytes", "dead bytes"),
    ("queued_bytes", "queued bytes"),
    ("segments", "segments"),
    ("inserts", "inserts"),
    ("inserts_in_memory", "inserts in memory"),
    ("inserts_refused", "inserts refused"),
    ("evictions", "evictions"),
    ("lookups_given_up", "lookups given up"),
    ("store_errors", "store errors"),
    ("corrupt", "damaged entries"),
];

const ENTRY: [(&str, &str); 17] = [
    ("key", "key"),
    ("tenant", "tenant"),
    ("tenant_name", "tenant's name"),
    ("digest", "digest"),
    ("model", "model"),
    ("route", "route"),
    ("shape", "shape"),
    ("status", "status"),
    ("content_type", "content type"),
    ("payload_bytes", "payload bytes"),
    ("record_bytes", "record bytes"),
    ("input_tokens", "input tokens"),
    ("output_tokens", "output tokens"),
    ("stored_at_ms", "stored at, ms"),
    ("age_seconds", "age, seconds"),
    ("expires_at_ms", "expires at, ms"),
    ("expired", "expired"),
];

pub(super) fn purge(done: &Value) -> String {
    let would = match done["dry_run"] == true {
        true => "would be removed",
        false => "removed",
    };
    let mut text = format!(
        "{} entries, {} bytes {would}\n",
        plain(&done["entries"]),
        plain(&done["bytes"])
    );
    let behind = done["fleet"]["behind"].as_array();
    for edge in behind.into_iter().flatten() {
        let _ = writeln!(text, "not followed yet: {}", plain(edge));
    }
    text
}

pub(super) fn stats(stats: &Value) -> String {
    let mut text = lines(stats, &STATS);
    for (name, title) in [("requests", "requests"), ("saved_tokens", "saved tokens")] {
        for (label, count) in stats[name].as_object().into_iter().flatten() {
            line(&mut text, &format!("{title}, {label}"), &plain(count));
        }
    }
    text
}

pub(super) fn top(top: &Value) -> String {
    let mut text = format!(
        "{} entries, {} bytes\n",
        plain(&top["entries"]),
        plain(&top["bytes"])
    );
    for name in ["models", "routes", "tenants"] {
        // Writing to a string does not fail.
        let _ = writeln!(text, "\n{:>12} {:>16}  {name}", "entries", "bytes");
        for share in top[name].as_array().into_iter().flatten() {
            let (entries, bytes) = (plain(&share["entries"]), plain(&share["bytes"]));
            let _ = writeln!(text, "{entries:>12} {bytes:>16}  {}", plain(&share["name"]));
        }
    }
    text
}

pub(super) fn entry(entry: &Value) -> String {
    lines(entry, &ENTRY)
}

pub(super) fn export(counted: &Value) -> String {
    format!("{} entries written\n", plain(&counted["entries"]))
}

pub(super) fn import(report: &Value) -> String {
    let names = [
        ("imported", "imported"),
        ("bytes", "bytes"),
        ("already_here", "already here"),
        ("expired", "expired"),
        ("purged", "purged meanwhile"),
        ("refused", "refused"),
        ("complete", "complete"),
    ];
    let mut text = lines(report, &names);
    for wrong in report["errors"].as_array().into_iter().flatten() {
        let (number, reason) = (plain(&wrong["line"]), plain(&wrong["reason"]));
        let _ = writeln!(text, "line {number}: {reason}");
    }
    text
}

/// Prints an entry's body, byte for byte.
pub(super) fn payload(entry: &Value) -> Result<(), Failed> {
    let payload = entry["payload_base64"].as_str().unwrap_or_default();
    let payload = STANDARD.decode(payload).map_err(Failed::told)?;
    print(&payload)
}

/// The reader may close the pipe; unlike `println!`, this does not panic then.
pub(super) fn print(text: &[u8]) -> Result<(), Failed> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text).and_then(|()| out.flush());
    written.map_err(|error| Failed::told(format!("standard output: {error}")))
}

fn lines(values: &Value, names: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, title) in names {
        if !values[name].is_null() {
            line(&mut text, title, &plain(&values[name]));
        }
    }
    text
}

fn line(text: &mut String, title: &str, value: &str) {
    let _ = writeln!(text, "{title:<22} {value}");
}

/// A value without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => plain_text(text),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        value => value.to_string(),
    }
}
