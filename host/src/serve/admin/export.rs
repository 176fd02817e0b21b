//! `GET /v1/export`: all entries that have not expired, streamed.
//!
//! A thread of its own reads entries and hands lines over; with a slow client it waits, and holds neither a
//! lock nor more than [`PARTS_MAX`] parts of [`PART_BYTES`]. When the client is gone, the thread ends.

use super::Admin;
use super::audit::{self, By};
use super::line;
use super::peer::Peer;
use super::refusal::Refusal;
use crate::cache::{Cache, CacheKey, Counted};
use crate::clock::Clock;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http_body::Frame;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Lines are handed over in parts of about so many bytes.
const PART_BYTES: usize = 64 << 10;
const PARTS_MAX: usize = 4;

pub(super) async fn export(
    State(admin): State<Arc<Admin>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    // It reveals contents, on loopback, too.
    admin.token.admit(&headers).await?;
    let permit = admin.scan_permit()?;
    let (sender, parts) = mpsc::channel(PARTS_MAX);
    let (cache, clock) = (admin.cache.clone(), admin.clock.clone());
    let writing = Writing {
        sender,
        part: BytesMut::new(),
        counted: Counted::default(),
    };
    let first = line::first(&admin.config().namespace);
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        writing.write(&cache, &clock, &first, peer);
    });
    let mut response = Response::new(Body::new(Parts(parts)));
    let json_lines = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(CONTENT_TYPE, json_lines);
    Ok(response)
}

/// The client is gone.
struct Gone;

struct Writing {
    sender: mpsc::Sender<Bytes>,
    part: BytesMut,
    counted: Counted,
}

impl Writing {
    fn write(mut self, cache: &Cache, clock: &Clock, first: &str, peer: Peer) {
        let outcome = match self.try_write(cache, clock, first) {
            Ok(()) => "done",
            Err(Gone) => "the client left",
        };
        audit::note(peer, By::Token, "export", "all", self.counted, outcome);
    }

    fn try_write(&mut self, cache: &Cache, clock: &Clock, first: &str) -> Result<(), Gone> {
        self.put(first)?;
        let broke = cache.for_each_key(|key| match self.put_entry(cache, clock, key) {
            Ok(()) => ControlFlow::Continue(()),
            Err(Gone) => ControlFlow::Break(()),
        });
        if broke {
            return Err(Gone);
        }
        self.put(&line::last(self.counted.entries))?;
        self.send()
    }

    fn put_entry(&mut self, cache: &Cache, clock: &Clock, key: &CacheKey) -> Result<(), Gone> {
        let now_ms = clock.now_ms();
        let entry = cache.peek(key, now_ms);
        let Some(entry) = entry.filter(|entry| !entry.is_expired(now_ms)) else {
            return Ok(());
        };
        self.counted.entries += 1;
        self.counted.bytes += entry.record_bytes();
        self.put(&line::entry(key, &entry))
    }

    fn put(&mut self, line: &str) -> Result<(), Gone> {
        for part in line.as_bytes().chunks(PART_BYTES) {
            self.part.extend_from_slice(part);
            if self.part.len() >= PART_BYTES {
                self.send()?;
            }
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Gone> {
        let part = self.part.split().freeze();
        self.sender.blocking_send(part).map_err(|_| Gone)
    }
}

/// The parts as a body.
struct Parts(mpsc::Receiver<Bytes>);

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.0.poll_recv(context);
        part.map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}
