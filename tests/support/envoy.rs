//! The real Envoy as a child process, on ports of its own, with `envoy/envoy.yaml` as its
//! configuration, with the changes of a test.

mod restart;

use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use reflex_envoy_bootstrap::{Bootstrap, Filter, Provider, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::client::{Ask, Client};
use crate::metrics::Metrics;
use crate::upstream::Upstream;
use crate::{PATIENCE, within};
use restart::Place;

/// How often Envoy is asked whether it is ready, and for its figures while a test waits for
/// one. Envoy announces neither.
const LOOK: Duration = Duration::from_millis(10);

/// Log levels: all of the filter, only trouble of Envoy itself, which otherwise lists all that is
/// compiled into it.
const LOG_LEVELS: [&str; 4] = [
    "--log-level",
    "warning",
    "--component-log-level",
    "wasm:info,dynamic_modules:info",
];

/// The Envoy under test: `REFLEX_ENVOY_BIN`, or what `cargo xtask` has fetched.
///
/// # Panics
///
/// If there is none; the text says how to get one.
pub fn binary() -> PathBuf {
    // The folder of the fetched one bears its version, which only xtask knows.
    built("REFLEX_ENVOY_BIN", || {
        let versions = fs::read_dir(target().join("envoy")).ok()?;
        versions
            .filter_map(|entry| Some(entry.ok()?.path().join("envoy")))
            .filter(|path| path.exists())
            .max()
    })
}

/// The filter under test: `REFLEX_ENVOY_WASM`, or what `cargo xtask` left in the target folder.
///
/// # Panics
///
/// If it has not been built; the text says how to.
pub fn filter() -> PathBuf {
    let path = target().join("wasm/reflex-envoy.core.wasm");
    built("REFLEX_ENVOY_WASM", || Some(path))
}

/// The same filter, but it panics on a request with the header `x-test-panic`:
/// `REFLEX_ENVOY_PANIC_WASM`, or what `cargo xtask` left in the target folder.
///
/// # Panics
///
/// As [`filter`].
pub fn panicking_filter() -> PathBuf {
    let path = target().join("wasm/reflex-test-envoy.core.wasm");
    built("REFLEX_ENVOY_PANIC_WASM", || Some(path))
}

/// The native module under test: `REFLEX_ENVOY_NATIVE`, or what `cargo xtask` left in the target
/// folder.
///
/// # Panics
///
/// As [`filter`].
pub fn native() -> PathBuf {
    let path = target().join("native/libreflex_envoy.so");
    built("REFLEX_ENVOY_NATIVE", || Some(path))
}

/// The same module, but the hook that the header `x-test-panic` names panics:
/// `REFLEX_ENVOY_PANIC_NATIVE`, or what `cargo xtask` left in the target folder.
///
/// # Panics
///
/// As [`filter`].
pub fn panicking_native() -> PathBuf {
    let path = target().join("native/libreflex_envoy_panics.so");
    built("REFLEX_ENVOY_PANIC_NATIVE", || Some(path))
}

fn built(variable: &str, otherwise: impl FnOnce() -> Option<PathBuf>) -> PathBuf {
    let path = env::var_os(variable).map(PathBuf::from).or_else(otherwise);
    match path {
        Some(path) if path.exists() => path,
        Some(path) => panic!("{} is missing: run `cargo xtask test`", path.display()),
        None => panic!("{variable} is not set: run `cargo xtask test`"),
    }
}

fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    // Envoy is given these paths, and finds them from wherever it is run.
    let path = workspace.join(target);
    path.canonicalize().unwrap_or(path)
}

/// How an Envoy is to be started.
pub struct EnvoyPlan {
    providers: Vec<Provider>,
    filter: Option<PathBuf>,
    plugin: Map<String, Value>,
    daemon: Option<PathBuf>,
    trusted_ca: Option<PathBuf>,
    workers: u32,
    /// For connections of a listener that was updated; none is a listener that cannot be.
    drain_seconds: Option<u32>,
    place: Place,
    edits: Vec<Edit>,
}

