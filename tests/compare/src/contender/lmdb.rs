//! LMDB, a transaction for each call, as for calls that come one by one. Through the
//! bindings that can open it without `unsafe`; underneath it is the same library.

use super::{Contender, Key, look};
use lmdb::{
    Database, DatabaseFlags, Environment, EnvironmentFlags, RwTransaction, Transaction, WriteFlags,
};
use std::path::Path;

/// Address space, not memory.
const MAP_BYTES: usize = 16 << 30;

struct Lmdb {
    env: Environment,
    database: Database,
}

pub(super) fn open(dir: &Path) -> Box<dyn Contender> {
    let env = Environment::new()
        .set_map_size(MAP_BYTES)
        .set_flags(EnvironmentFlags::NO_SYNC | EnvironmentFlags::NO_READAHEAD)
        .open(dir)
        .expect("opens");
    let database = env.create_db(None, DatabaseFlags::empty()).expect("opens");
    Box::new(Lmdb { env, database })
}

impl Lmdb {
    fn put(&self, transaction: &mut RwTransaction<'_>, key: &Key, payload: &[u8]) {
        transaction
            .put(self.database, key.as_bytes(), &payload, WriteFlags::empty())
            .expect("stored");
    }
}

impl Contender for Lmdb {
    fn insert(&mut self, key: &Key, payload: &[u8]) {
        let mut transaction = self.env.begin_rw_txn().expect("begun");
        self.put(&mut transaction, key, payload);
        transaction.commit().expect("committed");
    }

    fn insert_durably(&mut self, keys: &[Key], payload: &[u8]) -> bool {
        let mut transaction = self.env.begin_rw_txn().expect("begun");
        for key in keys {
            self.put(&mut transaction, key, payload);
        }
        transaction.commit().expect("committed");
        self.env.sync(true).expect("synced");
        true
    }

    fn get(&mut self, key: &Key) -> Option<usize> {
        let transaction = self.env.begin_ro_txn().expect("begun");
        transaction
            .get(self.database, key.as_bytes())
            .ok()
            .map(look)
    }

    fn close(self: Box<Self>) {
        self.env.sync(true).expect("synced");
    }
}
