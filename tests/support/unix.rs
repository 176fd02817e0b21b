//! A client of the edge API's Unix socket: over HTTP/1.1 with a connection for each request, or
//! over HTTP/2 with one for all, as an Envoy worker has it.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::client::{Answer, Ask, Streaming};
use crate::reply::Reply;
use crate::within;

/// What stands before the path over HTTP/2; a socket has no name of its own.
const ORIGIN: &str = "http://reflex";

/// A client of one socket.
#[derive(Clone, Debug)]
pub struct Unix {
    socket: PathBuf,
    /// None for HTTP/1.1.
    connection: Option<http2::SendRequest<Reply>>,
}

impl Unix {
    /// Speaks HTTP/1.1 and connects for each request.
    pub fn http1(socket: &Path) -> Self {
        Self {
            socket: socket.into(),
            connection: None,
        }
    }

    /// Speaks HTTP/2 over one connection, which is made now.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub async fn http2(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).await.expect("a connection");
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = within("a handshake", handshake)
            .await
            .expect("a server that speaks HTTP/2");
        // It ends with its last request. How it ends shows in those.
        tokio::spawn(connection);
        Self {
            socket: socket.into(),
            connection: Some(sender),
        }
    }

    /// Sends a request and waits for the whole answer.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub async fn fetch(&self, ask: Ask) -> Answer {
        let sent = self.try_send(ask).await;
        sent.expect("a response").whole().await
    }

    /// Sends a request and waits for the response's head, if there is one.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or closed the connection before it answered.
    ///
    /// # Panics
    ///
    /// If it takes too long, or the test has made something up that is not a request.
    pub async fn try_send(&self, ask: Ask) -> Result<Streaming, String> {
        let body = Some(ask.sent().clone()).filter(|body| !body.is_empty());
        within(
            "the head of a response",
            self.exchange(ask, Reply::Whole(body)),
        )
        .await
    }

    /// Begins a request whose body the test sends part by part, without a `content-length`. The
    /// request is taken back when what is returned beside the body is dropped.
    pub fn begin(&self, ask: Ask) -> (Feed, Sent) {
        // Of one part, so that a part that was taken says that the one before is on its way.
        let (sender, frames) = mpsc::channel(1);
        let body = Reply::Frames {
            frames,
            length: None,
        };
        let client = self.clone();
        let response = tokio::spawn(async move { client.exchange(ask, body).await });
        (Feed(sender), Sent(response))
    }

    async fn exchange(&self, ask: Ask, body: Reply) -> Result<Streaming, String> {
        let response = match &self.connection {
            Some(connection) => {
                let request = ask.into_request(ORIGIN, body);
                connection.clone().send_request(request).await
            }
            None => {
                let request = ask.header("host", "reflex").into_request("", body);
                let stream = UnixStream::connect(&self.socket).await;
                let stream = TokioIo::new(stream.map_err(|error| format!("{error:?}"))?);
                let handshake = http1::handshake(stream).await;
                let (mut sender, connection) = handshake.map_err(|error| format!("{error:?}"))?;
                tokio::spawn(connection);
                sender.send_request(request).await
            }
        };
        response
            .map(Streaming::new)
            .map_err(|error| format!("{error:?}"))
    }
}

/// The body of a request on its way. Dropping it is the body's proper end.
#[derive(Debug)]
pub struct Feed(mpsc::Sender<io::Result<Bytes>>);

impl Feed {
    /// Sends a part. Returns whether it has a receiver.
    pub async fn send(&self, part: impl Into<Bytes>) -> bool {
        let sent = self.0.send(Ok(part.into()));
        within("a part of a body to be taken", sent).await.is_ok()
    }

    /// Ends the body in the middle.
    pub async fn cut(self) {
        let error = io::Error::other("cut, as the test wants it");
        let _ = self.0.send(Err(error)).await;
    }
}

/// A request on its way. Dropping it hangs up.
#[derive(Debug)]
pub struct Sent(JoinHandle<Result<Streaming, String>>);

impl Sent {
    /// The whole answer.
    ///
    /// # Errors
    ///
    /// There is none.
    ///
    /// # Panics
    ///
    /// If it takes too long.
    pub async fn answer(mut self) -> Result<Answer, String> {
        let head = within("the head of a response", &mut self.0).await;
        Ok(head.map_err(|error| error.to_string())??.whole().await)
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.0.abort();
    }
}
