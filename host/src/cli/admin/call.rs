//! Calls of the admin API, and what may become of them.

use super::address::Address;
use super::{EXIT_FAILED, EXIT_TOKEN, EXIT_UNREACHABLE};
use crate::cli::progress::Progress;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, Limited, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::{Method, Request, Response, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use reflex_host::serve::tls::trusting;
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Invalid flags: the same code that clap uses.
const EXIT_USAGE: u8 = 2;

/// The longest answer that is no export: an entry's payload as base64, of the largest entry.
const ANSWER_BYTES_MAX: usize = 2 << 30;
/// An import is sent in parts of so many bytes.
const PART_BYTES: usize = 64 << 10;
/// Where the daemon makes its token, if it was started in the same folder.
const TOKEN_FILE: &str = "reflex-data/admin-token";
/// A file of a token is not longer.
const TOKEN_BYTES_MAX: u64 = 4096;
/// The daemon is on this machine, or near.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A daemon that answers probes later than this is not well. Less than what images and orchestrators wait.
const PROBE_MAX: Duration = Duration::from_secs(4);

type Body = BoxBody<Bytes, io::Error>;

/// A command that failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) message: String,
    pub(super) exit_code: u8,
}

impl Failed {
    pub(super) fn told(message: impl ToString) -> Self {
        Self {
            message: message.to_string(),
            exit_code: EXIT_FAILED,
        }
    }

    pub(super) fn usage(message: impl ToString) -> Self {
        Self {
            exit_code: EXIT_USAGE,
            ..Self::told(message)
        }
    }
}

/// The admin API of one daemon.
pub(super) struct Api {
    admin: Address,
    connections: Connections,
    token: Option<String>,
    /// Where the token would be.
    token_file: PathBuf,
}

/// The way to the daemon.
enum Connections {
    Plain(Client<HttpConnector, Body>),
    Tls(Client<HttpsConnector<HttpConnector>, Body>),
}

impl Connections {
    fn new(admin: &Address, ca: Option<&Path>) -> Result<Self, Failed> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_MAX));
        let client = Client::builder(TokioExecutor::new());
        if !admin.has_tls() {
            return match ca {
                None => Ok(Self::Plain(client.build(connector))),
                Some(_) => Err(Failed::usage("--ca needs --admin https://HOST:PORT")),
            };
        }
        connector.enforce_http(false);
        let tls = trusting(ca).map_err(Failed::usage)?;
        Ok(Self::Tls(client.build((connector, tls).into())))
    }
}

impl Api {
    /// The daemon at `admin`, whose certificate the system's CAs or those of `ca` have signed.
    pub(super) fn new(
        admin: &Address,
        ca: Option<&Path>,
        token_file: Option<&Path>,
    ) -> Result<Self, Failed> {
        let path = token_file.unwrap_or(Path::new(TOKEN_FILE));
        let token = match (read_token(path), token_file) {
            (Ok(token), _) => Some(token),
            // Reads need none on loopback.
            (Err(error), None) if error.kind() == io::ErrorKind::NotFound => None,
            (Err(error), _) => {
                return Err(Failed {
                    message: format!("--token-file {}: {error}", path.display()),
                    exit_code: EXIT_TOKEN,
                });
            }
        };
        Ok(Self {
            token,
            token_file: path.to_owned(),
            ..Self::open(admin, ca)?
        })
    }

    /// For what needs no token.
    pub(super) fn open(admin: &Address, ca: Option<&Path>) -> Result<Self, Failed> {
        Ok(Self {
            admin: admin.clone(),
            connections: Connections::new(admin, ca)?,
            token: None,
            token_file: PathBuf::new(),
        })
    }

    /// Whether a path answers with success, and its answer.
    pub(super) async fn probe(&self, path: &str) -> Result<(bool, Value), Failed> {
        let empty = Full::default().map_err(|never| match never {}).boxed();
        let probed = async {
            let response = self.send(Method::GET, path, empty).await?;
            let (status, answer) = read_json(response).await?;
            Ok((status.is_success(), answer))
        };
        match tokio::time::timeout(PROBE_MAX, probed).await {
            Ok(probed) => probed,
            Err(_) => Err(Failed {
                message: format!("{} does not answer", self.admin),
                exit_code: EXIT_UNREACHABLE,
            }),
        }
    }