type Edit = Box<dyn FnOnce(&mut Value) + Send>;

impl EnvoyPlan {
    /// In front of the provider at this URL, with the filter, without a daemon, with one worker.
    pub fn new(upstream: &str) -> Self {
        Self::plain(upstream).filter(&filter())
    }

    /// The same with the native module, in memory.
    pub fn native(upstream: &str) -> Self {
        Self::plain(upstream).filter(&native())
    }

    /// As a plain proxy, which needs no filter to have been built.
    pub fn plain(upstream: &str) -> Self {
        Self {
            providers: vec![Provider::new(upstream)],
            filter: None,
            plugin: Map::new(),
            daemon: None,
            trusted_ca: None,
            workers: 1,
            drain_seconds: None,
            place: Place::Alone,
            edits: Vec::new(),
        }
    }

    /// With the daemon behind this socket, be it there or not.
    pub fn daemon(mut self, socket: &Path) -> Self {
        self.daemon = Some(socket.into());
        self
    }

    /// With so many workers.
    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    /// With a listener that can be [updated](Envoy::update), whose connections then have so many
    /// seconds.
    pub fn updatable(mut self, drain_seconds: u32) -> Self {
        self.drain_seconds = Some(drain_seconds);
        self
    }

    /// With this module as the filter.
    pub fn filter(mut self, module: &Path) -> Self {
        self.filter = Some(module.into());
        self
    }

    /// With this field in the filter's configuration, valid or not.
    pub fn plugin(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.plugin.insert(field.into(), value.into());
        self
    }

    /// With a second provider for requests whose path begins with `path`.
    pub fn provider(mut self, name: &str, url: &str, path: &str) -> Self {
        self.providers.push(Provider {
            name: name.into(),
            url: url.into(),
            path: path.into(),
        });
        self
    }

    /// Trusting these certificates where a provider speaks TLS.
    pub fn trusted_ca(mut self, file: &Path) -> Self {
        self.trusted_ca = Some(file.into());
        self
    }

    /// With any other change of the whole configuration, made last and in the order given.
    pub fn edit(mut self, change: impl FnOnce(&mut Value) + Send + 'static) -> Self {
        self.edits.push(Box::new(change));
        self
    }

    /// Starts it and waits until it answers.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub async fn start(self) -> Envoy {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("envoy.log");
        let admin = folder.path().join("admin.txt");
        let stderr = File::create(&log).expect("a log file");
        let (mut command, listener) = self.command(folder.path());
        let child = command
            .arg("--admin-address-path")
            .arg(&admin)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .expect("Envoy can be started");
        let mut starting = Starting { child, log };
        let admin = starting.admin(&admin).await;
        let url = starting.listener(&admin).await;
        Envoy {
            client: Client::new(&url),
            url,
            admin,
            child: starting.child,
            log: starting.log,
            listener,
            folder,
        }
    }

    /// Has Envoy check the configuration, the filter's included, and say what it thinks of it.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub async fn validate(self) -> Output {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut command, _) = self.command(folder.path());
        command
            .args(["--mode", "validate"])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        within("the end of Envoy", command.output())
            .await
            .expect("Envoy can be started")
    }

    /// What starts it, and its listener, if that is in a file of its own.
    fn command(self, folder: &Path) -> (Command, Option<Value>) {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let plugin = self.plugin;
        let bootstrap = Bootstrap {
            listen: self.place.listen().unwrap_or(anywhere),
            admin: anywhere,
            providers: self.providers,
            filter: self.filter.map(|module| Filter { module, plugin }),
            daemon: self.daemon,
            trusted_ca: self.trusted_ca,
        };
        let mut config = bootstrap.config().expect("a configuration");
        for edit in self.edits {
            edit(&mut config);
        }
        let listener = self.drain_seconds.map(|_| {
            let listeners = &mut config["static_resources"]["listeners"];
            let listener = listeners.take()[0].take();
            config["node"] = json!({ "id": "test", "cluster": "test" });
            config["dynamic_resources"] = json!({ "lds_config": {
                "resource_api_version": "V3",
                "path_config_source": { "path": folder.join(LISTENER_FILE) },
            }});
            write_listener(folder, &listener);
            listener
        });
        let file = folder.join("envoy.yaml");
        fs::write(&file, text(&config).expect("a text")).expect("a configuration file");
        let mut command = Command::new(binary());
        command
            .arg("--config-path")
            .arg(file)
            .args(["--concurrency", &self.workers.to_string()])
            .args(LOG_LEVELS)
            .args(self.place.arguments(folder));
        if let Some(seconds) = self.drain_seconds {
            command.args(["--drain-time-s", &seconds.to_string()]);
        }
        (command, listener)
    }
}

