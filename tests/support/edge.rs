//! The real `reflex-edge` as a child process, on ports and in a data folder of its own.

mod handover;
mod process;

pub use handover::Old;

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::client::{Ask, Client};
use crate::metrics::Metrics;
use crate::tls::{self, Pair};
use crate::upstream::Upstream;
use crate::{PATIENCE, inherited, within};

/// How often metrics are read while a test waits for one. They are the only way to learn that
/// something was *not* stored, and cannot be waited on.
const LOOK: Duration = Duration::from_millis(10);

/// The name of the socket of the edge API. Its whole path must not exceed 107 bytes.
const SOCKET: &str = "edge.sock";

/// The binary under test: `REFLEX_EDGE_BIN`, or what cargo left in the target folder.
///
/// # Panics
///
/// If it has not been built; the text says how to.
pub fn binary() -> PathBuf {
    let path = env::var_os("REFLEX_EDGE_BIN").map_or_else(
        || {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
            let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
            let profile = if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            };
            workspace.join(target).join(profile).join("reflex-edge")
        },
        PathBuf::from,
    );
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask test`, or `cargo build --release --workspace \
         --all-targets` before `cargo test --release`",
        path.display()
    );
    path
}

/// Runs `reflex-edge` to its end, for what it refuses to do.
///
/// # Panics
///
/// If it does not end.
pub async fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    within("the end of reflex-edge", command.output())
        .await
        .expect("reflex-edge can be started")
}

/// How an edge is to be started.
#[derive(Debug)]
pub struct Plan {
    upstream: Option<String>,
    edge_socket: bool,
    socket: Option<PathBuf>,
    folder: Option<TempDir>,
    data_dir: Option<PathBuf>,
    component: Option<PathBuf>,
    config: String,
    environment: Vec<(&'static str, String)>,
    /// For clients and for operators, if it does not make its own.
    sockets: Option<[TcpListener; 2]>,
    admin_token: Option<&'static str>,
    admin: &'static str,
    is_provider_in_file: bool,
    /// The certificate for clients, and the CA that signed it and that for operators.
    tls: Option<(Pair, PathBuf)>,
}

impl Plan {
    /// In front of the provider at this URL, everything else by default.
    pub fn new(upstream: &str) -> Self {
        Self {
            upstream: Some(upstream.into()),
            ..Self::daemon()
        }
        .edge_socket(false)
    }

    /// As the daemon of an Envoy only: with the edge API, without a provider.
    pub fn daemon() -> Self {
        Self {
            upstream: None,
            edge_socket: true,
            socket: None,
            folder: None,
            data_dir: None,
            component: None,
            config: String::new(),
            environment: Vec::new(),
            sockets: None,
            admin_token: None,
            admin: "127.0.0.1:0",
            is_provider_in_file: false,
            tls: None,
        }
    }

    /// With this admin address.
    pub fn admin(mut self, address: &'static str) -> Self {
        self.admin = address;
        self
    }

    /// With this admin token instead of one of its own.
    pub fn admin_token(mut self, token: &'static str) -> Self {
        self.admin_token = Some(token);
        self
    }

    /// With the edge API on a socket in a folder of its own, [`Edge::socket`], or without.
    pub fn edge_socket(mut self, offered: bool) -> Self {
        self.edge_socket = offered;
        self
    }

    /// With the edge API on this socket.
    pub fn socket(self, path: &Path) -> Self {
        Self {
            socket: Some(path.into()),
            ..self.edge_socket(true)
        }
    }

    /// With this component in place of the built-in one.
    pub fn component(mut self, path: &Path) -> Self {
        self.component = Some(path.into());
        self
    }

    /// With these lines in the configuration file.
    pub fn config(mut self, toml: &str) -> Self {
        self.config = toml.into();
        self
    }

    /// With this certificate for clients. [`Edge::client`] trusts this CA, for operators as well.
    pub fn tls(mut self, pair: &Pair, ca: &Path) -> Self {
        self.tls = Some((pair.clone(), ca.to_owned()));
        self
    }

    /// With the provider's URL in the configuration file, in place of the flag.
    pub fn provider_in_file(mut self, upstream: &str) -> Self {
        self.config = format!("upstream = \"{upstream}\"\n{}", self.config);
        self.is_provider_in_file = true;
        self
    }

    /// With these providers as `[[upstream]]` in the configuration file, behind its lines, in place of the flag.
    pub fn providers_in_file(mut self, tables: &str) -> Self {
        self.config = format!("{}\n{tables}", self.config);
        self.is_provider_in_file = true;
        self
    }

    /// With this variable in its environment.
    pub fn environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// At sockets that outlive it: its address stays the same when it starts again.
    pub fn inherits_sockets(mut self) -> Self {
        self.sockets = Some([inherited::socket(), inherited::socket()]);
        self
    }

    /// On a data folder that outlives the edge.
    pub fn data_dir(mut self, path: &Path) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// Starts it and waits until it listens.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub async fn start(mut self) -> Edge {
        if env::var_os(TLS).is_some() && self.tls.is_none() && self.upstream.is_some() {
            self = self.tls(&Pair::of_provider(), Path::new(tls::CA));
        }
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => tempfile::tempdir().expect("a temporary folder"),
        };
        if let Some(token) = self.admin_token {
            self.write_token(folder.path(), token);
        }
        let log = folder.path().join("stderr.txt");
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log file");
        let mut child = self
            .command(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .expect("reflex-edge can be started");
        let stdout = child.stdout.take().expect("a stdout of its own");
        let mut lines = BufReader::new(stdout).lines();
        let mut said = async |beginning: &str| {
            let line = within("the first lines of reflex-edge", lines.next_line()).await;
            let line = line.ok().flatten().unwrap_or_default();
            match line.strip_prefix(beginning) {
                Some(rest) => rest.to_owned(),
                None => panic!("`{line}` in place of `{beginning}…`:\n{}", text(&log)),
            }
        };
        let url = match self.upstream {
            Some(_) => said("listening on ").await,
            None => String::new(),
        };
        let admin = said("admin on ").await;
        if self.edge_socket {
            said("edge on ").await;
        }
        // Read on, so that it can never block on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let ca = self.tls.as_ref().map(|(_, ca)| &**ca);
        let client = |url: &str| Client::tls(url, tls::trusting(ca, None, &[]));
        Edge {
            client: client(&url),
            admin: client(&admin),
            admin_url: admin,
            url,
            child,
            log,
            plan: self,
            folder,
        }
    }

    fn write_token(&self, folder: &Path, token: &str) {
        let data_dir = self.data_dir.clone().unwrap_or_else(|| folder.join("data"));
        fs::create_dir_all(&data_dir).expect("a data folder");
        let path = data_dir.join("admin-token");
        let file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(path);
        let written = file.and_then(|mut file| file.write_all(token.as_bytes()));
        written.expect("a file of a token");
    }

    /// The lines of the configuration file.
    fn lines(&self) -> String {
        let mut config = self.config.clone();
        if let Some((Pair { cert, key }, _)) = &self.tls {
            config = format!("tls_cert = {cert:?}\ntls_key = {key:?}\n{config}");
        }
        match env::var(HITS) {
            // A key must come before the first table.
            Ok(hits) if !config.contains("hits =") => format!("hits = \"{hits}\"\n{config}"),
            _ => config,
        }
    }

    fn command(&self, folder: &Path) -> Command {
        let data_dir = self.data_dir.clone().unwrap_or_else(|| folder.join("data"));
        let mut command = Command::new(binary());
        // Those of the machine that the tests run on are not for them.
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            command
                .env_remove(name)
                .env_remove(name.to_ascii_lowercase());
        }
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .arg("serve")
            .arg("--data-dir")
            .arg(data_dir);
        let sockets = self.sockets.as_ref();
        let [clients, admin] = match sockets {
            Some(sockets) => sockets.each_ref().map(inherited::address),
            None => [SocketAddr::from(([127, 0, 0, 1], 0)); 2],
        };
        let admin = sockets.map_or(self.admin.to_owned(), |_| admin.to_string());
        command.args(["--admin", &admin]);
        if let Some(upstream) = &self.upstream {
            command.args(["--listen", &clients.to_string()]);
            if !self.is_provider_in_file {
                command.args(["--upstream", upstream]);
            }
        }
        if let Some(sockets) = sockets {
            let copy = |socket: &TcpListener| socket.try_clone().expect("a descriptor").into();
            let copies = sockets.iter().map(copy).collect();
            inherited::hand_over(command.as_std_mut(), copies);
        }
        if self.edge_socket {
            let socket = self.socket.clone().unwrap_or_else(|| folder.join(SOCKET));
            command.arg("--edge-socket").arg(socket);
        }
        if let Some(component) = &self.component {
            command.arg("--component").arg(component);
        }
        let config = self.lines();
        if !config.is_empty() {
            let file = folder.join("config.toml");
            fs::write(&file, config).expect("a configuration file");
            command.arg("--config").arg(file);
        }
        command
    }
}

/// The tests run once for each: what answers hits, if a test does not say so itself.
const HITS: &str = "REFLEX_TEST_HITS";
/// Has all daemons speak TLS to clients, where a test does not say otherwise.
const TLS: &str = "REFLEX_TEST_TLS";

/// A running edge. It is killed when this is dropped.
#[derive(Debug)]
pub struct Edge {
    /// Where it listens: `http://ADDRESS`; nothing for a daemon without a provider.
    pub url: String,
    /// A client of it; a daemon without a provider has none to be reached by.
    pub client: Client,
    /// Where operators connect: `http://ADDRESS`.
    pub admin_url: String,
    admin: Client,
    child: Child,
    log: PathBuf,
    plan: Plan,
    folder: TempDir,
}

