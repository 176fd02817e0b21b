//! The format of exports: JSON Lines.
//!
//! ```text
//! {"format":"reflex-edge-entries","version":1,"namespace":"default","keys":2}
//! {"key":…,"tenant":…,"stored_at_ms":…,"expires_at_ms":…,"model":…,"route":…,"metadata":…,"payload":…,"checksum":…}
//! {"end":true,"entries":1}
//! ```
//!
//! Metadata and payload are base64, and count; model and route are for people. The checksum covers all that
//! counts, so that a changed line is refused. The last line proves that nothing is missing.

use super::route::Route;
use crate::cache::{CacheKey, Entry, METADATA_BYTES_MAX};
use crate::exchange::answer::StoredHead;
use crate::serve::tenants::{self, bytes32};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reflex_llm::{KeyHasher, Tenant};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

const FORMAT: &str = "reflex-edge-entries";
/// A reader refuses every other version.
const VERSION: u32 = 1;

/// The first line has a few words, and a namespace.
pub(super) const FIRST_LINE_BYTES_MAX: usize = 4096;
/// Of a line, what is neither metadata nor payload: names, hashes, times, and a model of 256 characters, each
/// of which may be escaped.
const FRAME_BYTES_MAX: usize = 4096;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct First<'a> {
    format: Cow<'a, str>,
    version: u32,
    #[serde(default)]
    namespace: Cow<'a, str>,
    #[serde(default)]
    keys: u32,
}

/// An entry.
#[derive(Debug, Serialize, Deserialize)]
struct Line<'a> {
    key: Cow<'a, str>,
    tenant: Cow<'a, str>,
    stored_at_ms: u64,
    expires_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<Cow<'a, str>>,
    #[serde(default)]
    route: Cow<'a, str>,
    metadata: Cow<'a, str>,
    payload: Cow<'a, str>,
    checksum: Cow<'a, str>,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
struct Last {
    end: bool,
    entries: u64,
}

/// An entry as a line has it. Its parts have been decoded and compared with their checksum, no more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) key: CacheKey,
    pub(super) tenant: [u8; 32],
    pub(super) stored_at_ms: u64,
    pub(super) expires_at_ms: Option<u64>,
    pub(super) metadata: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

/// A line after the first.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Entry(Read),
    /// Nothing is missing, if there were so many entries.
    End {
        entries: u64,
    },
}

/// The longest line for entries of this size.
pub(super) fn line_bytes_max(entry_bytes_max: u64) -> usize {
    let bytes = usize::try_from(entry_bytes_max).unwrap_or(usize::MAX / 2);
    let base64 = |bytes: usize| bytes.div_ceil(3).saturating_mul(4);
    base64(bytes)
        .saturating_add(base64(METADATA_BYTES_MAX))
        .saturating_add(FRAME_BYTES_MAX)
}

pub(super) fn first(namespace: &str) -> String {
    text(&First {
        format: FORMAT.into(),
        version: VERSION,
        namespace: namespace.into(),
        keys: KeyHasher::VERSION,
    })
}

pub(super) fn last(entries: u64) -> String {
    text(&Last { end: true, entries })
}

/// The line of an entry.
pub(super) fn entry(key: &CacheKey, entry: &Entry) -> String {
    let (metadata, payload) = (entry.metadata(), entry.payload());
    let (tenant, times) = (
        entry.tenant(),
        (entry.stored_at_ms(), entry.expires_at_ms()),
    );
    let stored = StoredHead::read(metadata);
    let checksum = checksum(key, &tenant, times, metadata, &payload);
    text(&Line {
        key: hex(key.as_bytes()).into(),
        tenant: hex(&tenant).into(),
        stored_at_ms: times.0,
        expires_at_ms: times.1,
        model: stored
            .as_ref()
            .and_then(|stored| Some(stored.model?.into())),
        route: Route::of(stored.as_ref()).name().into(),
        metadata: STANDARD.encode(metadata).into(),
        payload: STANDARD.encode(payload).into(),
        checksum: checksum.into(),
    })
}

/// Reads the first line.
///
/// # Errors
///
/// This is no export, or one that this daemon would not find again.
pub(super) fn read_first(line: &[u8], namespace: &str) -> Result<(), String> {
    let first: First<'_> = serde_json::from_slice(line)
        .map_err(|error| format!("the first line is not that of an export: {error}"))?;
    if first.format != FORMAT {
        return Err("the first line is not that of an export".into());
    }
    if first.version != VERSION {
        return Err(format!(
            "the export has version {}, and this release reads {VERSION}",
            first.version
        ));
    }
    if first.keys != KeyHasher::VERSION {
        return Err(format!(
            "the export has keys of version {}, and this release makes {}: no entry would be found",
            first.keys,
            KeyHasher::VERSION
        ));
    }
    if first.namespace != namespace {
        return Err(format!(
            "the export is of the namespace {:?}, and this daemon's is {namespace:?}: no entry \
             would be found",
            first.namespace
        ));
    }
    Ok(())
}