/// Where Envoy reads its listener from.
const LISTENER_FILE: &str = "listener.json";

/// Puts the file there in one piece: Envoy looks for files that are moved to this place.
fn write_listener(folder: &Path, listener: &Value) {
    let mut resource = listener.clone();
    resource["@type"] = "type.googleapis.com/envoy.config.listener.v3.Listener".into();
    let new = folder.join("listener.new");
    let text = json!({ "resources": [resource] }).to_string();
    fs::write(&new, text).expect("a listener's file");
    fs::rename(new, folder.join(LISTENER_FILE)).expect("a listener's file in its place");
}

/// A running Envoy. It is killed when this is dropped.
#[derive(Debug)]
pub struct Envoy {
    /// Where it listens: `http://ADDRESS`.
    pub url: String,
    /// A client of it.
    pub client: Client,
    /// A client of its admin interface.
    pub admin: Client,
    child: Child,
    log: PathBuf,
    listener: Option<Value>,
    folder: TempDir,
}

impl Envoy {
    /// In front of this provider and of the daemon behind this socket, everything else as
    /// [`EnvoyPlan::new`] says.
    pub async fn before(upstream: &Upstream, socket: &Path) -> Self {
        EnvoyPlan::new(&upstream.url()).daemon(socket).start().await
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        text_of(&self.log)
    }