    /// Calls, and returns the answer as JSON.
    pub(super) async fn json(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<Value, Failed> {
        let full = Full::new(Bytes::from(body));
        let full = full.map_err(|never| match never {}).boxed();
        let response = self.send(method, path, full).await?;
        let (status, answer) = read_json(response).await?;
        match status.is_success() {
            true => Ok(answer),
            false => Err(self.refused(status, &answer)),
        }
    }

    /// Writes an export to a file, or to standard output; how many entries it has.
    pub(super) async fn export(&self, file: Option<&Path>) -> Result<Value, Failed> {
        let empty = Full::default().map_err(|never| match never {}).boxed();
        let response = self.send(Method::GET, "/v1/export", empty).await?;
        if !response.status().is_success() {
            let (status, answer) = read_json(response).await?;
            return Err(self.refused(status, &answer));
        }
        let named = |error: io::Error| match file {
            Some(file) => Failed::told(format!("{}: {error}", file.display())),
            None => Failed::told(format!("standard output: {error}")),
        };
        let mut out: Box<dyn Write> = match file {
            // It has the answers of all tenants.
            Some(path) => Box::new(create(path).map_err(named)?),
            None => Box::new(io::stdout().lock()),
        };
        let mut body = response.into_body();
        let mut tail = Tail::default();
        let mut progress = Progress::of("MiB written:");
        let mut written = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| cut(&error))?;
            let data = frame.into_data().unwrap_or_default();
            out.write_all(&data).map_err(named)?;
            tail.feed(&data);
            written += data.len() as u64;
            progress.tell(written >> 20, 0);
        }
        out.flush().map_err(named)?;
        let last: Option<Value> = serde_json::from_slice(&tail.line).ok();
        match last.filter(|last| last["end"] == true) {
            Some(last) => Ok(json!({ "entries": last["entries"] })),
            None => Err(Failed::told("the export was cut: its last line is missing")),
        }
    }

    /// Sends an export; the daemon's report, and whether every line of it is in the cache.
    pub(super) async fn import(
        &self,
        file: &Path,
        is_strict: bool,
    ) -> Result<(Value, bool), Failed> {
        let named = |error: io::Error| Failed::usage(format!("{}: {error}", file.display()));
        let mut all = 0;
        let from: Box<dyn Read + Send + Sync> = match file == Path::new("-") {
            true => Box::new(io::stdin()),
            false => {
                let opened = File::open(file).map_err(named)?;
                let metadata = opened.metadata().map_err(named)?;
                if metadata.is_dir() {
                    return Err(named(io::ErrorKind::IsADirectory.into()));
                }
                all = metadata.len();
                Box::new(opened)
            }
        };
        let path = format!("/v1/import?strict={is_strict}");
        let parts = Parts {
            from,
            sent: 0,
            all,
            progress: Progress::of("MiB sent:"),
        };
        let body = parts.boxed();
        let response = self.send(Method::POST, &path, body).await?;
        let (status, answer) = read_json(response).await?;
        match answer.get("imported") {
            Some(_) => {
                let is_good =
                    status.is_success() && answer["complete"] == true && answer["refused"] == 0;
                Ok((answer, is_good))
            }
            None => Err(self.refused(status, &answer)),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Response<Incoming>, Failed> {
        let mut request = Request::builder().method(method).uri(self.admin.at(path));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(body).map_err(Failed::usage)?;
        let sent = match &self.connections {
            Connections::Plain(client) => client.request(request),
            Connections::Tls(client) => client.request(request),
        };
        sent.await.map_err(|error| {
            let message = match error.is_connect() {
                true => format!(
                    "no daemon answers at {}: is it running? --admin says where ({})",
                    self.admin,
                    cause(&error)
                ),
                false => format!("no answer from {}: {}", self.admin, cause(&error)),
            };
            Failed {
                message,
                exit_code: EXIT_UNREACHABLE,
            }
        })
    }

    fn refused(&self, status: StatusCode, answer: &Value) -> Failed {
        let (reason, message) = (&answer["reason"], &answer["message"]);
        let message = message.as_str().unwrap_or("it gave no reason");
        let is_token = reason == "token" || reason == "token-file";
        let message = match (&self.token, is_token) {
            (None, true) if reason == "token" => format!(
                "this needs the admin token: {} is missing; --token-file names the daemon's",
                self.token_file.display()
            ),
            (Some(_), true) if reason == "token" => format!(
                "the token in {} is not this daemon's; --token-file names the daemon's",
                self.token_file.display()
            ),
            _ => format!("the daemon refused: {message} ({status})"),
        };
        Failed {
            message,
            exit_code: if is_token { EXIT_TOKEN } else { EXIT_FAILED },
        }
    }
}

/// The innermost cause says what the system said.
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn cut(error: &dyn std::error::Error) -> Failed {
    let why = format!("the daemon's answer was cut: {}", cause(error));
    Failed::told(why)
}

async fn read_json(response: Response<Incoming>) -> Result<(StatusCode, Value), Failed> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let body = body.collect().await;
    let body = body.map_err(|error| cut(&*error))?.to_bytes();
    let answer = serde_json::from_slice(&body).map_err(|_| {
        let why =
            format!("this is no admin address of reflex-edge: it answers {status} without JSON");
        Failed::told(why)
    })?;
    Ok((status, answer))
}

fn read_token(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    file.take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
    let token = text.trim();
    match !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(token.to_owned()),
        false => Err(io::Error::other("it holds no token")),
    }
}

fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    // A pipe or a device keeps its mode.
    if file.metadata()?.is_file() {
        use std::os::unix::fs::PermissionsExt as _;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// The last line of what was fed, as far as it is short.
#[derive(Default)]
struct Tail {
    line: Vec<u8>,
    /// The line is over: what follows begins the next one.
    is_over: bool,
}

impl Tail {
    /// The last line of an export is not longer.
    const BYTES_MAX: usize = 256;

    fn feed(&mut self, data: &[u8]) {
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            if self.is_over {
                self.line.clear();
            }
            let room = (Self::BYTES_MAX).saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            self.is_over = part.ends_with(b"\n");
        }
    }
}

/// A file as a body, read when the connection takes more. This program does nothing else, so that it may
/// wait for the disk.
struct Parts {
    from: Box<dyn Read + Send + Sync>,
    /// In bytes.
    sent: u64,
    /// The file's length; 0 where that is not known.
    all: u64,
    progress: Progress,
}

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut part = vec![0; PART_BYTES];
        Poll::Ready(match self.from.read(&mut part) {
            Ok(0) => None,
            Ok(length) => {
                part.truncate(length);
                self.sent += length as u64;
                let (sent, all) = (self.sent >> 20, self.all >> 20);
                self.progress.tell(sent, all);
                Some(Ok(Frame::data(part.into())))
            }
            Err(error) => Some(Err(error)),
        })
    }
}
