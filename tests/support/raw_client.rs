//! A client that speaks in bytes: what no client library would send, or leave unread.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::client::Ask;
use crate::{tls, within};

/// What an HTTP/2 client sends first, with settings that change nothing.
pub const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// A connection. Dropping it closes both sides.
pub struct RawClient {
    socket: Box<dyn Socket>,
    /// What has been read and not been returned.
    read: Vec<u8>,
}

impl std::fmt::Debug for RawClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawClient").finish_non_exhaustive()
    }
}

impl RawClient {
    /// Connects to the server at `http://ADDRESS`, or at `https://ADDRESS` with the certificate of
    /// [`tls::Pair::of_provider`].
    ///
    /// # Panics
    ///
    /// If it cannot be reached.
    pub async fn connect(url: &str) -> Self {
        if url.starts_with("https://") {
            let config = tls::trusting(Some(Path::new(tls::CA)), None, &[]);
            return Self::of(tls::connect(url, config).await.expect("a handshake"));
        }
        let address = url.trim_start_matches("http://");
        let socket = within("a connection", TcpStream::connect(address)).await;
        Self::of(socket.expect("a connection"))
    }

    /// Connects to a Unix socket.
    ///
    /// # Panics
    ///
    /// If it cannot be reached.
    pub async fn connect_unix(path: &Path) -> Self {
        let socket = within("a connection", UnixStream::connect(path)).await;
        Self::of(socket.expect("a connection"))
    }

    /// On a connection that is there, such as one with TLS.
    pub fn of(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self {
            socket: Box::new(socket),
            read: Vec::new(),
        }
    }

    /// Sends these bytes.
    ///
    /// # Panics
    ///
    /// If the connection is closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes)
            .await
            .expect("a connection that is open");
    }

    /// The same where it may be closed.
    ///
    /// # Errors
    ///
    /// It is.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let sent = self.socket.write_all(bytes.as_ref());
        within("bytes to be taken", sent).await
    }

    /// Sends for so long as the server takes what is sent at once, and returns how many times.
    pub async fn send_while_taken(&mut self, bytes: &[u8], times_max: usize) -> usize {
        for times in 0..times_max {
            let sent = self.socket.write_all(bytes);
            let patience = std::time::Duration::from_secs(1);
            if tokio::time::timeout(patience, sent).await.is_err() {
                return times;
            }
        }
        times_max
    }

    /// Ends its own side, and can still read.
    ///
    /// # Panics
    ///
    /// If the connection is closed.
    pub async fn end(&mut self) {
        self.socket
            .shutdown()
            .await
            .expect("a connection that is open");
    }

    /// The same where the connection may be closed.
    ///
    /// # Errors
    ///
    /// It is.
    pub async fn try_end(&mut self) -> io::Result<()> {
        self.socket.shutdown().await
    }

    /// Reads on until `text` has come, and returns everything up to its end.
    ///
    /// # Panics
    ///
    /// If the connection ends first.
    pub async fn until(&mut self, text: &str) -> String {
        let read = self.until_bytes(text.as_bytes()).await;
        String::from_utf8_lossy(&read).into_owned()
    }

    /// The same with bytes that are no text.
    ///
    /// # Panics
    ///
    /// If the connection ends first.
    pub async fn until_bytes(&mut self, bytes: &[u8]) -> Vec<u8> {
        loop {
            let found = self.read.windows(bytes.len()).position(|it| it == bytes);
            if let Some(at) = found {
                let rest = self.read.split_off(at + bytes.len());
                return std::mem::replace(&mut self.read, rest);
            }
            let text = String::from_utf8_lossy(bytes).into_owned();
            let count = within(&text, self.more()).await;
            assert!(
                count.as_ref().is_ok_and(|count| *count > 0),
                "the connection ended ({count:?}) without `{text}`: {}",
                String::from_utf8_lossy(&self.read)
            );
        }
    }

    /// Reads a response's head and, by its `content-length`, its body.
    ///
    /// # Panics
    ///
    /// If the connection ends first.
    pub async fn answer(&mut self) -> (String, Vec<u8>) {
        let head = self.until("\r\n\r\n").await;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.parse::<usize>().expect("a length"))
        });
        let length = length.unwrap_or(0);
        while self.read.len() < length {
            let count = within("a body", self.more()).await.expect("a body");
            assert!(count > 0, "the body was cut: {head}");
        }
        let rest = self.read.split_off(length);
        (head, std::mem::replace(&mut self.read, rest))
    }

    /// Everything until the server closes the connection, in whatever way.
    pub async fn rest(&mut self) -> Vec<u8> {
        while let Ok(1..) = within("the end of a connection", self.more()).await {}
        std::mem::take(&mut self.read)
    }

    /// The same as text.
    pub async fn rest_text(&mut self) -> String {
        String::from_utf8_lossy(&self.rest().await).into_owned()
    }

    async fn more(&mut self) -> io::Result<usize> {
        self.socket.read_buf(&mut self.read).await
    }
}

/// A request as HTTP/1.1 writes it.
pub fn http1(ask: &Ask) -> Vec<u8> {
    let request = ask.clone().into_request("", ());
    let mut text = format!(
        "{} {} HTTP/1.1\r\nhost: test\r\n",
        request.method(),
        ask.path()
    );
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        let _ = write!(text, "{name}: {value}\r\n");
    }
    if !ask.sent().is_empty() {
        let _ = write!(text, "content-length: {}\r\n", ask.sent().len());
    }
    let mut bytes = (text + "\r\n").into_bytes();
    bytes.extend_from_slice(ask.sent());
    bytes
}

/// A request as HTTP/2 frames it, as the stream of that number.
pub fn http2(ask: &Ask, stream: u32) -> Vec<u8> {
    let request = ask.clone().into_request("", ());
    let pseudo = [
        (":method", request.method().as_str()),
        (":scheme", "http"),
        (":authority", "test"),
        (":path", ask.path()),
    ];
    let block = header_block(&pseudo, request.headers());
    let mut bytes = frame(1, 0x4, stream, &block);
    bytes.extend(frame(0, 0x1, stream, ask.sent()));
    bytes
}

/// Headers as HPACK's literals, each shorter than 127 bytes.
pub fn header_block(pseudo: &[(&str, &str)], headers: &HeaderMap) -> Vec<u8> {
    let pseudo = pseudo.iter().map(|(name, value)| (*name, value.as_bytes()));
    let headers = headers.iter();
    let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
    let mut block = Vec::new();
    for (name, value) in pseudo.chain(headers) {
        block.push(0);
        for part in [name.as_bytes(), value] {
            let length = u8::try_from(part.len()).ok().filter(|length| *length < 127);
            block.push(length.expect("a short header"));
            block.extend_from_slice(part);
        }
    }
    block
}

/// A frame of HTTP/2.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}
