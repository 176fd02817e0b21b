//! The contenders: each keeps payloads by key, in the way of its usual users.

mod files;
mod foyer;
mod lmdb;
mod moka;
mod ours;
mod redb;
mod redis;

use std::path::Path;

/// Ours, because it is made from other things; the rest take its bytes.
pub(crate) use reflex_host::cache::CacheKey as Key;

/// A store that can be measured. Failures are panics: a contender that fails has no figures.
pub(crate) trait Contender {
    /// Stores a payload. It need not be durable.
    fn insert(&mut self, key: &Key, payload: &[u8]);

    /// Stores all, and returns when they are durable together. False: the store cannot do that.
    fn insert_durably(&mut self, _keys: &[Key], _payload: &[u8]) -> bool {
        false
    }

    /// The length of a payload, whose first and last byte were looked at.
    fn get(&mut self, key: &Key) -> Option<usize>;

    /// Ends, with all durable data on disk.
    fn close(self: Box<Self>);

    /// The server, where it is another process.
    fn server(&self) -> Option<u32> {
        None
    }
}

/// How to open a contender, and its properties.
pub(crate) struct Entrant {
    pub(crate) name: &'static str,
    /// Opens what is in a folder, or begins there.
    pub(crate) open: fn(&Path) -> Box<dyn Contender>,
    /// Payloads are in its own memory, and do not count as memory of an entry.
    pub(crate) holds_payloads: bool,
    /// All is gone at the end.
    pub(crate) is_volatile: bool,
    /// No more entries are possible.
    pub(crate) entries_max: usize,
    pub(crate) is_there: fn() -> Result<(), String>,
}

const USUAL: Entrant = Entrant {
    name: "",
    open: ours::open,
    holds_payloads: false,
    is_volatile: false,
    entries_max: usize::MAX,
    is_there: || Ok(()),
};

/// All contenders, in the order of the table.
pub(crate) const ENTRANTS: [Entrant; 7] = [
    Entrant {
        name: "ours",
        open: ours::open,
        ..USUAL
    },
    Entrant {
        name: "a mapped file each",
        open: files::open,
        // One more mapping than a process may have, less its own.
        entries_max: 60_000,
        ..USUAL
    },
    Entrant {
        name: "LMDB",
        open: lmdb::open,
        ..USUAL
    },
    Entrant {
        name: "redb",
        open: redb::open,
        ..USUAL
    },
    Entrant {
        name: "foyer",
        open: foyer::open,
        ..USUAL
    },
    Entrant {
        name: "moka of bytes",
        open: moka::open,
        holds_payloads: true,
        is_volatile: true,
        ..USUAL
    },
    Entrant {
        name: "Redis, Unix socket",
        open: redis::open,
        holds_payloads: true,
        is_there: redis::is_there,
        ..USUAL
    },
];

/// Reads as much of a payload as every contender has to.
fn look(payload: &[u8]) -> usize {
    std::hint::black_box((payload.first().copied(), payload.last().copied()));
    payload.len()
}
