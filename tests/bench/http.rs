//! The daemon beside a bare hyper server that returns the same bytes, both over loopback.

use crate::clock::cpu_seconds;
use crate::{ROUNDS, median, report};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const CONNECTIONS: usize = 32;
pub(crate) const ROUND: Duration = Duration::from_secs(2);
pub(crate) const ANSWER_BYTES: usize = 4096;

/// What both servers answer with.
pub(crate) fn answer() -> Bytes {
    let start = r#"{"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":""#;
    let end = r#""},"finish_reason":"stop"}]}"#;
    let content = "x".repeat(ANSWER_BYTES - start.len() - end.len());
    format!("{start}{content}{end}").into()
}

/// Whether all requests are the same.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Prompts {
    Same,
    Distinct,
}

/// A request with a prompt of 1 KiB that ends in this number.
fn request(number: u64) -> Vec<u8> {
    let prompt = format!("{}{number:020}", "p".repeat(1004));
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{prompt}"}}]}}"#);
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer bench\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Reads each request whole, as any server of this API must, and returns the same bytes.
pub(crate) fn bare_server() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!(
            "listening on http://{}",
            listener.local_addr().expect("bound")
        );
        std::io::stdout().flush().expect("a reader");
        let answer = answer();
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("TCP");
            let answer = answer.clone();
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let answer = answer.clone();
                async move {
                    // An aborted request has no answer to be wrong about.
                    let _ = request.into_body().collect().await;
                    let response =
                        http::Response::builder().header("content-type", "application/json");
                    Ok::<_, Infallible>(response.body(Full::new(answer)).expect("valid"))
                }
            });
            tokio::spawn(async move {
                let connection = auto::Builder::new(TokioExecutor::new());
                let _ = connection
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

/// A child that serves, ended by its own id when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    /// Open for as long as it runs: it may have more to say.
    _out: BufReader<ChildStdout>,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("starts");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        out.read_line(&mut line).expect("its first line");
        let address = line
            .trim()
            .rsplit_once("//")
            .expect("an address")
            .1
            .to_owned();
        Self {
            child,
            _out: out,
            address,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either fails only if the child has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn run() -> ExitCode {
    let this = std::env::current_exe().expect("a path");
    let edge = this.with_file_name("reflex-edge");
    if !edge.exists() {
        eprintln!(
            "{} is missing: run `cargo xtask bench`, which builds it",
            edge.display()
        );
        return ExitCode::FAILURE;
    }
    println!(
        "serve: {CONNECTIONS} connections, HTTP/1.1, 1 KiB prompt, {ANSWER_BYTES} byte answer"
    );
    let dir = tempfile::tempdir().expect("a folder");
    let bare = Server::start(Command::new(&this).arg("bare-server"));
    let ours = Server::start(
        Command::new(&edge)
            .arg("serve")
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--upstream")
            .arg(format!("http://{}", bare.address))
            .arg("--data-dir")
            .arg(dir.path()),
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (mut theirs_rate, mut ours_rate, mut theirs_latency, mut ours_latency) =
        (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        for (server, rates, latencies) in [
            (&bare, &mut theirs_rate, &mut theirs_latency),
            (&ours, &mut ours_rate, &mut ours_latency),
        ] {
            let before = cpu_seconds(server.child.id());
            let load = runtime.block_on(load(&server.address, Prompts::Same));
            let cpu = cpu_seconds(server.child.id()) - before;
            rates.push(load.len() as f64 / cpu);
            latencies.push(median(load));
        }
    }
    let (theirs, hits) = (median(theirs_rate), median(ours_rate));
    report("bare hyper, requests per second of one core", theirs, "/s");
    report("reflex-edge, hits per second of one core", hits, "/s");
    report("ours / bare", hits / theirs, "x");
    report(
        "bare hyper, median latency under this load",
        median(theirs_latency),
        "µs",
    );
    report(
        "reflex-edge, median latency of a hit under this load",
        median(ours_latency),
        "µs",
    );

    let one = |server: &Server| {
        median(
            (0..ROUNDS)
                .map(|_| median(runtime.block_on(alone(&server.address))))
                .collect(),
        )
    };
    report(
        "bare hyper, median latency, one connection",
        one(&bare),
        "µs",
    );
    report(
        "reflex-edge, median latency of a hit, one connection",
        one(&ours),
        "µs",
    );
    ExitCode::SUCCESS
}

/// Latencies in microseconds, from all connections at once.
pub(crate) async fn load(address: &str, prompts: Prompts) -> Vec<f64> {
    let until = Instant::now() + ROUND;
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| tokio::spawn(client(address.to_owned(), until, prompts)))
        .collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await.expect("a client"));
    }
    latencies
}

async fn alone(address: &str) -> Vec<f64> {
    let until = Instant::now() + ROUND / 4;
    client(address.to_owned(), until, Prompts::Same).await
}

/// Numbers the distinct prompts of this run.
static NEXT: AtomicU64 = AtomicU64::new(1);

async fn client(address: String, until: Instant, prompts: Prompts) -> Vec<f64> {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.set_nodelay(true).expect("TCP");
    let mut request = request(0);
    let mut buffer = vec![0; 64 << 10];
    let mut latencies = Vec::new();
    while Instant::now() < until {
        if prompts == Prompts::Distinct {
            request = self::request(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        let began = Instant::now();
        stream.write_all(&request).await.expect("sent");
        read_response(&mut stream, &mut buffer).await;
        latencies.push(began.elapsed().as_secs_f64() * 1e6);
    }
    latencies
}

/// Both servers say `content-length`, and nothing follows a response that was not asked for.
async fn read_response(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    loop {
        let read = stream
            .read(&mut buffer[filled..])
            .await
            .expect("a response");
        assert!(read > 0, "the connection closed");
        filled += read;
        let Some(head) = buffer[..filled]
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
        else {
            continue;
        };
        assert!(buffer.starts_with(b"HTTP/1.1 200"), "an error response");
        if filled >= head + 4 + ANSWER_BYTES {
            return;
        }
    }
}
