//! A file for each entry, each mapped, and a map of them in memory.

use super::{Contender, Key, look};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use vmap::Map;

struct Files {
    dir: PathBuf,
    /// Locked as it has to be where several threads use it.
    maps: RwLock<HashMap<[u8; 32], Arc<Map>>>,
}

pub(super) fn open(dir: &Path) -> Box<dyn Contender> {
    let maps = fs::read_dir(dir).expect("a folder").map(|entry| {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        (key_of(&name), map(&path))
    });
    Box::new(Files {
        dir: dir.to_owned(),
        maps: RwLock::new(maps.collect()),
    })
}

#[expect(
    clippy::arc_with_non_send_sync,
    reason = "as several threads would do it; this test has one"
)]
fn map(path: &Path) -> Arc<Map> {
    let (map, _) = Map::with_options().open(path).expect("mapped");
    Arc::new(map)
}

fn name_of(key: &Key) -> String {
    let bytes = key.as_bytes().iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn key_of(name: &str) -> [u8; 32] {
    let byte = |at: usize| u8::from_str_radix(&name[2 * at..][..2], 16).expect("hexadecimal");
    std::array::from_fn(byte)
}

impl Files {
    /// Under another name first, so that no reader sees half of it.
    fn write(&self, key: &Key, payload: &[u8], is_durable: bool) {
        let path = self.dir.join(name_of(key));
        let unfinished = path.with_extension("tmp");
        let mut file = File::create(&unfinished).expect("created");
        file.write_all(payload).expect("written");
        if is_durable {
            file.sync_data().expect("synced");
        }
        fs::rename(&unfinished, &path).expect("renamed");
        let map = map(&path);
        self.maps
            .write()
            .expect("unpoisoned")
            .insert(*key.as_bytes(), map);
    }
}

impl Contender for Files {
    fn insert(&mut self, key: &Key, payload: &[u8]) {
        self.write(key, payload, false);
    }

    fn insert_durably(&mut self, keys: &[Key], payload: &[u8]) -> bool {
        for key in keys {
            self.write(key, payload, true);
        }
        let folder = File::open(&self.dir).expect("opened");
        folder.sync_all().expect("synced");
        true
    }

    fn get(&mut self, key: &Key) -> Option<usize> {
        let map = self
            .maps
            .read()
            .expect("unpoisoned")
            .get(key.as_bytes())
            .cloned();
        map.map(|map| look(&map))
    }

    fn close(self: Box<Self>) {}
}
