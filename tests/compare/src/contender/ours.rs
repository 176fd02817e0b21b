//! The cache of this project.

use super::{Contender, Key, look};
use reflex_host::cache::{Cache, CacheOptions, Durability, Lookup, NewEntry};
use std::path::Path;

const NOW_MS: u64 = 1_700_000_000_000;

struct Ours(Cache);

pub(super) fn open(dir: &Path) -> Box<dyn Contender> {
    let options = CacheOptions {
        data_dir: dir.join("data"),
        durability: Durability::Os,
        ..CacheOptions::default()
    };
    Box::new(Ours(Cache::open(&options).expect("opens")))
}

impl Ours {
    fn put(&self, key: &Key, payload: &[u8]) {
        let new = NewEntry {
            key,
            tenant: &[0; 32],
            metadata: b"",
            payload,
            now_ms: NOW_MS,
            ttl_ms: None,
        };
        self.0.insert(new).expect("stored");
    }
}

impl Contender for Ours {
    fn insert(&mut self, key: &Key, payload: &[u8]) {
        self.put(key, payload);
    }

    fn insert_durably(&mut self, keys: &[Key], payload: &[u8]) -> bool {
        for key in keys {
            self.put(key, payload);
        }
        self.0.sync().expect("synced");
        true
    }

    fn get(&mut self, key: &Key) -> Option<usize> {
        match self.0.lookup(key, NOW_MS) {
            Lookup::Hit(entry) => Some(look(&entry.payload())),
            Lookup::Stale(_) | Lookup::Miss => None,
        }
    }

    fn close(self: Box<Self>) {
        self.0.sync().expect("synced");
        let stats = self.0.stats();
        assert!(stats.healthy && stats.inserts_in_memory == 0, "{stats:?}");
    }
}