/// Reads a line after the first.
///
/// # Errors
///
/// One word that names what is wrong with it.
pub(super) fn read(line: &[u8]) -> Result<Next, &'static str> {
    let Ok(entry) = serde_json::from_slice::<Line<'_>>(line) else {
        return match serde_json::from_slice::<Last>(line) {
            Ok(Last { end: true, entries }) => Ok(Next::End { entries }),
            _ => Err("not-json"),
        };
    };
    let key = bytes32(&entry.key).ok_or("key")?;
    let read = Read {
        key: CacheKey::from_bytes(key),
        tenant: bytes32(&entry.tenant).ok_or("tenant")?,
        stored_at_ms: entry.stored_at_ms,
        expires_at_ms: entry.expires_at_ms,
        metadata: STANDARD.decode(&*entry.metadata).map_err(|_| "metadata")?,
        payload: STANDARD.decode(&*entry.payload).map_err(|_| "payload")?,
    };
    let times = (read.stored_at_ms, read.expires_at_ms);
    let own = checksum(
        &read.key,
        &read.tenant,
        times,
        &read.metadata,
        &read.payload,
    );
    match own == entry.checksum {
        true => Ok(Next::Entry(read)),
        false => Err("checksum"),
    }
}

fn checksum(
    key: &CacheKey,
    tenant: &[u8; 32],
    (stored_at_ms, expires_at_ms): (u64, Option<u64>),
    metadata: &[u8],
    payload: &[u8],
) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.as_bytes());
    hasher.update(tenant);
    hasher.update(&stored_at_ms.to_le_bytes());
    // No expiry is that late.
    hasher.update(&expires_at_ms.unwrap_or(u64::MAX).to_le_bytes());
    hasher.update(&(metadata.len() as u64).to_le_bytes());
    hasher.update(metadata);
    hasher.update(payload);
    hasher.finalize().to_hex().to_string()
}

fn hex(bytes: &[u8; 32]) -> String {
    tenants::text(&Tenant(*bytes))
}

/// One line, its end included.
fn text(value: &impl Serialize) -> String {
    // Structs of strings and numbers can always be written.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Cache, CacheOptions, NewEntry};

    const KEY: CacheKey = CacheKey::from_bytes([1; 32]);

    fn written(expires: Option<u64>) -> String {
        let cache = Cache::in_memory(&CacheOptions::default());
        let new = NewEntry {
            key: &KEY,
            tenant: &[2; 32],
            metadata: b"m",
            payload: b"payload\n\xff",
            now_ms: 5,
            ttl_ms: expires,
        };
        entry(&KEY, &cache.insert(new).expect("stored"))
    }

    #[test]
    fn what_was_written_is_read() {
        for ttl in [None, Some(7)] {
            let line = written(ttl);
            assert_eq!(line.matches('\n').count(), 1);
            let expected = Read {
                key: KEY,
                tenant: [2; 32],
                stored_at_ms: 5,
                expires_at_ms: ttl.map(|ttl| 5 + ttl),
                metadata: b"m".to_vec(),
                payload: b"payload\n\xff".to_vec(),
            };
            assert_eq!(read(line.as_bytes()), Ok(Next::Entry(expected)));
        }
        assert_eq!(read(last(9).as_bytes()), Ok(Next::End { entries: 9 }));
        assert_eq!(read_first(first("a\"b").as_bytes(), "a\"b"), Ok(()));
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_refused() {
        let line = written(Some(7));
        let text = line.trim_end();
        for cut in 0..text.len() {
            assert!(read(&text.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
        let same = read(text.as_bytes());
        for at in 0..text.len() {
            let mut changed = text.as_bytes().to_vec();
            changed[at] ^= 1;
            let read = read(&changed);
            // A route is for people, and a changed name of an optional member is another member.
            assert!(read.is_err() || read == same, "changed at {at}");
        }
    }

    #[test]
    fn what_this_daemon_would_not_find_is_refused_at_the_first_line() {
        let good = first("default");
        for (from, to, part) in [
            ("reflex-edge-entries", "other", "not that of an export"),
            ("\"version\":1", "\"version\":2", "version 2"),
            ("\"keys\":", "\"keys\":9", "keys of version 9"),
            ("default", "elsewhere", "namespace"),
            ("{", "", "not that of an export"),
        ] {
            let line = good.replace(from, to);
            let error = read_first(line.as_bytes(), "default").expect_err(to);
            assert!(error.contains(part), "{error}");
        }
    }
}
