//! One question to the admin interface of something that runs here, and its answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A daemon on this machine that does not answer within this time is not ready.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// The longest answer that is read. Expected ones take a line or two.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Asks, and returns the answer, head and all, if its status is 200.
pub(crate) fn ask(admin: SocketAddr, method: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&admin, ANSWER_TIME_MAX).ok()?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX)).ok()?;
    stream.set_write_timeout(Some(ANSWER_TIME_MAX)).ok()?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {admin}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}
