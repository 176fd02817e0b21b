//! Which sizes are measured, and what that takes of the machine.

use crate::run::disk_bytes;
use std::fs;
use std::path::Path;

/// The smallest size; each further one is ten times, or a hundred times, as large.
const SMALLEST: u64 = 10_000;

/// With its header a record of 368 bytes, so that ten million are less than 4 GB.
const PAYLOAD_BYTES: usize = 256;

/// Memory of an entry, with a margin; and of the rest: queue, programs and buffers.
const ENTRY_MEMORY_BYTES: u64 = 200;
const MEMORY_BYTES: u64 = 200 << 20;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    entries_max: u64,
    pub(crate) payload_bytes: usize,
}

/// Bytes of disk and of memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) disk_bytes: u64,
    pub(crate) memory_bytes: u64,
}

impl Sizes {
    /// `--entries`, such as 10M, and `--payload-bytes`.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut sizes = Self {
            entries_max: 10_000_000,
            payload_bytes: PAYLOAD_BYTES,
        };
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(format!("{name} has no value"))?;
            let number = number(&value).ok_or(format!("{name}: {value} is no number"))?;
            match name.as_str() {
                "--entries" => sizes.entries_max = number.max(SMALLEST),
                "--payload-bytes" => sizes.payload_bytes = number.clamp(16, 1 << 20) as usize,
                _ => {
                    return Err(format!(
                        "{name}: only --entries and --payload-bytes are known"
                    ));
                }
            }
        }
        Ok(sizes)
    }

    /// 10 thousand, 100 thousand, 1 million and so on, up to the largest.
    pub(crate) fn each(self) -> impl Iterator<Item = u64> {
        let next = |size: &u64| size.checked_mul(10);
        std::iter::successors(Some(SMALLEST), next)
            .take_while(move |size| *size <= self.entries_max)
    }

    /// What the largest size takes.
    pub(crate) fn needs(self) -> Room {
        Room {
            disk_bytes: disk_bytes(self.entries_max, self.payload_bytes),
            memory_bytes: self.entries_max * ENTRY_MEMORY_BYTES + MEMORY_BYTES,
        }
    }
}

impl Room {
    /// What the machine has free.
    pub(crate) fn found_below(dir: &Path) -> Self {
        let disk = rustix::fs::statvfs(dir).map_or(0, |found| found.f_bavail * found.f_frsize);
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            disk_bytes: disk,
            memory_bytes: kilobytes(&memory, "MemAvailable:") << 10,
        }
    }
}

/// The value of a line of a file below `/proc`, in kB there; 0 without such a line.
pub(crate) fn kilobytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    value.unwrap_or(0)
}

/// `10M`, `100k`, `10_000`.
fn number(text: &str) -> Option<u64> {
    let text = text.replace('_', "");
    let (digits, factor) = match text.strip_suffix(['k', 'K', 'M']) {
        Some(digits) if text.ends_with('M') => (digits, 1_000_000),
        Some(digits) => (digits, 1000),
        None => (text.as_str(), 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}