    /// Its process, for what the system knows of it.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn pid(&self) -> Pid {
        self.child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
            .expect("a process that has not ended")
    }

    /// How much memory it has in use now, in bytes.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn memory_bytes(&self) -> u64 {
        let file = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = fs::read_to_string(file).expect("the status of a process");
        let kilobytes = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kilobytes.expect("the memory of a process that runs") << 10
    }

    /// Its figures, `/stats/prometheus`; the filter's are among them.
    pub async fn metrics(&self) -> Metrics {
        let answer = self.admin.fetch(Ask::get("/stats/prometheus")).await;
        Metrics::parse(&String::from_utf8_lossy(&answer.body))
    }

    /// Waits until the figures say what the test waits for.
    ///
    /// # Panics
    ///
    /// If they do not within [`PATIENCE`]; `what`, the filter's figures and the log are shown.
    pub async fn until(&self, what: &str, said: impl Fn(&Metrics) -> bool) {
        let wait = async {
            while !said(&self.metrics().await) {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let ours = self.admin.fetch(Ask::get("/stats?filter=reflex")).await;
            let ours = String::from_utf8_lossy(&ours.body);
            panic!("{what}: not so;\n{ours}\n{}", self.log());
        }
    }

    /// Updates its listener to one whose filter has these fields in its configuration, and waits until
    /// that takes new connections.
    ///
    /// # Panics
    ///
    /// If it does not, or is not [updatable](EnvoyPlan::updatable).
    pub async fn update(&mut self, fields: &Value) {
        let updates = |metrics: &Metrics| {
            let updates = "envoy_listener_manager_listener_modified";
            let in_place = "envoy_listener_manager_listener_in_place_updated";
            metrics.sum(updates, &[]) + metrics.sum(in_place, &[])
        };
        let before = updates(&self.metrics().await);
        let filter = "/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config";
        let listener = self.listener.as_mut().expect("an updatable listener");
        let filter = listener.pointer_mut(filter).expect("the filter");
        let plugin = match filter.get("filter_config") {
            Some(_) => "/filter_config/value",
            None => "/config/configuration/value",
        };
        let plugin = filter.pointer_mut(plugin).expect("the filter's");
        let text = plugin.as_str().expect("JSON in text");
        let mut config: Map<String, Value> = serde_json::from_str(text).expect("JSON");
        config.extend(fields.as_object().expect("fields").clone());
        *plugin = Value::Object(config).to_string().into();
        write_listener(self.folder.path(), listener);
        self.until("the listener is updated", |metrics| {
            let warming = metrics.sum("envoy_listener_manager_total_listeners_warming", &[]);
            updates(metrics) > before && warming == 0.0
        })
        .await;
    }

    /// Where its listeners are, in the order of its configuration.
    ///
    /// # Panics
    ///
    /// If it does not say so.
    pub async fn listeners(&self) -> Vec<String> {
        let answer = self.admin.fetch(Ask::get("/listeners?format=json")).await;
        let answer = answer.json();
        let all = answer["listener_statuses"].as_array().expect("listeners");
        let port = |listener: &Value| {
            let port = listener.pointer("/local_address/socket_address/port_value");
            let port = port.and_then(Value::as_u64).expect("a port");
            format!("http://{}:{port}", Ipv4Addr::LOCALHOST)
        };
        all.iter().map(port).collect()
    }

    /// How many connections it has made to the cluster of that name so far.
    pub async fn connections_to(&self, cluster: &str) -> f64 {
        let name = "envoy_cluster_upstream_cx_total";
        let labels = [("envoy_cluster_name", cluster)];
        self.metrics().await.sum(name, &labels)
    }

    /// Asks it to stop, which it does at once.
    ///
    /// # Panics
    ///
    /// If it has ended by itself.
    pub fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).expect("a process that can be told to stop");
    }

    /// Waits for its end, and returns its exit code; none if a signal ended it.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub async fn ended(&mut self) -> Option<i32> {
        within("the end of Envoy", self.child.wait())
            .await
            .expect("an exit status")
            .code()
    }
}

/// An Envoy that does not answer yet.
struct Starting {
    child: Child,
    log: PathBuf,
}

impl Starting {
    /// Its admin interface, once that says that Envoy is ready.
    async fn admin(&mut self, file: &Path) -> Client {
        let address = self
            .until("the address of Envoy's admin interface", async || {
                // The file is there before its text is.
                let text = fs::read_to_string(file).ok()?;
                text.trim().parse::<SocketAddr>().ok()
            })
            .await;
        let admin = Client::new(&format!("http://{address}"));
        self.until("a ready Envoy", async || {
            let answer = admin.try_send(Ask::get("/ready")).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        admin
    }

    /// Where it listens.
    async fn listener(&mut self, admin: &Client) -> String {
        let port = self
            .until("the port of Envoy's listener", async || {
                let answer = admin.fetch(Ask::get("/listeners?format=json")).await.json();
                let port = "/listener_statuses/0/local_address/socket_address/port_value";
                answer.pointer(port)?.as_u64()
            })
            .await;
        format!("http://{}:{port}", Ipv4Addr::LOCALHOST)
    }

    /// Asks until there is an answer, and no longer than Envoy lives.
    async fn until<T>(&mut self, what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(answer) = ask().await {
                    return Ok(answer);
                }
                if let Some(status) = self.child.try_wait().expect("a child's status") {
                    return Err(status);
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(status)) => panic!("{what}: Envoy ended ({status}):\n{}", text_of(&self.log)),
            Err(_) => panic!("{what}: not in {PATIENCE:?}:\n{}", text_of(&self.log)),
        }
    }
}

fn text_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| format!("{}: {error}", path.display()))
}
