//! Looks at all entries, for operators: exports, top lists, and purges by what an entry says of itself.
//!
//! ```text
//! keys of the queue ─► of memory ─► of the index, a part of the keys at a time, in the order of the disk
//!                                      └► head: header and metadata only   or   peek: the whole entry
//! ```
//!
//! A scan blocks no lookup and takes no lock of the writer. It holds at most about [`KEYS_MAX`] keys, and
//! it reads while no map is pinned, so that its caller may take as long as it likes. An entry that is there
//! from the beginning to the end is seen once; one that is stored meanwhile may be seen or not.

use super::removal::Counted;
use super::{Cache, CacheKey, Entry, Purged, Shared, Use, heir, queue};
use crate::store::{NEVER, Place};
use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;

/// Keys held at once: 24 MiB with their places. Each such part costs one look at the whole index, which
/// takes some 100 ns a key; ten million entries are 32 parts.
#[cfg(not(test))]
const KEYS_MAX: usize = 1 << 19;
#[cfg(test)]
const KEYS_MAX: usize = 8;

/// An entry without its payload. Read without the payload's checksum: an entry whose payload is damaged is
/// seen, too.
#[derive(Debug)]
pub struct EntryHead<'a> {
    /// Its key.
    pub key: CacheKey,
    /// Whose it is.
    pub tenant: [u8; 32],
    /// As stored.
    pub metadata: &'a [u8],
    /// Length of the payload in bytes.
    pub payload_bytes: u64,
    /// The space that the entry takes, in bytes.
    pub record_bytes: u64,
    /// When it was stored, in milliseconds since 1970.
    pub stored_at_ms: u64,
    /// When it expires, in milliseconds since 1970; `None` is never.
    pub expires_at_ms: Option<u64>,
}

impl EntryHead<'_> {
    fn of(key: CacheKey, entry: &Entry) -> EntryHead<'_> {
        EntryHead {
            key,
            tenant: entry.tenant(),
            metadata: entry.metadata(),
            payload_bytes: entry.payload_bytes(),
            record_bytes: entry.record_bytes(),
            stored_at_ms: entry.stored_at_ms(),
            expires_at_ms: entry.expires_at_ms(),
        }
    }
}

impl Cache {
    /// The entry of a key, expired or not, without counting as a use of it. May wait for the disk.
    pub fn peek(&self, key: &CacheKey, now_ms: u64) -> Option<Entry> {
        self.shared.find(key, Use::None, now_ms)
    }

    /// Calls `visit` with the key of each entry, expired ones included, until it breaks; whether it did.
    /// Takes long, so call it on a thread of its own.
    pub fn for_each_key(&self, mut visit: impl FnMut(&CacheKey) -> ControlFlow<()>) -> bool {
        let shared = &*self.shared;
        shared.for_each_key(&mut visit).is_break()
    }

