//! The queue, the batches, and receivers that hang, fail or are told to wait for.

use super::*;
use crate::serve::trace::Trace;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use prometheus_client::registry::Registry;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

fn counts() -> SpanCounts {
    SpanCounts::new(&mut Registry::default())
}

fn trace(parent: Option<&str>, is_sampled: bool) -> Trace {
    Trace {
        id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
        parent: parent.map(str::to_owned),
        is_sampled,
    }
}

fn ended(trace: &Trace) -> Ended<'_> {
    Ended {
        trace,
        took: Duration::from_millis(30),
        head_after: Duration::from_millis(10),
        first_byte_after: Duration::from_millis(20),
        request_id: "req-1",
        method: "POST",
        status: 200,
        cache: "MISS",
        reason: None,
        tier: None,
        api: Some("chat-completions"),
        model: Some("m"),
        bytes: 7,
        is_whole: true,
    }
}

/// A receiver inside the test: it tells how many spans it is given, and then does as it should.
#[derive(Debug)]
struct Told {
    batches: mpsc::UnboundedSender<usize>,
    seen: Arc<Mutex<Vec<SpanData>>>,
    then: Then,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    Takes,
    Fails,
    Hangs,
}

impl SpanExporter for Told {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        // The test may be over.
        let _ = self.batches.send(batch.len());
        self.seen.lock().expect("no panic").extend(batch);
        match self.then {
            Then::Takes => Ok(()),
            Then::Fails => Err(OTelSdkError::InternalFailure("broken".into())),
            Then::Hangs => std::future::pending().await,
        }
    }
}

/// What sends to such a receiver, and what that sees.
struct Sending {
    spans: Arc<Spans>,
    export: Export,
    counts: SpanCounts,
    batches: mpsc::UnboundedReceiver<usize>,
    seen: Arc<Mutex<Vec<SpanData>>>,
}

impl Sending {
    fn to(then: Then) -> Self {
        let (told, batches) = mpsc::unbounded_channel();
        let (counts, seen) = (counts(), Arc::default());
        let receiver = Told {
            batches: told,
            seen: Arc::clone(&seen),
            then,
        };
        let (spans, export) = begin_with(receiver, counts.clone());
        Self {
            spans,
            export,
            counts,
            batches,
            seen,
        }
    }

    fn send(&self, count: usize) {
        let trace = trace(None, true);
        for _ in 0..count {
            self.spans.end(&ended(&trace));
        }
    }

    /// Spans that were sent, that failed, and that were dropped.
    fn counted(counts: &SpanCounts) -> [u64; 3] {
        [&counts.sent, &counts.failed, &counts.dropped].map(|count| count.get())
    }
}

#[tokio::test]
async fn spans_beyond_the_queue_are_dropped_and_counted_while_the_receiver_hangs() {
    let mut sending = Sending::to(Then::Hangs);
    sending.send(BATCH_MAX);
    // It has a whole batch now, and takes no other.
    assert_eq!(sending.batches.recv().await, Some(BATCH_MAX));
    sending.send(SPANS_MAX);
    assert_eq!(Sending::counted(&sending.counts), [0, 0, 0]);
    sending.send(10);
    assert_eq!(Sending::counted(&sending.counts), [0, 0, 10]);
    // The end does not wait for it either.
    let ended = timeout(FLUSH_MAX * 3, sending.export.end()).await;
    assert!(ended.is_ok());
}

#[tokio::test]
async fn the_end_sends_what_waits_in_batches_of_a_bounded_size() {
    let mut sending = Sending::to(Then::Takes);
    sending.send(2 * BATCH_MAX + 3);
    sending.export.end().await;
    let sent = 2 * BATCH_MAX as u64 + 3;
    assert_eq!(Sending::counted(&sending.counts), [sent, 0, 0]);
    let mut all = 0;
    while let Some(batch) = sending.batches.recv().await {
        assert!((1..=BATCH_MAX).contains(&batch), "{batch}");
        all += batch as u64;
    }
    assert_eq!(all, sent);
    sending.spans.end(&ended(&trace(None, true)));
    assert_eq!(Sending::counted(&sending.counts), [sent, 0, 1]);
}

