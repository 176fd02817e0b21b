//! `POST /v1/import`: entries of an export, each checked as an insert is.
//!
//! ```text
//! body ─► parts, a few ─► a thread: lines ─► read ─► checked ─► cache.insert ─► report
//! ```
//!
//! A line that is wrong is reported with its number and left out; with `strict=true` the first one ends the
//! import. An entry that is here already stays: an import never replaces an answer that lives.

use super::Admin;
use super::audit::{self, By};
use super::line::{self, FIRST_LINE_BYTES_MAX, Next, Read};
use super::peer::Peer;
use super::query;
use super::refusal::{Refusal, json};
use crate::cache::{Cache, CacheKey, Counted, InsertError, METADATA_BYTES_MAX, Mark, NewEntry};
use crate::clock::Clock;
use crate::exchange::answer::StoredHead;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use reflex_llm::{Limits, ProviderControl, Shape, Validator, is_kept};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::mpsc;

/// Parts of the body that wait to be read. hyper's have 400 KB at most.
const PARTS_MAX: usize = 4;

/// Wrong lines that a report names. Further ones are only counted.
const ERRORS_MAX: usize = 100;

/// How often an entry waits, a second each time, for a disk that does not keep up.
const WAITS_MAX: usize = 30;

/// How far the import under way is, for `/health`.
#[derive(Debug, Default)]
pub(super) struct Importing(AtomicU64);

impl Importing {
    /// How many lines were read; none without an import.
    pub(super) fn now(&self) -> Option<u64> {
        Some(self.0.load(Relaxed)).filter(|lines| *lines > 0)
    }

    fn has_read(&self, lines: u64) {
        self.0.store(lines, Relaxed);
    }

    fn end(&self) {
        self.0.store(0, Relaxed);
    }
}

/// What came of an import.
#[derive(Debug, Default, Serialize)]
struct Report {
    imported: u64,
    bytes: u64,
    /// A living entry of that key was there.
    already_here: u64,
    expired: u64,
    /// Purged since the import began.
    purged: u64,
    refused: u64,
    errors: Vec<Wrong>,
    /// The last line was there, and told as many entries as there were.
    complete: bool,
}

#[derive(Debug, Serialize)]
struct Wrong {
    line: u64,
    reason: &'static str,
}

/// Why an import ended early.
#[derive(Debug)]
enum Stop {
    /// The first line says that nothing here is for this daemon.
    Foreign(String),
    /// A line that is longer than any entry makes it.
    LineTooLong,
    /// A wrong line, and the import is strict.
    Wrong,
    /// The client left, or its body paused for too long.
    Cut,
    /// The disk does not keep up.
    Busy,
}

pub(super) async fn import(
    State(admin): State<Arc<Admin>>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
    mut body: Body,
) -> Result<Response, Refusal> {
    let mut is_strict = false;
    query::read(&uri, |name, value| {
        is_strict = query::flag(name == "strict", value)?;
        Some(())
    })?;
    let permit = admin.import_permit()?;
    let (sender, parts) = mpsc::channel(PARTS_MAX);
    let config = admin.config();
    let mut import = Import {
        cache: admin.cache.clone(),
        clock: admin.clock.clone(),
        namespace: config.namespace.clone(),
        allow_length: config.allow_length,
        since: admin.cache.purges().now(),
        is_strict,
        number: 0,
        importing: Arc::clone(&admin.importing),
        told: None,
        report: Report::default(),
    };
    let tallies = Arc::clone(&admin.tallies);
    // To its end, also when the client is gone: then its audit line is the only word of it.
    let work = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let stopped = import.run(Lines::of(parts));
        import.importing.end();
        tallies.forget();
        if let Err(error) = import.cache.sync() {
            tracing::warn!(%error, "an import is not durable yet");
        }
        let report = import.report;
        let counted = Counted {
            entries: report.imported,
            bytes: report.bytes,
        };
        let outcome = match &stopped {
            Ok(()) if report.complete => "done",
            Ok(()) => "incomplete",
            Err(_) => "stopped",
        };
        audit::note(peer, By::Token, "import", "entries", counted, outcome);
        (stopped, report)
    });
    loop {
        let next = tokio::time::timeout(admin.config().net.idle_max, body.frame());
        let next = tokio::select! {
            next = next => next,
            // It has stopped, and needs no more.
            () = sender.closed() => break,
        };
        let part = match next {
            Ok(None) => {
                // The end, and not a cut.
                let _ = sender.send(None).await;
                break;
            }
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            Ok(Some(Err(_))) | Err(_) => break,
        };
        if sender.send(Some(part)).await.is_err() {
            break;
        }
    }
    drop(sender);
    let (stopped, report) = work.await.map_err(Refusal::failed)?;
    let status = match stopped {
        Ok(()) => StatusCode::OK,
        Err(Stop::Foreign(why)) => return Err(Refusal::bad("format", why)),
        Err(Stop::LineTooLong) => StatusCode::PAYLOAD_TOO_LARGE,
        Err(Stop::Wrong) => StatusCode::UNPROCESSABLE_ENTITY,
        Err(Stop::Cut) => StatusCode::BAD_REQUEST,
        Err(Stop::Busy) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = json(&report);
    *response.status_mut() = status;
    Ok(response)
}