    /// As [`for_each_key`](Self::for_each_key), with each entry's metadata. It reads those from disk,
    /// about in the order in which they lie there, and no payloads.
    pub fn for_each_head(&self, mut visit: impl FnMut(&EntryHead<'_>) -> ControlFlow<()>) -> bool {
        let shared = &*self.shared;
        let mut bytes = Vec::new();
        let looked = shared.for_each_key(&mut |key| {
            match shared.look_at(key, &mut bytes, Evicted::Gone, &mut visit) {
                Looked::Seen(flow) => flow,
                // What cannot be read cannot be served either.
                Looked::Gone | Looked::Unreadable => ControlFlow::Continue(()),
            }
        });
        looked.is_break()
    }

    /// Removes all entries that are `which`, for good, and returns how many those were. An answer that was
    /// asked for before this call is not stored any more, whether or not it would be `which`: that is not
    /// known of it yet. Edges drop all their copies, for the same reason.
    ///
    /// An entry whose metadata cannot be read is removed as well.
    ///
    /// Takes long: it reads the metadata of every entry, and is [`sync`](Self::sync)ed at the end.
    ///
    /// # Errors
    ///
    /// The data folder cannot be used yet, and nothing was purged; or as of [`sync`](Self::sync): the
    /// entries are gone in this process, but perhaps not durably.
    pub fn purge_where(
        &self,
        mut which: impl FnMut(&EntryHead<'_>) -> bool,
    ) -> io::Result<Counted> {
        if self.shared.is_disk_awaited() {
            let why = "the data folder cannot be used yet, and nothing was purged";
            return Err(io::Error::other(why));
        }
        if !self.shared.leaving.has_not_begun() {
            return Err(heir::has_left());
        }
        let (shared, mut bytes) = (&*self.shared, Vec::new());
        let mut counted = Counted::default();
        let _ = shared.purges.note(Purged::Matching, || {
            shared.for_each_key(&mut |key| {
                let mut meant = None;
                let looked = shared.look_at(key, &mut bytes, Evicted::Seen, &mut |head| {
                    meant = which(head).then_some(head.record_bytes);
                    ControlFlow::Continue(())
                });
                if let Looked::Unreadable = looked {
                    meant = Some(0);
                }
                if let Some(bytes) = meant
                    && self.remove_quietly(key)
                {
                    counted.add(1, bytes);
                }
                ControlFlow::Continue(())
            })
        });
        self.sync().map(|()| counted)
    }
}

impl Shared {
    fn for_each_key(&self, visit: &mut dyn FnMut(&CacheKey) -> ControlFlow<()>) -> ControlFlow<()> {
        // What is written leaves the queue when it is in the index, so the queue comes first.
        let mut seen: HashSet<[u8; 32]> = HashSet::new();
        for key in self.queue.keys() {
            if seen.insert(key) {
                visit(&CacheKey::from_bytes(key))?;
            }
        }
        let mut parts = Parts::of(self.memory.len());
        while let Some(part) = parts.next() {
            let keys = self.memory.keys(|key| part.has(key) && !seen.contains(key));
            for key in &keys {
                visit(&CacheKey::from_bytes(*key))?;
            }
            // Few, as a rule none: memory has entries only while the disk is in trouble.
            if self.index.len() > 0 {
                seen.extend(keys);
            }
        }
        let mut parts = Parts::of(self.index.len());
        while let Some(part) = parts.next() {
            let mut keys = Vec::new();
            self.index.each(|key, place| {
                if part.has(key) && !seen.contains(key) {
                    keys.push((place.segment_id(), place.offset(), *key));
                }
            });
            keys.sort_unstable();
            for (_, _, key) in keys {
                visit(&CacheKey::from_bytes(key))?;
            }
        }
        ControlFlow::Continue(())
    }

    fn look_at(
        &self,
        key: &CacheKey,
        bytes: &mut Vec<u8>,
        evicted: Evicted,
        visit: &mut impl FnMut(&EntryHead<'_>) -> ControlFlow<()>,
    ) -> Looked {
        let in_memory = match self.queue.find(key.as_bytes()) {
            queue::Found::Entry(entry) => Some(entry),
            queue::Found::Removed => return Looked::Gone,
            queue::Found::Nothing => None,
            queue::Found::Forgotten => self.memory.peek(key.as_bytes()),
        };
        if let Some(entry) = in_memory {
            return Looked::Seen(visit(&EntryHead::of(*key, &entry)));
        }
        let Some(place) = self.index.find(key.as_bytes(), Place::clone) else {
            return match self.memory.peek(key.as_bytes()) {
                Some(entry) => Looked::Seen(visit(&EntryHead::of(*key, &entry))),
                None => Looked::Gone,
            };
        };
        if evicted == Evicted::Gone && place.is_evicted() {
            return Looked::Gone;
        }
        let Some(header) = place.read_head(key.as_bytes(), bytes) else {
            return Looked::Unreadable;
        };
        Looked::Seen(visit(&EntryHead {
            key: *key,
            tenant: header.tenant,
            metadata: &bytes[header.shape().metadata()],
            payload_bytes: header.payload_bytes.into(),
            record_bytes: header.shape().record_bytes(),
            stored_at_ms: header.stored_at_ms,
            expires_at_ms: Some(header.expires_at_ms).filter(|at| *at != NEVER),
        }))
    }
}

/// What an entry is that was evicted because its tenant had stored too much, and is on disk yet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Evicted {
    /// No lookup finds it.
    Gone,
    /// It counts again after a restart, so a purge must not leave it there.
    Seen,
}

/// The outcome of a look at an entry's head.
enum Looked {
    Seen(ControlFlow<()>),
    Gone,
    /// Purged with its tenant, its segment was reclaimed, or it cannot be read.
    Unreadable,
}

/// The parts in which keys are looked at, by their first bits: keys are random.
struct Parts {
    bits: u32,
    next: u32,
}

/// The keys that begin with these bits.
#[derive(Clone, Copy)]
struct Part {
    bits: u32,
    number: u32,
}

impl Parts {
    fn of(keys: u64) -> Self {
        let parts = keys.div_ceil(KEYS_MAX as u64).max(1).next_power_of_two();
        Self {
            bits: parts.ilog2().min(31),
            next: 0,
        }
    }

    fn next(&mut self) -> Option<Part> {
        let part = Part {
            bits: self.bits,
            number: self.next,
        };
        self.next += 1;
        (part.number < 1 << self.bits).then_some(part)
    }
}

impl Part {
    fn has(self, key: &[u8; 32]) -> bool {
        let [a, b, c, d, ..] = *key;
        u64::from(u32::from_be_bytes([a, b, c, d])) >> (32 - self.bits) == u64::from(self.number)
    }
}
