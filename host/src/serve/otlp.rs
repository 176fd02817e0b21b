//! Traces for a receiver that speaks OTLP: a span for each request, with the fields of the access log.
//!
//! ```text
//! a request ends ─► Spans ─► queue ─► one task ─► batches, by opentelemetry-otlp ─► receiver
//! ```
//!
//! No request waits for the receiver. A span that finds the queue full is dropped and counted, and so is
//! a batch that the receiver has not taken in time. Metrics do not go this way: collectors read
//! `/metrics` themselves.

use super::trace::Trace;
use crate::serve::config::Upstream;
use crate::serve::metrics::SpanCounts;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, Key, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    IdGenerator as _, RandomIdGenerator, SpanData, SpanEvents, SpanExporter, SpanLinks,
};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Spans that wait for the receiver. A span has two kilobytes at most: 8 MiB.
const SPANS_MAX: usize = 4096;
/// Spans in one message. The specification of OpenTelemetry's batches has the same.
const BATCH_MAX: usize = 512;
/// How long a batch waits for more spans: an operator who looks sees a request soon.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// How long the receiver may take for one batch, retries included: the specification's default.
const EXPORT_MAX: Duration = Duration::from_secs(10);
/// The longest that the end of the process waits for the spans that are left.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// What spans say of their origin, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` do.
const SERVICE_NAME: &str = "reflex-edge";

/// A request that has ended, as its span has it. Each text is bounded by the access log.
pub(super) struct Ended<'a> {
    pub(super) trace: &'a Trace,
    pub(super) took: Duration,
    pub(super) head_after: Duration,
    pub(super) first_byte_after: Duration,
    pub(super) request_id: &'a str,
    pub(super) method: &'static str,
    pub(super) status: u16,
    pub(super) cache: &'a str,
    pub(super) reason: Option<&'a str>,
    pub(super) tier: Option<&'static str>,
    pub(super) api: Option<&'static str>,
    pub(super) model: Option<&'a str>,
    pub(super) bytes: u64,
    pub(super) is_whole: bool,
}

/// Takes the spans of requests.
#[derive(Debug)]
pub(crate) struct Spans {
    queue: Sender<SpanData>,
    counts: SpanCounts,
    scope: InstrumentationScope,
    ids: RandomIdGenerator,
}

/// The task that sends spans.
#[derive(Debug)]
pub(crate) struct Export {
    task: JoinHandle<()>,
    stopping: Arc<Notify>,
}

/// Begins to send spans to the receiver at this URL.
///
/// # Errors
///
/// TLS cannot be set up, or a variable that begins with `OTEL_` is wrong.
pub(crate) fn begin(
    receiver: &Upstream,
    counts: SpanCounts,
) -> Result<(Arc<Spans>, Export), String> {
    let client = HyperClient::new(connector()?, EXPORT_MAX, None);
    // Headers, such as a credential for the receiver, come from `OTEL_EXPORTER_OTLP_HEADERS`.
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(format!("{receiver}/v1/traces"))
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(EXPORT_MAX)
        .build();
    let mut exporter = exporter.map_err(|error| error.to_string())?;
    exporter.set_resource(&resource());
    Ok(begin_with(exporter, counts))
}

fn begin_with(exporter: impl SpanExporter + 'static, counts: SpanCounts) -> (Arc<Spans>, Export) {
    let (queue, waiting) = channel(SPANS_MAX);
    let stopping = Arc::new(Notify::new());
    let task = send(exporter, waiting, counts.clone(), Arc::clone(&stopping));
    let scope = InstrumentationScope::builder(SERVICE_NAME);
    let spans = Spans {
        queue,
        counts,
        scope: scope.with_version(env!("CARGO_PKG_VERSION")).build(),
        ids: RandomIdGenerator::default(),
    };
    let export = Export {
        task: tokio::spawn(task),
        stopping,
    };
    (Arc::new(spans), export)
}

fn connector() -> Result<HttpsConnector<HttpConnector>, String> {
    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    let builder = HttpsConnectorBuilder::new();
    let builder = match builder.with_provider_and_native_roots(provider()) {
        Ok(builder) => builder,
        // A receiver of the public web is reached from a machine without a trust store as well.
        Err(_) => HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(provider())
            .map_err(|error| error.to_string())?,
    };
    Ok(builder.https_or_http().enable_http1().build())
}

