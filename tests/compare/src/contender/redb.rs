//! redb, a transaction for each call.

use super::{Contender, Key, look};
use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use std::path::Path;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("compare");

/// Its memory; its default is a gigabyte.
const CACHE_BYTES: usize = 64 << 20;

struct Redb(Database);

pub(super) fn open(dir: &Path) -> Box<dyn Contender> {
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create(dir.join("redb"))
        .expect("opens");
    Box::new(Redb(database))
}

impl Redb {
    fn put(&self, keys: &[Key], payload: &[u8], durability: Durability) {
        let mut transaction = self.0.begin_write().expect("begun");
        transaction.set_durability(durability).expect("settable");
        {
            let mut table = transaction.open_table(TABLE).expect("a table");
            for key in keys {
                table.insert(&key.as_bytes()[..], payload).expect("stored");
            }
        }
        transaction.commit().expect("committed");
    }
}

impl Contender for Redb {
    fn insert(&mut self, key: &Key, payload: &[u8]) {
        self.put(std::slice::from_ref(key), payload, Durability::None);
    }

    fn insert_durably(&mut self, keys: &[Key], payload: &[u8]) -> bool {
        self.put(keys, payload, Durability::Immediate);
        true
    }

    fn get(&mut self, key: &Key) -> Option<usize> {
        let transaction = self.0.begin_read().expect("begun");
        let table = transaction.open_table(TABLE).expect("a table");
        let found = table.get(&key.as_bytes()[..]).expect("readable");
        found.map(|payload| look(payload.value()))
    }

    fn close(self: Box<Self>) {
        self.put(&[], b"", Durability::Immediate);
    }
}