/// An import under way.
struct Import {
    cache: Cache,
    clock: Clock,
    namespace: String,
    allow_length: bool,
    /// A purge from now on covers what is imported after it, too.
    since: Mark,
    is_strict: bool,
    /// Of the line, from 1.
    number: u64,
    importing: Arc<Importing>,
    /// How many entries the last line tells, once it was there.
    told: Option<u64>,
    report: Report,
}

/// What became of an entry.
enum Taken {
    Imported(u64),
    AlreadyHere,
    Purged,
}

impl Import {
    fn run(&mut self, mut lines: Lines) -> Result<(), Stop> {
        let too_long = |_: TooLong| Stop::Foreign("the first line is not that of an export".into());
        let first = lines.next(FIRST_LINE_BYTES_MAX).map_err(too_long)?;
        let first = first.unwrap_or_default();
        self.number = 1;
        line::read_first(&first, &self.namespace).map_err(Stop::Foreign)?;
        let most = line::line_bytes_max(self.cache.entry_bytes_max());
        let mut entries = 0;
        while let Some(line) = lines.next(most).map_err(|_| self.wrong_length())? {
            self.number += 1;
            self.importing.has_read(self.number);
            if line.is_empty() {
                continue;
            }
            match line::read(&line) {
                Ok(Next::End { entries }) => {
                    self.told = Some(entries);
                    continue;
                }
                // Behind the end, or there would be no knowing what is missing.
                Ok(Next::Entry(_)) if self.told.is_some() => self.wrong("after-the-end")?,
                Ok(Next::Entry(read)) => {
                    entries += 1;
                    self.take(&read)?;
                }
                Err(reason) => {
                    entries += 1;
                    self.wrong(reason)?;
                }
            }
        }
        if !lines.has_ended {
            return Err(Stop::Cut);
        }
        self.report.complete = self.told == Some(entries);
        Ok(())
    }

    fn wrong_length(&mut self) -> Stop {
        self.number += 1;
        let _ = self.wrong("too-long");
        Stop::LineTooLong
    }

    fn wrong(&mut self, reason: &'static str) -> Result<(), Stop> {
        self.report.refused += 1;
        if self.report.errors.len() < ERRORS_MAX {
            let line = self.number;
            self.report.errors.push(Wrong { line, reason });
        }
        match self.is_strict {
            true => Err(Stop::Wrong),
            false => Ok(()),
        }
    }

    fn take(&mut self, read: &Read) -> Result<(), Stop> {
        let now_ms = self.clock.now_ms();
        match self.check(read, now_ms) {
            Err(reason) => return self.wrong(reason),
            Ok(false) => {
                self.report.expired += 1;
                return Ok(());
            }
            Ok(true) => {}
        }
        let report = &mut self.report;
        match store(&self.cache, read, self.since, now_ms) {
            Ok(Taken::Imported(bytes)) => {
                report.imported += 1;
                report.bytes += bytes;
            }
            Ok(Taken::AlreadyHere) => report.already_here += 1,
            Ok(Taken::Purged) => report.purged += 1,
            Err(InsertError::QueueFull) => return Err(Stop::Busy),
            Err(_) => return self.wrong("too-large"),
        }
        Ok(())
    }