fn resource() -> Resource {
    let told = Resource::builder().build();
    let name = told.get(&Key::from_static_str("service.name"));
    // The SDK's own name for a program without one.
    let is_told = |name: &String| !name.starts_with("unknown_service");
    let name = name.map(|name| name.to_string()).filter(is_told);
    Resource::builder()
        .with_service_name(name.unwrap_or_else(|| SERVICE_NAME.into()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build()
}

impl Spans {
    /// The trace of a request that is in none, in hexadecimal digits.
    pub(super) fn new_trace(&self) -> String {
        self.ids.new_trace_id().to_string()
    }

    /// Sends the span of a request, unless the one who began its trace does not keep it. Never waits.
    pub(super) fn end(&self, request: &Ended<'_>) {
        if !request.trace.is_sampled {
            return;
        }
        // Both are valid: what a client sends was read by the access log.
        let (Ok(trace), Ok(parent)) = (
            TraceId::from_hex(&request.trace.id),
            request
                .trace
                .parent
                .as_deref()
                .map_or(Ok(SpanId::INVALID), SpanId::from_hex),
        ) else {
            return;
        };
        let flags = TraceFlags::SAMPLED;
        let id = self.ids.new_span_id();
        let end_time = SystemTime::now();
        let span = SpanData {
            span_context: SpanContext::new(trace, id, flags, false, TraceState::NONE),
            parent_span_id: parent,
            parent_span_is_remote: request.trace.parent.is_some(),
            span_kind: SpanKind::Server,
            name: match request.api {
                Some(api) => format!("{} {api}", request.method).into(),
                None => request.method.into(),
            },
            start_time: end_time.checked_sub(request.took).unwrap_or(end_time),
            end_time,
            attributes: request.attributes(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: match request.status >= 500 {
                true => Status::error(""),
                false => Status::Unset,
            },
            instrumentation_scope: self.scope.clone(),
        };
        if self.queue.try_send(span).is_err() {
            self.counts.dropped.inc();
        }
    }
}

impl Ended<'_> {
    /// By OpenTelemetry's semantic conventions, as far as they have a name.
    fn attributes(&self) -> Vec<KeyValue> {
        let text = |name: &'static str, value: &str| KeyValue::new(name, value.to_owned());
        let milliseconds = |time: Duration| time.as_micros() as f64 / 1000.0;
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let mut attributes = vec![
            KeyValue::new("http.request.method", self.method),
            KeyValue::new("http.response.status_code", i64::from(self.status)),
            KeyValue::new("http.response.body.size", count(self.bytes)),
            text("reflex.request_id", self.request_id),
            text("reflex.cache", self.cache),
            KeyValue::new("reflex.head_ms", milliseconds(self.head_after)),
            KeyValue::new("reflex.first_byte_ms", milliseconds(self.first_byte_after)),
        ];
        let known = [
            ("reflex.reason", self.reason),
            ("reflex.tier", self.tier),
            ("reflex.api", self.api),
            ("gen_ai.request.model", self.model),
        ];
        let known = known
            .into_iter()
            .filter_map(|(name, value)| Some(text(name, value?)));
        attributes.extend(known);
        attributes.push(KeyValue::new("reflex.whole", self.is_whole));
        attributes
    }
}

impl Export {
    /// Sends what waits, as far as the receiver takes it within [`FLUSH_MAX`].
    pub(crate) async fn end(mut self) {
        self.stopping.notify_one();
        if timeout(FLUSH_MAX, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// Sends spans in batches, until it is told to stop and none is left.
async fn send(
    exporter: impl SpanExporter,
    mut waiting: Receiver<SpanData>,
    counts: SpanCounts,
    stopping: Arc<Notify>,
) {
    let mut is_well = true;
    loop {
        let mut batch = Vec::new();
        gather(&mut waiting, &stopping, &mut batch).await;
        if batch.is_empty() {
            return;
        }
        let spans = batch.len() as u64;
        let taken = timeout(EXPORT_MAX, exporter.export(batch)).await;
        let error = match taken {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it took too long".to_owned()),
        };
        match &error {
            None => counts.sent.inc_by(spans),
            Some(_) => counts.failed.inc_by(spans),
        };
        // The metric counts all; a line at each change is enough.
        match &error {
            Some(error) if is_well => {
                tracing::warn!(%error, "the receiver of spans fails: they are lost until it answers");
            }
            None if !is_well => tracing::info!("the receiver of spans answers again"),
            _ => {}
        }
        is_well = error.is_none();
    }
}

/// Fills a batch: at least one span, unless it is the end. Once it is time to stop, takes what is there.
async fn gather(waiting: &mut Receiver<SpanData>, stopping: &Notify, batch: &mut Vec<SpanData>) {
    loop {
        tokio::select! {
            biased;
            () = stopping.notified() => waiting.close(),
            _ = waiting.recv_many(batch, BATCH_MAX) => break,
        }
    }
    if batch.is_empty() {
        return;
    }
    let late = sleep(BATCH_WAIT);
    tokio::pin!(late);
    while batch.len() < BATCH_MAX {
        let room = BATCH_MAX - batch.len();
        tokio::select! {
            biased;
            () = stopping.notified() => waiting.close(),
            () = &mut late => return,
            count = waiting.recv_many(batch, room) => if count == 0 {
                return;
            },
        }
    }
}

#[cfg(test)]
mod tests;