impl Edge {
    /// An edge in front of this provider, everything else by default.
    pub async fn before(upstream: &Upstream) -> Self {
        Plan::new(&upstream.url()).start().await
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.plan
            .data_dir
            .clone()
            .unwrap_or_else(|| self.folder.path().join("data"))
    }

    /// The socket of its edge API, if the plan said so. It stays the same when it starts again.
    pub fn socket(&self) -> PathBuf {
        let own = || self.folder.path().join(SOCKET);
        self.plan.socket.clone().unwrap_or_else(own)
    }

    /// Its admin token.
    ///
    /// # Panics
    ///
    /// If it has made none.
    pub fn token(&self) -> String {
        let token = fs::read_to_string(self.data_dir().join("admin-token"));
        token.expect("an admin token").trim().to_owned()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        text(&self.log)
    }

    /// The configuration file, if the plan has one.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    /// Puts another text into the configuration file, has it read, and waits until that has this
    /// outcome, `applied` or `refused`.
    ///
    /// # Panics
    ///
    /// If it has not.
    pub async fn reload(&self, config: &str, outcome: &str) {
        fs::write(self.config_file(), config).expect("a configuration file");
        self.hang_up(outcome).await;
    }

    /// Has the configuration file read, and waits until that has this outcome.
    ///
    /// # Panics
    ///
    /// If it has not.
    pub async fn hang_up(&self, outcome: &str) {
        let count = |metrics: &Metrics, outcome: &[(&str, &str)]| {
            metrics.sum("reflex_config_reloads_total", outcome) as u64
        };
        let before = self.metrics().await;
        let labels = [("outcome", outcome)];
        self.signal(Signal::HUP);
        let all = count(&before, &[]) + 1;
        self.until("a reload", |metrics| count(metrics, &[]) == all)
            .await;
        let after = count(&self.metrics().await, &labels);
        assert_eq!(after, count(&before, &labels) + 1, "{}", self.log());
    }

