//! The load: HTTP/1.1 over connections that are kept, one request at a time on each.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A head must fit; a body is read through it.
const BUFFER_BYTES: usize = 256 << 10;

/// A request without an answer after this time has failed.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// The requests of a load.
#[derive(Clone)]
pub(crate) enum Requests {
    /// These bytes, again and again.
    Same(Arc<[u8]>),
    /// Any of these, at random.
    AnyOf(Arc<[Vec<u8>]>),
    /// Each time another one, of a number that no other request has.
    Distinct(Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync>),
}

/// Numbers the distinct requests of this process.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Requests {
    fn next<'a>(&'a self, random: &mut Random, made: &'a mut Vec<u8>) -> &'a [u8] {
        match self {
            Self::Same(request) => request,
            Self::AnyOf(requests) => &requests[random.below(requests.len())],
            Self::Distinct(make) => {
                *made = make(NEXT.fetch_add(1, Ordering::Relaxed));
                made
            }
        }
    }
}

/// A load for a server.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) time: Duration,
    pub(crate) requests: Requests,
}

/// The result of a load.
#[derive(Default)]
pub(crate) struct Outcome {
    /// From the request to the last byte of its answer, in microseconds, one for each answer.
    pub(crate) latencies: Vec<f64>,
    /// Requests without a good answer; each cost its connection.
    pub(crate) failures: usize,
}

impl Load {
    /// Runs the load against the server at this address.
    pub(crate) async fn run(&self, address: &str) -> Outcome {
        let until = Instant::now() + self.time;
        let clients: Vec<_> = (0..self.connections)
            .map(|number| {
                let (load, address) = (self.clone(), address.to_owned());
                tokio::spawn(async move { load.client(&address, until, number).await })
            })
            .collect();
        let mut all = Outcome::default();
        for client in clients {
            let one = client.await.expect("a client");
            all.latencies.extend(one.latencies);
            all.failures += one.failures;
        }
        all
    }

    async fn client(&self, address: &str, until: Instant, number: usize) -> Outcome {
        let mut outcome = Outcome::default();
        let (mut random, mut made) = (Random(number as u64 + 1), Vec::new());
        let mut connection = None;
        while Instant::now() < until {
            let request = self.requests.next(&mut random, &mut made);
            let began = Instant::now();
            let answered = in_time(async {
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => Connection::open(address).await?,
                };
                open.ask(request, |_| ()).await?;
                Ok(open)
            });
            match answered.await {
                Ok(open) => {
                    connection = Some(open);
                    outcome.latencies.push(began.elapsed().as_secs_f64() * 1e6);
                }
                Err(_) => outcome.failures += 1,
            }
        }
        outcome
    }
}

/// The same, but an error after [`ANSWER_TIME_MAX`].
pub(crate) async fn in_time<T>(answer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    tokio::time::timeout(ANSWER_TIME_MAX, answer)
        .await
        .map_err(late)?
}

/// A generator of numbers that are random enough to choose prompts by (xorshift), the same in each
/// run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// A connection to a server. Not to be used again after an error.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Box<[u8]>,
    /// What has been read and not been taken.
    start: usize,
    end: usize,
}

