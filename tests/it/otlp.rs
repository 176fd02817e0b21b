//! A span for each request, at a real collector: Rotel, which speaks OTLP and prints what it gets. And
//! receivers that fail, which no request notices.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use reflex_tests::client::Ask;
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::upstream::Upstream;
use reflex_tests::within;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// How often is looked whether the collector listens: it does not say so.
const LOOK: Duration = Duration::from_millis(10);

/// A collector that runs.
struct Collector {
    child: Child,
    url: String,
    lines: Lines<BufReader<ChildStdout>>,
    /// All that it has printed so far.
    printed: String,
}

impl Collector {
    /// None, and the test is skipped, if this machine has no collector.
    async fn start() -> Option<Self> {
        let Some(program) = env::var_os("REFLEX_COLLECTOR").filter(|path| !path.is_empty()) else {
            let how = "run `cargo xtask test` where the Python package index is reachable";
            reflex_skip::skip("spans at a real collector", how);
            return None;
        };
        let mut child = Command::new(program)
            .args([
                "start",
                "--exporter",
                "blackhole",
                "--batch-timeout",
                "10ms",
            ])
            .args(["--debug-log", "traces", "--debug-log-verbosity", "detailed"])
            .args(["--otlp-http-endpoint", "127.0.0.1:0"])
            // Not the same address, or it takes both for one.
            .args(["--otlp-grpc-endpoint", "127.0.0.2:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the collector can be started");
        let stdout = child.stdout.take().expect("its stdout");
        let pid = child.id().expect("a process");
        let port = within("a collector that listens", async {
            loop {
                if let Some(port) = port_of(pid) {
                    return port;
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Some(Self {
            url: format!("http://127.0.0.1:{}", port.await),
            child,
            lines: BufReader::new(stdout).lines(),
            printed: String::new(),
        })
    }

    /// The next so many spans, as they are printed: fields and attributes by name.
    async fn spans(&mut self, count: usize) -> Vec<BTreeMap<String, String>> {
        let mut spans: Vec<BTreeMap<String, String>> = Vec::new();
        while spans.len() < count || !spans.last().is_some_and(is_whole) {
            let line = within("a line of the collector", self.lines.next_line()).await;
            let line = line.expect("text").expect("a collector that runs");
            self.printed += &line;
            self.printed.push('\n');
            let line = line.trim();
            if line.starts_with("Span #") {
                spans.push(BTreeMap::new());
            }
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let name = name.trim_start_matches("->").trim();
            let value = value.trim();
            // `Str(a)`, `Int(1)`, and fields of a span as they are.
            let inner = value
                .split_once('(')
                .and_then(|(_, rest)| rest.strip_suffix(')'));
            if let Some(span) = spans.last_mut() {
                span.insert(name.into(), inner.unwrap_or(value).into());
            }
        }
        spans
    }
}

/// Whether all attributes of a span were printed: this is the last one.
fn is_whole(span: &BTreeMap<String, String>) -> bool {
    span.contains_key("reflex.whole")
}

/// The port of 127.0.0.1 at which this process listens, by the system's tables.
fn port_of(pid: u32) -> Option<u16> {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let sockets = folder.filter_map(|file| {
        let target = fs::read_link(file.ok()?.path()).ok()?;
        let inode = target
            .to_str()?
            .strip_prefix("socket:[")?
            .strip_suffix(']')?;
        Some(inode.to_owned())
    });
    let sockets: Vec<String> = sockets.collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).ok()?;
    table.lines().find_map(|line| {
        // Number, local address, peer, state (0A listens), queues, timer, retransmits, user, timeout, inode.
        let cells: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, "0A", _, _, _, _, _, inode, ..] = cells[..] else {
            return None;
        };
        let port = local.strip_prefix("0100007F:")?;
        let is_ours = sockets.iter().any(|it| it == inode);
        is_ours
            .then(|| u16::from_str_radix(port, 16).ok())
            .flatten()
    })
}

async fn edge(upstream: &Upstream, receiver: &str) -> Edge {
    let config = format!("hits = \"native\"\notlp_endpoint = \"{receiver}\"");
    Plan::new(&upstream.url()).config(&config).start().await
}

fn traced(parent: &str, flags: &str) -> Ask {
    let context = format!("00-{TRACE}-{parent}-{flags}");
    Ask::chat("private prompt").header("traceparent", &context)
}

#[tokio::test]
async fn each_request_is_a_span_with_what_the_access_log_has() {
    let Some(mut collector) = Collector::start().await else {
        return;
    };
    let upstream = Upstream::start().await;
    let mut edge = edge(&upstream, &collector.url).await;
    let first = traced("00f067aa0ba902b7", "01").header("x-request-id", "req-1");
    let first = edge.client.fetch(first).await;
    edge.recorded(1, 0).await;
    for (parent, flags) in [("1111111111111111", "01"), ("2222222222222222", "00")] {
        let hit = edge.client.fetch(traced(parent, flags)).await;
        assert_eq!(hit.reflex(), "HIT_L1_EXACT");
    }
    edge.client
        .fetch(Ask::get("/v1/private-models?private=1"))
        .await;
    // At the end, the spans that wait are sent.
    edge.terminate();
    assert_eq!(edge.ended().await, Some(0), "{}", edge.log());

    let spans = collector.spans(3).await;
    let [miss, hit, bypass] = &spans[..] else {
        panic!("{spans:#?}");
    };
    let is = |span: &BTreeMap<String, String>, expected: &[(&str, &str)]| {
        for (name, value) in expected {
            let found = span.get(*name).map(String::as_str);
            assert_eq!(found, Some(*value), "{name}: {span:#?}");
        }
    };
    let common = [
        ("Trace ID", TRACE),
        ("Name", "POST chat-completions"),
        ("Kind", "SPAN_KIND_SERVER"),
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("reflex.api", "chat-completions"),
        ("gen_ai.request.model", "mock"),
        ("reflex.whole", "true"),
    ];
    let length = first.body.len().to_string();
    for (span, own) in [
        (
            miss,
            [
                ("Parent ID", "00f067aa0ba902b7"),
                ("reflex.request_id", "req-1"),
                ("reflex.cache", "MISS"),
                ("http.response.body.size", &length),
            ],
        ),
        (
            hit,
            [
                ("Parent ID", "1111111111111111"),
                ("reflex.cache", "HIT_L1_EXACT"),
                ("reflex.whole", "true"),
                ("http.response.body.size", &length),
            ],
        ),
    ] {
        is(span, &common);
        is(span, &own);
        assert_eq!(
            span.contains_key("reflex.tier"),
            span["reflex.cache"] != "MISS"
        );
        let time = |name: &str| span[name].parse::<f64>().expect("a number");
        assert!(time("reflex.first_byte_ms") >= time("reflex.head_ms"));
        assert!(time("End time") > time("Start time"));
    }
    // No trace of the client's: one begins here. And the one that is not kept has no span.
    is(
        bypass,
        &[
            ("reflex.cache", "BYPASS"),
            ("reflex.reason", "path"),
            ("Name", "GET"),
        ],
    );
    assert_eq!(bypass["Trace ID"].len(), 32, "{bypass:#?}");
    assert_ne!(bypass["Trace ID"], TRACE);
    assert_eq!(bypass["Parent ID"], "");
    assert!(
        collector.printed.contains("service.name: Str(reflex-edge)"),
        "{}",
        collector.printed
    );
    for secret in ["private", "Bearer"] {
        assert!(
            !collector.printed.contains(secret),
            "{secret}: {}",
            collector.printed
        );
    }
    // The provider gets the client's own trace.
    let call = &upstream.calls()[0];
    assert_eq!(
        call.header("traceparent"),
        format!("00-{TRACE}-00f067aa0ba902b7-01")
    );
    collector.child.kill().await.expect("a process of ours");
}

/// The first two take no connection or nothing of it, the third refuses all.
#[tokio::test]
async fn a_receiver_that_fails_delays_no_request_and_is_counted() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let gone = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let refusing = Upstream::start_with(reflex_tests::behaviour::Behaviour::Status(500)).await;
    let url =
        |listener: &TcpListener| format!("http://{}", listener.local_addr().expect("its address"));
    let receivers = [
        (url(&silent), false),
        (url(&gone), true),
        (refusing.url(), true),
    ];
    drop(gone);
    for (receiver, fails_at_once) in receivers {
        let upstream = Upstream::start().await;
        let mut edge = edge(&upstream, &receiver).await;
        for _ in 0..20 {
            assert_eq!(edge.client.fetch(Ask::chat("hello")).await.status, 200);
        }
        let failed = [("outcome", "failed")];
        if fails_at_once {
            edge.until("spans that the receiver has not taken", |metrics| {
                metrics.sum("reflex_otlp_spans_total", &failed) > 0.5
            })
            .await;
        }
        let metrics = edge.metrics().await;
        let sent = metrics.sum("reflex_otlp_spans_total", &[("outcome", "sent")]);
        assert!(sent < 0.5, "{receiver}: {metrics:#?}");
        edge.terminate();
        assert_eq!(edge.ended().await, Some(0), "{receiver}: {}", edge.log());
    }
    drop(silent);
}
