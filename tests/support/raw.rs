//! Peers that a test scripts byte by byte, for behaviour that HTTP servers do not have.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::within;

/// A listener on a loopback port of its own that does with each connection what a test says. It
/// stops when this is dropped.
#[derive(Debug)]
pub struct Raw {
    address: SocketAddr,
    connections: Arc<watch::Sender<usize>>,
    listening: JoinHandle<()>,
}

impl Raw {
    /// Has `script` run for each connection, with the connection's number, from 1.
    ///
    /// # Panics
    ///
    /// If no port can be had.
    pub async fn start<F>(script: impl Fn(usize, TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free loopback port");
        let address = listener.local_addr().expect("the address of a listener");
        let connections = Arc::new(watch::Sender::new(0));
        let count = Arc::clone(&connections);
        let listening = tokio::spawn(async move {
            // Dropped with this task, and the scripts with it.
            let mut running = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                count.send_modify(|count| *count += 1);
                let number = *count.borrow();
                running.spawn(script(number, stream));
                while running.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            connections,
            listening,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `--upstream` is to be.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The number of connections so far.
    pub fn connections(&self) -> usize {
        *self.connections.borrow()
    }

    /// Waits until it has had so many connections.
    pub async fn connected(&self, count: usize) {
        let mut connections = self.connections.subscribe();
        let enough = connections.wait_for(|connections| *connections >= count);
        let _ = within(&format!("{count} connections"), enough).await;
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Reads one request of HTTP/1.1: its head as text, and its body if it says how long that is.
/// Nothing at the connection's end.
pub async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, Vec<u8>)> {
    let head = read_head(stream).await?;
    let length = header(&head, "content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

/// Reads the head of a request or response, up to and with the empty line.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // Byte by byte: what follows is not ours.
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// A header's value in such a head.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (known, value) = line.split_once(':')?;
        known.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// A whole response with this body, after which the connection stays open.
pub fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