    /// `/health`, as JSON.
    ///
    /// # Panics
    ///
    /// If it is not answered with 200.
    pub async fn health(&self) -> serde_json::Value {
        let answer = self.admin.fetch(Ask::get("/health")).await;
        assert_eq!(answer.status, 200);
        answer.json()
    }

    /// `/metrics`.
    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(&self.metrics_text().await)
    }

    /// `/metrics`, as it comes.
    pub async fn metrics_text(&self) -> String {
        let answer = self.admin.fetch(Ask::get("/metrics")).await;
        String::from_utf8_lossy(&answer.body).into_owned()
    }

    /// Waits until the metrics say what the test waits for.
    ///
    /// # Panics
    ///
    /// If they do not within [`PATIENCE`]; `what` and the metrics are shown.
    pub async fn until(&self, what: &str, said: impl Fn(&Metrics) -> bool) {
        let wait = async {
            loop {
                if said(&self.metrics().await) {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!(
                "{what}: not so; {:#?}\n{}",
                self.metrics().await,
                self.log()
            );
        }
    }

    /// Waits until so many answers have been stored, and so many refused, since the start.
    pub async fn recorded(&self, stored: u32, rejected: u32) {
        let what = format!("{stored} answers stored and {rejected} rejected");
        self.until(&what, |metrics| {
            let count = |outcome| metrics.sum("reflex_recordings_total", &[("outcome", outcome)]);
            count("stored") >= f64::from(stored) && count("rejected") >= f64::from(rejected)
        })
        .await;
    }

    /// Waits until the system has all that was stored: nothing waits to be written.
    pub async fn written(&self) {
        self.until("all written", |metrics| {
            metrics.sum("reflex_queued_bytes", &[]) < 1.0
        })
        .await;
    }

    /// Stops it in the orderly way and starts it again on the same data.
    ///
    /// # Panics
    ///
    /// If it does not stop with exit code 0.
    pub async fn restart(mut self) -> Self {
        self.terminate();
        assert_eq!(self.ended().await, Some(0), "{}", self.log());
        self.start_again().await
    }

    /// Starts it again on the same data with these lines as its configuration file, when it has
    /// ended.
    pub async fn start_again_with(mut self, toml: &str) -> Self {
        self.plan.config = toml.into();
        self.start_again().await
    }

    /// Starts it again on the same data, when it has ended.
    pub async fn start_again(mut self) -> Self {
        self.plan.folder = Some(self.folder);
        let edge = self.plan.start().await;
        edge.ready().await;
        edge
    }

    /// Waits until it has read its data folder, which takes more than a second on a busy machine. Before
    /// that, its entries are misses, and a purge of them is not durable.
    pub async fn ready(&self) {
        let ready = async {
            while self.admin.fetch(Ask::get("/ready")).await.status != 200 {
                tokio::time::sleep(LOOK).await;
            }
        };
        within("a daemon that is ready", ready).await;
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| format!("{}: {error}", path.display()))
}
