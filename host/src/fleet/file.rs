//! The file in the data folder that tells, after a restart, what the fleet had purged when this edge last
//! listened.
//!
//! ```text
//! version u8 = 1 | heard at u64 | all u8 | tenants u32, each: 32 | removals u32, each: key 32 | ledger
//!     | checksum 32
//! ```
//!
//! `all` and `tenants` are purges that may not be durable in the store: they are made again at the next start.
//! The file is replaced as a whole. What it holds are hashes and times.

use super::ledger::Ledger;
use super::secret::{Name, Secret};
use crate::cache::CacheKey;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

/// Its name in the data folder.
pub(super) const FILE_NAME: &str = "fleet";

const VERSION: u8 = 1;

/// More than the longest ledger with all its removals.
const FILE_BYTES_MAX: u64 = 2 << 20;

/// What outlives the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// None: it has never heard of the fleet.
    pub(super) heard_at_ms: Option<u64>,
    pub(super) ledger: Ledger,
    /// Purges to make again.
    pub(super) again: Again,
    /// Removals that the fleet had not confirmed.
    pub(super) pending: Vec<CacheKey>,
}

/// Purges that may not be durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Again {
    pub(super) all: bool,
    pub(super) tenants: Vec<[u8; 32]>,
}

/// What was found.
#[derive(Debug)]
pub(super) enum Opened {
    /// No file: this edge never was a member.
    None,
    /// It was a member.
    Kept(Kept),
    /// It was one, and it is not known what it knew.
    Damaged,
}

pub(super) fn read(path: &Path) -> Opened {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Opened::None,
        Err(_) => Opened::Damaged,
        Ok(_) => decode(&bytes).map_or(Opened::Damaged, Opened::Kept),
    }
}

/// Writes it so that a crash leaves the old or the new one.
pub(super) fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    let draft = path.with_extension("tmp");
    let mut file = File::create(&draft)?;
    file.write_all(&encode(kept))?;
    file.sync_data()?;
    fs::rename(&draft, path)?;
    // So that the new name survives a loss of power.
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// The file is this edge's own. Its checksum finds damage, not forgery.
fn checksum() -> (Secret, Name) {
    let secret = Secret::of(b"file");
    let name = secret.name(&[b"file"]);
    (secret, name)
}

fn encode(kept: &Kept) -> Vec<u8> {
    let (secret, name) = checksum();
    let mut bytes = vec![VERSION];
    bytes.extend(kept.heard_at_ms.unwrap_or(0).to_le_bytes());
    bytes.push(kept.again.all.into());
    bytes.extend((kept.again.tenants.len() as u32).to_le_bytes());
    bytes.extend(kept.again.tenants.as_flattened());
    bytes.extend((kept.pending.len() as u32).to_le_bytes());
    for key in &kept.pending {
        bytes.extend(key.as_bytes());
    }
    bytes.extend(kept.ledger.encode(&secret, &name));
    let sum = secret.proof(&name, &bytes);
    bytes.extend(sum);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Kept> {
    let (secret, name) = checksum();
    let (bytes, sum) = bytes.split_last_chunk()?;
    if !secret.proves(&name, bytes, sum) {
        return None;
    }
    let (version, rest) = bytes.split_first()?;
    let (heard_at_ms, rest) = rest.split_first_chunk()?;
    let (all, rest) = rest.split_first()?;
    let (tenants, rest) = hashes(rest)?;
    let (keys, ledger) = hashes(rest)?;
    (*version == VERSION).then_some(())?;
    Some(Kept {
        heard_at_ms: Some(u64::from_le_bytes(*heard_at_ms)).filter(|at| *at != 0),
        ledger: Ledger::decode(&secret, &name, ledger)?,
        again: Again {
            all: *all != 0,
            tenants: tenants.to_vec(),
        },
        pending: keys.iter().map(|key| CacheKey::from_bytes(*key)).collect(),
    })
}

/// A count, and as many hashes.
fn hashes(bytes: &[u8]) -> Option<(&[[u8; 32]], &[u8])> {
    let (count, rest) = bytes.split_first_chunk()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    let (hashes, rest) = rest.split_at_checked(count.checked_mul(32)?)?;
    Some((hashes.as_chunks().0, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        let mut ledger = Ledger::default();
        ledger.purge_tenant(&[1; 32], 5);
        Kept {
            heard_at_ms: Some(7),
            ledger,
            again: Again {
                all: true,
                tenants: vec![[4; 32], [5; 32]],
            },
            pending: vec![CacheKey::from_bytes([2; 32]), CacheKey::from_bytes([3; 32])],
        }
    }

    #[test]
    fn it_comes_back_and_each_damage_is_seen() {
        for kept in [kept(), Kept::default()] {
            let whole = encode(&kept);
            assert_eq!(decode(&whole), Some(kept));
            for at in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[at] ^= 1;
                assert_eq!(decode(&bytes), None, "byte {at}");
                assert_eq!(decode(&whole[..at]), None, "cut at {at}");
            }
        }
    }

    #[test]
    fn a_missing_file_is_no_damaged_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE_NAME);
        assert!(matches!(read(&path), Opened::None));
        let kept = kept();
        write(&path, &Kept::default()).expect("written");
        write(&path, &kept).expect("written again");
        assert!(matches!(read(&path), Opened::Kept(it) if it == kept));
        fs::write(&path, b"short").expect("written");
        assert!(matches!(read(&path), Opened::Damaged));
    }
}
