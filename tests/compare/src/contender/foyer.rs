//! foyer's hybrid cache: entries in memory, and all of them on disk, where a thread puts them.

use super::{Contender, Key, look};
use foyer::{
    BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy, PsyncIoEngineConfig, RecoverMode,
};
use std::path::Path;
use tokio::runtime::Runtime;

/// The same memory as redb has.
const MEMORY_BYTES: usize = 64 << 20;
const DISK_BYTES: usize = 4 << 30;

/// Bound of unwritten bytes. Beyond it, foyer drops inserts.
const WAITING_BYTES: usize = 256 << 20;

struct Foyer {
    runtime: Runtime,
    cache: HybridCache<Vec<u8>, Vec<u8>>,
}

pub(super) fn open(dir: &Path) -> Box<dyn Contender> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let cache = runtime.block_on(async {
        let device = FsDeviceBuilder::new(dir)
            .with_capacity(DISK_BYTES)
            .build()
            .expect("a device");
        HybridCacheBuilder::new()
            .with_policy(HybridCachePolicy::WriteOnInsertion)
            .memory(MEMORY_BYTES)
            .with_weighter(|key: &Vec<u8>, value: &Vec<u8>| key.len() + value.len())
            .storage()
            .with_io_engine_config(PsyncIoEngineConfig::new())
            .with_engine_config(
                BlockEngineConfig::new(device)
                    .with_buffer_pool_size(WAITING_BYTES)
                    .with_submit_queue_size_threshold(WAITING_BYTES),
            )
            .with_recover_mode(RecoverMode::Quiet)
            .build()
            .await
            .expect("opens")
    });
    Box::new(Foyer { runtime, cache })
}

impl Contender for Foyer {
    fn insert(&mut self, key: &Key, payload: &[u8]) {
        self.cache.insert(key.as_bytes().to_vec(), payload.to_vec());
    }

    fn get(&mut self, key: &Key) -> Option<usize> {
        let found = match self.cache.get(&key.as_bytes()[..]).try_unwrap() {
            Ok(entry) => Some(entry),
            Err(waiting) => self.runtime.block_on(waiting).expect("readable"),
        };
        found.map(|entry| look(entry.value()))
    }

    fn close(self: Box<Self>) {
        self.runtime.block_on(self.cache.close()).expect("closed");
    }
}
