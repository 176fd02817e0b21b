//! A page in a real browser: through the cache, the page may read what it could read of the
//! provider.

use std::path::PathBuf;
use std::process::Stdio;

use reflex_tests::edge::Edge;
use reflex_tests::upstream::Upstream;
use reflex_tests::within;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Chromium, if the machine has it.
fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let programs = folders
        .iter()
        .flat_map(|folder| NAMES.map(|name| folder.join(name)));
    let found = programs.into_iter().find(|program| program.is_file());
    if found.is_none() {
        reflex_skip::skip("a page in a browser", "install Debian's `chromium`");
    }
    found
}

/// A page, and the messages that it sends by `POST /`.
struct Page {
    listener: TcpListener,
    html: String,
    url: String,
}

impl Page {
    async fn of(script: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let html = format!("<!doctype html><script type=module>{script}</script>");
        Self {
            listener,
            html,
            url,
        }
    }

    /// Shows the page to each browser, until it sends a message. The browser that sent it waits for
    /// an answer until the result is dropped.
    async fn told(&self) -> (String, TcpStream) {
        loop {
            let (stream, _) = self.listener.accept().await.expect("a connection");
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                continue;
            }
            let is_told = line.starts_with("POST");
            let mut length = 0;
            while stream.read_line(&mut line).await.unwrap_or(0) > 2 {
                let last = line.lines().last().unwrap_or_default().to_lowercase();
                if let Some(value) = last.strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.expect("a body");
            let mut stream = stream.into_inner();
            if is_told {
                return (String::from_utf8(body).expect("text"), stream);
            }
            reply(&mut stream, &self.html).await;
        }
    }
}

async fn reply(stream: &mut TcpStream, html: &str) {
    let length = html.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n"
    );
    // The browser may have gone; then the test notices elsewhere.
    let _ = stream.write_all((head + html).as_bytes()).await;
}

/// A browser without a window that shows a page and talks to this machine only.
fn show(program: &PathBuf, url: &str, profile: &std::path::Path) -> Child {
    Command::new(program)
        .args(["--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--disable-dev-shm-usage", "--no-first-run"])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .args(["--disable-sync", "--no-pings", "--no-proxy-server"])
        .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the browser can be started")
}

const SCRIPT: &str = r#"
const post = (path, body, more) => fetch(EDGE + path, {
  method: "POST",
  headers: { "content-type": "application/json", authorization: "Bearer k", ...more },
  body: JSON.stringify(body),
});
const lines = [];
const ask = async (name, ...what) => {
  try {
    const response = await post(...what);
    const text = await response.text();
    const seen = response.headers.get("x-seen-by-pages");
    lines.push(`${name}: ${response.status} ${text.length > 20} ${seen}`);
  } catch (error) {
    lines.push(`${name}: ${error.name}`);
  }
};
const tell = () => fetch("/", { method: "POST", body: lines.join("\n") });
const chat = (stream) => ({ model: "m", stream, messages: [{ role: "user", content: "hi" }] });
const CHAT = "/v1/chat/completions";
for (const stream of [false, true]) {
  for (const what of ["miss", "hit"]) await ask(`${what} ${stream}`, CHAT, chat(stream));
}
const embed = (input) => ["/v1/embeddings", { model: "m", input }];
for (const input of [["a", "b"], ["a", "c"], ["c", "b"], "a"]) await ask(input, ...embed(input));
await ask("absent", CHAT, { ...chat(), seed: 1 }, { "cache-control": "only-if-cached" });
await ask("failed", CHAT, { ...chat(), seed: 2 }, { "x-mock": "status=429" });
await tell();
await ask("down", CHAT, { ...chat(), seed: 3 });
await ask("still a hit", CHAT, chat(false));
await tell();
"#;

/// dadi/web#498: cached answers lost `Access-Control-Allow-Origin`, so a page worked once.
#[tokio::test]
async fn a_page_reads_the_hit_as_it_has_read_the_miss() {
    let Some(program) = browser() else {
        return;
    };
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let page = Page::of(&format!("const EDGE = {:?};{SCRIPT}", edge.url)).await;
    upstream.also_send(&[
        (
            "access-control-allow-origin",
            page.url.trim_end_matches('/'),
        ),
        ("access-control-expose-headers", "x-seen-by-pages"),
        ("vary", "origin"),
        ("x-seen-by-pages", "once"),
    ]);
    let profile = tempfile::tempdir().expect("a temporary folder");
    let mut shown = show(&program, &page.url, profile.path());
    let (told, mut stream) = within("what the page has seen", page.told()).await;
    // The header itself belongs to the exchange; the permission to read it belongs to the answer.
    let expected = "miss false: 200 true once
hit false: 200 true null
miss true: 200 true once
hit true: 200 true null
a,b: 200 true once
a,c: 200 true once
c,b: 200 true null
a: 200 true null
absent: 504 true null
failed: 429 true once";
    assert_eq!(told, expected);
    assert_eq!(
        edge.metrics()
            .await
            .sum("reflex_requests_total", &[("detail", "partial")]),
        1.0
    );

    upstream.stop().await;
    reply(&mut stream, "").await;
    let (told, _) = within("what the page has seen", page.told()).await;
    let expected = format!("{expected}\ndown: 502 true null\nstill a hit: 200 true null");
    assert_eq!(told, expected);
    shown.kill().await.expect("the browser can be ended");
}