#[tokio::test]
async fn what_a_broken_receiver_does_not_take_is_counted_and_the_next_batch_is_tried() {
    let mut sending = Sending::to(Then::Fails);
    for _ in 0..2 {
        sending.send(BATCH_MAX);
        assert_eq!(sending.batches.recv().await, Some(BATCH_MAX));
    }
    sending.export.end().await;
    let failed = 2 * BATCH_MAX as u64;
    assert_eq!(Sending::counted(&sending.counts), [0, failed, 0]);
}

#[tokio::test]
async fn a_span_continues_the_trace_of_its_request_unless_that_is_not_kept() {
    let sending = Sending::to(Then::Takes);
    let parent = "00f067aa0ba902b7";
    sending.spans.end(&ended(&trace(Some(parent), true)));
    sending.spans.end(&ended(&trace(Some(parent), false)));
    sending.spans.end(&ended(&trace(None, true)));
    let mut failed = trace(None, true);
    failed.id = sending.spans.new_trace();
    sending.spans.end(&Ended {
        status: 502,
        api: None,
        ..ended(&failed)
    });
    sending.export.end().await;
    let seen = sending.seen.lock().expect("no panic");
    let [continued, begun, broken] = &seen[..] else {
        panic!("{seen:#?}");
    };
    assert_eq!(
        continued.span_context.trace_id().to_string(),
        trace(None, true).id
    );
    assert_eq!(continued.parent_span_id.to_string(), parent);
    assert!(continued.parent_span_is_remote && continued.span_context.is_sampled());
    assert_eq!(continued.name, "POST chat-completions");
    let took = continued.end_time.duration_since(continued.start_time);
    assert_eq!(took.expect("in order"), Duration::from_millis(30));
    let attribute = |name: &str| {
        let found = continued
            .attributes
            .iter()
            .find(|it| it.key.as_str() == name);
        found.map(|it| it.value.to_string())
    };
    for (name, value) in [
        ("http.response.status_code", Some("200")),
        ("http.response.body.size", Some("7")),
        ("reflex.request_id", Some("req-1")),
        ("reflex.first_byte_ms", Some("20")),
        ("reflex.whole", Some("true")),
        ("reflex.reason", None),
        ("gen_ai.request.model", Some("m")),
    ] {
        assert_eq!(attribute(name).as_deref(), value, "{name}");
    }
    assert_eq!(begun.parent_span_id, SpanId::INVALID);
    assert_ne!(
        begun.span_context.span_id(),
        continued.span_context.span_id()
    );
    assert_eq!(broken.span_context.trace_id().to_string(), failed.id);
    assert_eq!(
        (&*broken.name, &broken.status),
        ("POST", &Status::error(""))
    );
}

/// The exporter pauses before it tries again. Without the right features it would stop the thread for that
/// time, and every request on it.
#[tokio::test]
async fn pauses_between_retries_stop_no_thread() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("its address");
    let receiver = format!("http://{address}").parse().expect("a URL");
    let (spans, export) = begin(&receiver, counts()).expect("an exporter");
    let ticks = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&ticks);
    let clock = tokio::spawn(async move {
        loop {
            sleep(Duration::from_millis(1)).await;
            counted.fetch_add(1, Relaxed);
        }
    });
    spans.end(&ended(&trace(None, true)));
    let mut seen = Vec::new();
    // The connection is used again.
    let (mut stream, _) = listener.accept().await.expect("a connection");
    for _ in 0..2 {
        let mut request = [0; 64 << 10];
        loop {
            let length = stream.read(&mut request).await.expect("a request");
            assert!(length > 0, "the exporter has given up");
            if request[..length].starts_with(b"POST /v1/traces HTTP/1.1\r\n") {
                break;
            }
        }
        seen.push(ticks.load(Relaxed));
        let busy = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(busy).await.expect("a reader");
    }
    clock.abort();
    drop(export);
    // A stopped thread runs neither of the two meanwhile: one tick at most was due.
    assert!(seen[1] - seen[0] > 2, "{seen:?}");
}