    /// Whether the entry may be stored: as an insert would check it, or more. False once it has expired.
    fn check(&self, read: &Read, now_ms: u64) -> Result<bool, &'static str> {
        if read.stored_at_ms > now_ms {
            return Err("from-the-future");
        }
        if read.expires_at_ms.is_some_and(|at| at < read.stored_at_ms) {
            return Err("times");
        }
        if read.metadata.len() > METADATA_BYTES_MAX {
            return Err("too-large");
        }
        // A component's entry need not be an answer. No request is answered with one that is not.
        if let Some(stored) = StoredHead::read(&read.metadata) {
            self.check_answer(read, &stored)?;
        }
        Ok(read.expires_at_ms.is_none_or(|at| at > now_ms))
    }

    fn check_answer(&self, read: &Read, stored: &StoredHead<'_>) -> Result<(), &'static str> {
        if stored.status != StatusCode::OK {
            return Err("status");
        }
        let headers = stored.headers().ok_or("headers")?;
        if !headers.keys().all(|name| is_kept(name.as_str())) {
            return Err("headers");
        }
        if let Some(digest) = stored.digest
            && CacheKey::new(&self.namespace, &read.tenant, digest) != read.key
        {
            return Err("not-the-tenants-key");
        }
        match stored.shape() {
            Some(shape) => self.judge(shape, stored, &headers, &read.payload),
            None => Ok(()),
        }
    }

    fn judge(
        &self,
        shape: Shape,
        stored: &StoredHead<'_>,
        headers: &axum::http::HeaderMap,
        payload: &[u8],
    ) -> Result<(), &'static str> {
        let limits = Limits {
            body_bytes_max: payload.len(),
            allow_length: self.allow_length,
            // Obeyed when it was stored.
            provider_control: ProviderControl::Ignore,
        };
        let headers: Vec<(&str, &[u8])> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        let mut validator = Validator::new(shape, limits);
        let judged = validator.head(stored.status.as_u16(), &headers);
        judged.map_err(|rejected| rejected.detail())?;
        validator.feed(payload);
        let finished = validator.finish(payload);
        finished.map(drop).map_err(|rejected| rejected.detail())
    }
}

fn store(cache: &Cache, read: &Read, since: Mark, now_ms: u64) -> Result<Taken, InsertError> {
    let there = cache.peek(&read.key, now_ms);
    if there.is_some_and(|entry| !entry.is_expired(now_ms)) {
        return Ok(Taken::AlreadyHere);
    }
    let new = NewEntry {
        key: &read.key,
        tenant: &read.tenant,
        metadata: &read.metadata,
        payload: &read.payload,
        now_ms: read.stored_at_ms,
        ttl_ms: read.expires_at_ms.map(|at| at - read.stored_at_ms),
    };
    let mut stored = cache.insert_since(new, since);
    for _ in 1..WAITS_MAX {
        match stored {
            Err(InsertError::QueueFull) => stored = cache.insert_since(new, since),
            _ => break,
        }
    }
    match stored {
        Ok(entry) => Ok(Taken::Imported(entry.record_bytes())),
        Err(InsertError::Purged) => Ok(Taken::Purged),
        Err(error) => Err(error),
    }
}

/// The lines of a body that comes in parts.
struct Lines {
    parts: mpsc::Receiver<Option<Bytes>>,
    /// What has come, and is no whole line yet.
    rest: BytesMut,
    /// How much of it has no line end.
    searched: usize,
    /// The body came to its proper end.
    has_ended: bool,
}

/// The line is longer than it may be.
struct TooLong;

impl Lines {
    fn of(parts: mpsc::Receiver<Option<Bytes>>) -> Self {
        Self {
            parts,
            rest: BytesMut::new(),
            searched: 0,
            has_ended: false,
        }
    }

    /// The next line, without its end; `None` at the end of the body, and behind a cut. Blocks.
    fn next(&mut self, most: usize) -> Result<Option<BytesMut>, TooLong> {
        loop {
            let found = self.rest[self.searched..]
                .iter()
                .position(|it| *it == b'\n');
            if let Some(at) = found.map(|at| self.searched + at).filter(|at| *at <= most) {
                let mut line = self.rest.split_to(at + 1);
                line.truncate(at);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.rest.len();
            if self.rest.len() > most {
                return Err(TooLong);
            }
            match self.parts.blocking_recv() {
                Some(Some(part)) => self.rest.extend_from_slice(&part),
                Some(None) => {
                    self.has_ended = true;
                    // A last line without an end of its own was cut, or is whole: reading it tells.
                    self.searched = 0;
                    let line = std::mem::take(&mut self.rest);
                    return Ok((!line.is_empty()).then_some(line));
                }
                // A part of a line may be a line, but not what was meant.
                None => return Ok(None),
            }
        }
    }
}
