//! Recorded requests, of which others publish many.

use crate::trace::Trace;
use std::collections::HashMap;
use std::path::Path;
use std::{fs, io};

/// A recorded trace.
pub(crate) struct Recorded {
    pub(crate) trace: Trace,
    pub(crate) different_keys: u64,
}

impl Recorded {
    /// Reads a file in which each line is a key, whatever it looks like.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is no text.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        let mut numbers: HashMap<&str, u64> = HashMap::new();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut keys = Vec::new();
        for line in lines {
            let next = numbers.len() as u64;
            keys.push(*numbers.entry(line).or_insert(next));
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Self {
            trace: Trace {
                name: name.into_owned(),
                keys,
            },
            different_keys: numbers.len() as u64,
        })
    }
}
