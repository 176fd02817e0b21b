//! Forward proxies: HTTP, which tunnels by `CONNECT` and forwards plain requests, and SOCKS. Each
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
            if head.starts_with("CONNECT ") {
                let established = b"HTTP/1.1 200 Connection established\r\n\r\n";
                client.write_all(established).await.ok()?;
            } else {
                // What is for the proxy goes no further.
                let is_ours = |line: &&str| line.starts_with("proxy-authorization:");
                let lines = head.split_inclusive("\r\n").filter(|line| !is_ours(line));
                let head: String = lines.collect();
                provider.write_all(head.as_bytes()).await.ok()?;
            }
            copy_bidirectional(&mut client, &mut provider).await.ok()?;
            Some(())
        })
        .await
    }

    /// An HTTP proxy that refuses every client.
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
        Self::start(move |client, note| socks5(client, note, target, None)).await
    }

    /// The same with this user and password, and for no other.
    pub async fn socks_for(target: SocketAddr, user: &'static str, password: &'static str) -> Self {
        let login = Some((user, password));
        Self::start(move |client, note| socks5(client, note, target, login)).await
    }

    /// A SOCKS 4a proxy, which takes names. It notes the host.
    pub async fn socks4(target: SocketAddr) -> Self {
        Self::start(move |mut client, note| async move {
            // Version, CONNECT, a port, and the address that stands for a name.
            let mut command = [0; 8];
            client.read_exact(&mut command).await.ok()?;
            let [4, 1, high, low, 0, 0, 0, 1..=255] = command else {
                return None;
            };
            let user = until_zero(&mut client).await?;
            let host = until_zero(&mut client).await?;
            let port = u16::from_be_bytes([high, low]);
            note(&format!("{user}{host}:{port}"));
            let mut provider = TcpStream::connect(target).await.ok()?;
            client.write_all(&[0, 90, 0, 0, 0, 0, 0, 0]).await.ok()?;
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

/// RFC 1928, and RFC 1929 where the proxy demands a `login`.
async fn socks5(
    mut client: TcpStream,
    note: Note,
    target: SocketAddr,
    login: Option<(&str, &str)>,
) -> Option<()> {
    // Version, and the ways to authenticate.
    let [5, count] = [client.read_u8().await.ok()?, client.read_u8().await.ok()?] else {
        return None;
    };
    let mut ways = vec![0; count.into()];
    client.read_exact(&mut ways).await.ok()?;
    let way = if login.is_some() { 2 } else { 0 };
    if !ways.contains(&way) {
        note("no way to authenticate");
        client.write_all(&[5, 0xff]).await.ok()?;
        return None;
    }
    client.write_all(&[5, way]).await.ok()?;
    if let Some((user, password)) = login {
        let 1 = client.read_u8().await.ok()? else {
            return None;
        };
        let told = (counted(&mut client).await?, counted(&mut client).await?);
        let is_right = told == (user.to_owned(), password.to_owned());
        client.write_all(&[1, u8::from(!is_right)]).await.ok()?;
        if !is_right {
            note("a wrong password");
            return None;
        }
    }
    // Version, CONNECT, reserved, a name with its length, a port.
    let mut command = [0; 4];
    client.read_exact(&mut command).await.ok()?;
    if command != [5, 1, 0, 3] {
        return None;
    }
    let host = counted(&mut client).await?;
    let port = client.read_u16().await.ok()?;
    note(&format!("{host}:{port}"));
    let mut provider = TcpStream::connect(target).await.ok()?;
    client
        .write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
        .await
        .ok()?;
    copy_bidirectional(&mut client, &mut provider).await.ok()?;
    Some(())
}

/// A text with its length in front.
async fn counted(client: &mut TcpStream) -> Option<String> {
    let mut text = vec![0; client.read_u8().await.ok()?.into()];
    client.read_exact(&mut text).await.ok()?;
    String::from_utf8(text).ok()
}

/// A text with a zero behind it.
async fn until_zero(client: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    loop {
        match client.read_u8().await.ok()? {
            0 => return String::from_utf8(text).ok(),
            byte if text.len() < 255 => text.push(byte),
            _ => return None,
        }
    }
}
