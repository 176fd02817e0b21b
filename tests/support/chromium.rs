//! A real Chromium without a window, driven over its DevTools protocol. It reaches this machine only.
//!
//! The protocol's messages go over two pipes, each message ended by a zero byte, so that no port and
//! no further program is needed.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::within;

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Chromium, if the machine has it. Where it has not, the skip of `part` has been said.
pub fn program(part: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let programs = folders
        .iter()
        .flat_map(|folder| NAMES.map(|name| folder.join(name)));
    let found = programs.into_iter().find(|program| program.is_file());
    if found.is_none() {
        reflex_skip::skip(part, "install Debian's `chromium`");
    }
    found
}

/// The command of a browser without a window that talks to this machine only.
pub fn command(program: &Path, profile: &Path) -> Vec<String> {
    let mut words = vec![program.display().to_string()];
    let flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-pings",
        "--no-proxy-server",
        "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ];
    words.extend(flags.map(str::to_owned));
    words.push(format!("--user-data-dir={}", profile.display()));
    words
}

/// A browser with one page. It is killed when this is dropped.
#[derive(Debug)]
pub struct Browser {
    _child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    calls: u64,
    /// What the page has told without being asked, in order.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts it and opens an empty page.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn start(program: &Path) -> Self {
        let profile = tempfile::tempdir().expect("a temporary folder");
        // Chromium reads calls from descriptor 3 and writes to descriptor 4.
        let mut child = Command::new("sh")
            .args([
                "-c",
                r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>&1"#,
            ])
            .args(command(program, profile.path()))
            .args(["--remote-debugging-pipe", "about:blank"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the browser can be started");
        let to = child.stdin.take().expect("a pipe");
        let from = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut browser = Self {
            _child: child,
            to,
            from,
            session: None,
            calls: 0,
            events: Vec::new(),
            _profile: profile,
        };
        // A tab of its own would be in the background, where nothing is drawn.
        let target = loop {
            let targets = browser.call("Target.getTargets", json!({})).await;
            let targets = targets["targetInfos"].as_array().cloned();
            let is_page = |target: &Value| target["type"] == "page";
            if let Some(page) = targets.into_iter().flatten().find(is_page) {
                break page;
            }
            // Each call takes a turn of the browser's, until it has opened its window.
        };
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attach).await;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    /// Calls a method of the protocol, and returns its result.
    ///
    /// # Panics
    ///
    /// If the browser refuses.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).await.expect("a running browser");
        loop {
            let answer = within(method, self.next()).await;
            if answer["id"] == self.calls {
                assert_eq!(answer["error"], Value::Null, "{method}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    async fn next(&mut self) -> Value {
        let mut bytes = Vec::new();
        let read = self.from.read_until(0, &mut bytes).await;
        assert!(read.is_ok_and(|read| read > 0), "the browser has ended");
        bytes.pop();
        serde_json::from_slice(&bytes).expect("a message in JSON")
    }

    /// Opens a page, and waits until it is loaded.
    ///
    /// # Panics
    ///
    /// If it cannot be opened.
    pub async fn open(&mut self, url: &str) {
        let before = self.events.len();
        let opened = self.call("Page.navigate", json!({"url": url})).await;
        assert_eq!(opened["errorText"], Value::Null, "{url}");
        let loaded = async {
            let is_loaded = |event: &Value| event["method"] == "Page.loadEventFired";
            while !self.events[before..].iter().any(is_loaded) {
                let event = self.next().await;
                self.events.push(event);
            }
        };
        within("the page is loaded", loaded).await;
    }

    /// The value of an expression in the page; of a promise, what it comes to.
    ///
    /// # Panics
    ///
    /// If it throws.
    pub async fn value(&mut self, expression: &str) -> Value {
        let params = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true,
        });
        let told = self.call("Runtime.evaluate", params).await;
        assert_eq!(told["exceptionDetails"], Value::Null, "{expression}");
        told["result"]["value"].clone()
    }

    /// Waits until an expression in the page is true.
    pub async fn until(&mut self, what: &str, expression: &str) {
        let wait = format!(
            "new Promise((done) => {{ const look = () => ({expression}) ? done(true) \
             : setTimeout(look, 20); look(); }})"
        );
        within(what, self.value(&wait)).await;
    }

    /// How wide the page is, in pixels, and which of `light` and `dark` the user prefers.
    pub async fn look(&mut self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics)
            .await;
        let features = json!([
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}))
            .await;
    }

    /// A picture of the page, as base64 of a PNG.
    pub async fn picture(&mut self) -> String {
        let told = self
            .call("Page.captureScreenshot", json!({"format": "png"}))
            .await;
        told["data"].as_str().unwrap_or_default().to_owned()
    }

    /// What went to the console or was not caught, so far.
    pub fn complaints(&self) -> Vec<&Value> {
        let methods = [
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
        ];
        let is_one = |event: &&Value| methods.iter().any(|it| event["method"] == *it);
        self.events.iter().filter(is_one).collect()
    }

    /// The addresses that the page has asked, so far.
    pub fn requests(&self) -> Vec<&str> {
        let is_one = |event: &&Value| event["method"] == "Network.requestWillBeSent";
        let sent = self.events.iter().filter(is_one);
        sent.filter_map(url_of).collect()
    }
}

fn url_of(event: &Value) -> Option<&str> {
    event["params"]["request"]["url"].as_str()
}