/// How the length of a body is given.
enum Length {
    Bytes(usize),
    Chunked,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; BUFFER_BYTES].into(),
            start: 0,
            end: 0,
        })
    }

    /// Sends a request and reads its answer, whose body goes to `body` piece by piece. Returns when
    /// the first byte of the answer was there.
    ///
    /// # Errors
    ///
    /// The connection broke, or the answer's status is not 200.
    pub(crate) async fn ask(
        &mut self,
        request: &[u8],
        mut body: impl FnMut(&[u8]),
    ) -> io::Result<Instant> {
        self.stream.write_all(request).await?;
        if self.start == self.end {
            self.fill().await?;
        }
        let first = Instant::now();
        match self.head().await? {
            Length::Bytes(bytes) => self.take(bytes, &mut body).await?,
            Length::Chunked => loop {
                let line = self.line().await?;
                let size = std::str::from_utf8(&line).unwrap_or_default();
                // Extensions after a semicolon do not matter.
                let size = size.split(';').next().unwrap_or_default().trim();
                match usize::from_str_radix(size, 16).map_err(|_| wrong("a chunk"))? {
                    0 => {
                        // The end of the trailers.
                        while !self.line().await?.is_empty() {}
                        break;
                    }
                    bytes => self.take(bytes, &mut body).await?,
                }
                self.line().await?;
            },
        }
        Ok(first)
    }

    /// Sends bytes that are no whole request.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    async fn head(&mut self) -> io::Result<Length> {
        let mut length = None;
        let status = self.line().await?;
        if status.get(9..12) != Some(b"200") {
            return Err(wrong(&String::from_utf8_lossy(&status)));
        }
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return length.ok_or_else(|| wrong("a body without a length"));
            }
            let line = String::from_utf8_lossy(&line).to_ascii_lowercase();
            match line.split_once(':') {
                Some(("content-length", bytes)) => {
                    let bytes = bytes.trim().parse().map_err(|_| wrong(&line))?;
                    length = Some(Length::Bytes(bytes));
                }
                Some(("transfer-encoding", _)) => length = Some(Length::Chunked),
                _ => {}
            }
        }
    }

    /// A line, without its end.
    async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let there = &self.buffer[self.start..self.end];
            if let Some(at) = there.windows(2).position(|two| two == b"\r\n") {
                let line = there[..at].to_vec();
                self.start += at + 2;
                return Ok(line);
            }
            self.fill().await?;
        }
    }

    async fn take(&mut self, mut bytes: usize, body: &mut impl FnMut(&[u8])) -> io::Result<()> {
        while bytes > 0 {
            if self.start == self.end {
                self.fill().await?;
            }
            let piece = bytes.min(self.end - self.start);
            body(&self.buffer[self.start..self.start + piece]);
            self.start += piece;
            bytes -= piece;
        }
        Ok(())
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.buffer.len() {
            return Err(wrong("a line without an end"));
        }
        let read = self.stream.read(&mut self.buffer[self.end..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.end += read;
        Ok(())
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::other(format!("not the answer that was expected: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// Asks a server that answers with these bytes, one write each.
    async fn asked(answer: &'static [&'static str]) -> io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = [0; 3];
            stream.read_exact(&mut request).await.expect("a request");
            for piece in answer {
                stream.write_all(piece.as_bytes()).await.expect("sent");
            }
        });
        let mut body = Vec::new();
        let mut connection = Connection::open(&address).await?;
        let answer = connection.ask(b"ask", |piece| body.extend_from_slice(piece));
        in_time(answer).await?;
        // No byte of the next answer was taken.
        assert_eq!(connection.start, connection.end);
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn a_body_ends_where_its_length_or_its_last_chunk_says() {
        let check = async |answer, body| match (asked(answer).await, body) {
            (Ok(found), Some(body)) => assert_eq!(found, body),
            (Err(_), None) => {}
            (found, _) => panic!("{answer:?}: {found:?}"),
        };
        check(
            &["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
            Some("hello"),
        )
        .await;
        check(
            &["HTTP/1.1 200 OK\r\ncontent-le", "ngth: 5\r\n\r\nhe", "llo"],
            Some("hello"),
        )
        .await;
        check(
            &[
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "5;x=y\r\nhel",
                "lo\r\nA\r\n, 10 bytes\r\n0\r\n",
                "trailer: 1\r\n\r\n",
            ],
            Some("hello, 10 bytes"),
        )
        .await;
        // No success, no length, too little, no chunk.
        check(&["HTTP/1.1 503 no\r\ncontent-length: 0\r\n\r\n"], None).await;
        check(&["HTTP/1.1 200 OK\r\n\r\n"], None).await;
        check(&["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello"], None).await;
        check(
            &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"],
            None,
        )
        .await;
    }
}
