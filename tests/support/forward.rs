//! Forward proxies: HTTP, which tunnels by `CONNECT` and forwards plain requests, and SOCKS 5. Each
//! takes all names for the one address that it was given, and notes what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use crate::raw::{Raw, read_head};

/// A running proxy. It stops when this is dropped.
#[derive(Debug)]
pub struct Forward {
    raw: Raw,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Forward {
    /// An HTTP proxy.
    pub async fn http(target: SocketAddr) -> Self {
        Self::start(move |mut client, note| async move {
            let head = read_head(&mut client).await?;
            note(&head);
            let mut provider = TcpStream::connect(target).await.ok()?;
            let (stream, answer) = match head.starts_with("CONNECT ") {
                true => (&mut client, "HTTP/1.1 200 Connection established\r\n\r\n"),
                false => (&mut provider, &*head),
            };
            stream.write_all(answer.as_bytes()).await.ok()?;
            copy_bidirectional(&mut client, &mut provider).await.ok()?;
            Some(())
        })
        .await
    }

    /// An HTTP proxy that refuses everybody.
    pub async fn refusing() -> Self {
        Self::start(move |mut client, note| async move {
            note(&read_head(&mut client).await?);
            let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
            client.write_all(answer).await.ok()
        })
        .await
    }

    /// A SOCKS 5 proxy without authentication. It notes the host.
    pub async fn socks(target: SocketAddr) -> Self {
        Self::start(move |mut client, note| async move {
            // Version, and the ways to authenticate.
            let [5, count] = [client.read_u8().await.ok()?, client.read_u8().await.ok()?] else {
                return None;
            };
            client.read_exact(&mut vec![0; count.into()]).await.ok()?;
            client.write_all(&[5, 0]).await.ok()?;
            // Version, CONNECT, reserved, a name with its length, a port.
            let mut command = [0; 4];
            client.read_exact(&mut command).await.ok()?;
            if command != [5, 1, 0, 3] {
                return None;
            }
            let mut host = vec![0; client.read_u8().await.ok()?.into()];
            client.read_exact(&mut host).await.ok()?;
            let port = client.read_u16().await.ok()?;
            note(&format!("{}:{port}", String::from_utf8_lossy(&host)));
            let mut provider = TcpStream::connect(target).await.ok()?;
            client
                .write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
                .await
                .ok()?;
            copy_bidirectional(&mut client, &mut provider).await.ok()?;
            Some(())
        })
        .await
    }

    async fn start<F>(script: impl Fn(TcpStream, Note) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Option<()>> + Send + 'static,
    {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        let raw = Raw::start(move |_, stream| {
            let notes = Arc::clone(&notes);
            let note: Note = Box::new(move |asked| {
                let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
                notes.push(asked.to_owned());
            });
            let run = script(stream, note);
            async move {
                // A connection that ends badly is what some tests are about.
                let _ = run.await;
            }
        })
        .await;
        Self { raw, asked }
    }

    /// Where it listens: `HOST:PORT`.
    pub fn address(&self) -> SocketAddr {
        self.raw.address()
    }

    /// What it was asked on each connection: the head of the first request, or a host with a port.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }
}

type Note = Box<dyn Fn(&str) + Send + Sync>;
