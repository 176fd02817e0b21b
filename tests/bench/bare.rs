//! A bare hyper server: the minimum of work for a request of this API. It reads the request
//! whole and returns bytes that it holds in memory. Other servers are compared with it, and it is
//! the provider behind them.

use crate::work::{Answer, Drip, SLOW_ANSWER_TIME, Work};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::TcpListener;

/// The path of the count of its requests, those to this path excluded.
pub(crate) const COUNT_PATH: &str = "/count";

/// Serves until it is killed.
pub(crate) fn serve() -> ExitCode {
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
        let works: Arc<[Work]> = Work::all().into();
        let count = Arc::new(AtomicU64::new(0));
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("TCP");
            let (works, count) = (Arc::clone(&works), Arc::clone(&count));
            let service = service_fn(move |request| {
                let (works, count) = (Arc::clone(&works), Arc::clone(&count));
                async move { Ok::<_, Infallible>(answer(request, &works, &count).await) }
            });
            tokio::spawn(async move {
                let connection = auto::Builder::new(TokioExecutor::new());
                // A client that leaves in the middle is no failure of this server.
                let _ = connection
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

type Response = http::Response<Either<Full<Bytes>, Drip>>;

async fn answer(
    request: http::Request<hyper::body::Incoming>,
    works: &[Work],
    count: &AtomicU64,
) -> Response {
    let response = http::Response::builder();
    if request.uri().path() == COUNT_PATH {
        let count = count.load(Ordering::Relaxed).to_string();
        return response
            .body(Either::Left(Full::new(count.into())))
            .expect("valid");
    }
    count.fetch_add(1, Ordering::Relaxed);
    let agent = request.headers().get(USER_AGENT);
    let work = agent.and_then(|agent| works.iter().find(|work| agent == work.agent));
    // The first is for clients that do not say.
    let work = work.unwrap_or(&works[0]);
    let response = response.header(CONTENT_TYPE, work.content_type());
    // An aborted request has no answer to check.
    let _ = request.into_body().collect().await;
    let body = match &work.answer {
        Answer::Bytes(bytes) => Either::Left(Full::new(bytes.clone())),
        Answer::Drip => Either::Right(Drip::new()),
        Answer::Slow(bytes) => {
            tokio::time::sleep(SLOW_ANSWER_TIME).await;
            Either::Left(Full::new(bytes.clone()))
        }
    };
    response.body(body).expect("valid")
}

/// A child process that serves, killed by its own id when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    /// Open as long as it runs: it may print more.
    _out: BufReader<ChildStdout>,
    pub(crate) address: String,
}

impl Server {
    /// Starts a program whose first line is its address.
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

    /// This program once more, as the bare server.
    pub(crate) fn bare() -> Self {
        let this = std::env::current_exe().expect("a path");
        Self::start(Command::new(this).arg("bare-server"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either fails only if the child has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
