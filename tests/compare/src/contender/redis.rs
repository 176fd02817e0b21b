//! Redis, a server of its own on a Unix socket, with a log on disk. One call waits for its
//! answer before the next.

use super::{Contender, Key, look};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const PROGRAM: &str = "redis-server";
const START_AT_MOST: Duration = Duration::from_secs(60);

struct Redis {
    server: Child,
    socket: BufReader<UnixStream>,
    payload: Vec<u8>,
}

pub(super) fn is_there() -> Result<(), String> {
    let version = Command::new(PROGRAM).arg("--version").output();
    version
        .map(drop)
        .map_err(|error| format!("{PROGRAM}: {error}"))
}

pub(super) fn open(dir: &Path) -> Box<dyn Contender> {
    let path = dir.join("socket");
    let mut server = Command::new(PROGRAM);
    server.args(["--port", "0", "--save", "", "--appendonly", "yes"]);
    server.args(["--appendfsync", "no", "--auto-aof-rewrite-percentage", "0"]);
    server.arg("--dir").arg(dir).arg("--unixsocket").arg(&path);
    let server = server.stdout(Stdio::null()).spawn().expect("started");
    let began = Instant::now();
    let socket = loop {
        match UnixStream::connect(&path) {
            Ok(socket) => break socket,
            Err(error) => assert!(began.elapsed() < START_AT_MOST, "{error}"),
        }
        thread::sleep(Duration::from_millis(1));
    };
    let mut redis = Redis {
        server,
        socket: BufReader::new(socket),
        payload: Vec::new(),
    };
    // It answers while it still reads its log, but says so.
    while !redis.call(&[b"PING"]).starts_with("+PONG") {
        assert!(began.elapsed() < START_AT_MOST, "still loading");
        thread::sleep(Duration::from_millis(1));
    }
    Box::new(redis)
}

impl Redis {
    /// The first line of the answer.
    fn call(&mut self, words: &[&[u8]]) -> String {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        let written = self.socket.get_mut().write_all(&request);
        written.expect("a server that listens");
        let mut line = String::new();
        self.socket.read_line(&mut line).expect("an answer");
        line
    }
}

impl Contender for Redis {
    fn insert(&mut self, key: &Key, payload: &[u8]) {
        assert_eq!(self.call(&[b"SET", key.as_bytes(), payload]), "+OK\r\n");
    }

    fn get(&mut self, key: &Key) -> Option<usize> {
        let line = self.call(&[b"GET", key.as_bytes()]);
        let length: usize = line.strip_prefix('$')?.trim_end().parse().ok()?;
        self.payload.resize(length + 2, 0);
        self.socket
            .read_exact(&mut self.payload)
            .expect("a payload");
        Some(look(&self.payload[..length]))
    }

    fn close(self: Box<Self>) {
        // Dropped.
    }

    fn server(&self) -> Option<u32> {
        Some(self.server.id())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It answers nothing, but ends, with its log on disk.
        let _ = self.socket.get_mut().write_all(b"*1\r\n$8\r\nSHUTDOWN\r\n");
        let mut rest = Vec::new();
        if thread::panicking() || self.socket.read_to_end(&mut rest).is_err() {
            let _ = self.server.kill();
        }
        let _ = self.server.wait();
    }
}
