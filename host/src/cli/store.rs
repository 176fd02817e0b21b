//! `reflex-edge store`: an operator's commands for a data folder that no daemon uses.
//!
//! The library does the work; this prints its results.

use super::progress::Progress;
use clap::{Args, Subcommand};
use reflex_host::cache::{Cache, CacheOptions, Durability, EncryptionKeys, StoreReport};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// The folder has damage.
const EXIT_DAMAGED: u8 = 1;
/// The folder cannot be worked on: the same code that clap uses.
const EXIT_USAGE: u8 = 2;

/// Look at a data folder, or make it smaller
#[derive(Debug, Args)]
pub(crate) struct Store {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verify every byte and change nothing; exit code 1 when something is damaged
    Check {
        /// The data folder
        dir: PathBuf,
        #[command(flatten)]
        keys: Keys,
    },
    /// Tell what is in it, and which keys it is encrypted with
    Stats {
        /// The data folder
        dir: PathBuf,
        #[command(flatten)]
        keys: Keys,
    },
    /// Write again what lives and remove the rest; with keys, encrypt it with the first one
    Compact {
        /// The data folder
        dir: PathBuf,
        /// Keep what has expired for so many seconds; as `stale_if_error_seconds_max` says in the
        /// configuration
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        stale_seconds_max: u64,
        #[command(flatten)]
        keys: Keys,
    },
}

/// The keys of an encrypted folder
#[derive(Debug, Args)]
struct Keys {
    /// The file of its keys, as `encryption_key_file` in the configuration
    #[arg(long, value_name = "FILE")]
    encryption_key_file: Option<PathBuf>,
}

impl Keys {
    fn read(&self) -> Result<Option<EncryptionKeys>, String> {
        let keys = self
            .encryption_key_file
            .as_deref()
            .map(EncryptionKeys::read);
        let keys = keys.transpose();
        keys.map_err(|error| format!("--encryption-key-file: {error}"))
    }
}

impl Store {
    pub(crate) fn run(self) -> ExitCode {
        let done = match &self.command {
            Command::Check { dir, keys } => check(dir, keys),
            Command::Stats { dir, keys } => stats(dir, keys),
            Command::Compact {
                dir,
                stale_seconds_max,
                keys,
            } => compact(dir, *stale_seconds_max, keys),
        };
        done.unwrap_or_else(|error| {
            eprintln!("reflex-edge: {error}");
            ExitCode::from(EXIT_USAGE)
        })
    }
}

fn check(dir: &Path, keys: &Keys) -> Result<ExitCode, String> {
    let report = report(dir, keys.read()?.as_ref())?;
    let records: u64 = report.segments.iter().map(|segment| segment.records).sum();
    let mut lines = report.findings.clone();
    lines.push(format!(
        "{} segments, {records} records, {} entries, {} findings",
        report.segments.len(),
        report.entries,
        report.findings.len()
    ));
    print(&lines)?;
    Ok(match report.findings.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_DAMAGED),
    })
}

fn stats(dir: &Path, keys: &Keys) -> Result<ExitCode, String> {
    let keys = keys.read()?;
    let report = report(dir, keys.as_ref())?;
    let mut lines = vec![
        format!("entries         {}", report.entries),
        format!("payload bytes   {}", report.payload_bytes),
        format!("live bytes      {}", report.live_bytes),
        format!("disk bytes      {}", report.disk_bytes),
        format!("tenants purged  {}", report.tenants_purged),
    ];
    lines.extend(used_keys(&report, keys.as_ref()));
    lines.extend([
        String::new(),
        "segment               bytes        used     records  tombstones  contents".to_owned(),
    ]);
    lines.extend(report.segments.iter().map(|segment| {
        format!(
            "{:016x} {:>10}  {:>10}  {:>10}  {:>10}  {}",
            segment.id,
            segment.bytes,
            segment.used_bytes,
            segment.records,
            segment.tombstones,
            if segment.has_contents { "yes" } else { "no" }
        )
    }));
    print(&lines)?;
    Ok(ExitCode::SUCCESS)
}

/// Of each key that segments are encrypted with, and of each key given, how many those are.
fn used_keys(report: &StoreReport, keys: Option<&EncryptionKeys>) -> Vec<String> {
    let mut segments: BTreeMap<Option<&str>, (&str, u64)> = BTreeMap::new();
    let given: Vec<_> = keys.iter().flat_map(|keys| keys.names()).collect();
    for (name, id) in &given {
        segments.insert(Some(id.as_str()), (*name, 0));
    }
    for segment in &report.segments {
        segments.entry(segment.key.as_deref()).or_default().1 += 1;
    }
    if segments.keys().all(Option::is_none) {
        return Vec::new();
    }
    let line = |(id, (name, count)): (Option<&str>, (&str, u64))| {
        let id = id.unwrap_or("none");
        format!("key             {id} {name}: {count} segments")
    };
    segments.into_iter().map(line).collect()
}

fn compact(dir: &Path, stale_seconds_max: u64, keys: &Keys) -> Result<ExitCode, String> {
    let keys = keys.read()?.map(EncryptionKeys::converting);
    // A folder that is no data folder must not become one; a data folder keeps its sizes.
    let report = report(dir, None)?;
    let largest = report.segments.iter().map(|segment| segment.bytes).max();
    let defaults = CacheOptions::default();
    let segment_bytes = largest.unwrap_or(defaults.segment_bytes);
    let options = CacheOptions {
        data_dir: dir.to_owned(),
        // Two more segments, to write to.
        disk_bytes_max: (report.disk_bytes + 4 * segment_bytes).max(8 * segment_bytes),
        encryption_keys: keys,
        entry_bytes_max: segment_bytes / 4,
        segment_bytes,
        entries_max: Some(u64::MAX),
        stale_seconds_max,
        durability: Durability::Os,
        ..defaults
    };
    let cache = Cache::open(&options).map_err(|error| error.to_string())?;
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = u64::try_from(since_1970.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
    let mut progress = Progress::of("segment");
    let freed = cache.compact_telling(now_ms, |done, all| progress.tell(done + 1, all));
    let freed = freed.map_err(|error| error.to_string())?;
    print(&[format!("{freed} bytes freed")])?;
    match cache.is_converting() {
        true => Err("not all of it is encrypted yet; run this again".into()),
        false => Ok(ExitCode::SUCCESS),
    }
}

fn report(dir: &Path, keys: Option<&EncryptionKeys>) -> Result<StoreReport, String> {
    let report = match keys {
        Some(keys) => StoreReport::of_encrypted(dir, keys),
        None => StoreReport::of(dir),
    };
    report.map_err(|error| error.to_string())
}

/// The reader may close the pipe; unlike `println!`, this does not panic then.
fn print(lines: &[String]) -> Result<(), String> {
    let mut out = io::stdout().lock();
    let written = lines.iter().try_for_each(|line| writeln!(out, "{line}"));
    written
        .and_then(|()| out.flush())
        .map_err(|error| error.to_string())
}
