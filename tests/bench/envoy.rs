//! Envoy with the filter, and with the native module, beside Envoy without either: CPU for each request,
//! one worker, side by side. Each way to answer is a row of [`rows`]; all rows take turns in each round.
//!
//! `direct_response` is the minimum of work of Envoy for a request: it answers from its own
//! configuration. It stands behind the buffer filter, because it drops the connection when a body
//! comes that no filter reads.

use crate::bare::Server;
use crate::clock::cpu_seconds;
use crate::http::{ANSWER_BYTES, CONNECTIONS, Prompts, ROUND, load};
use crate::work::json;
use crate::{ROUNDS, median};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::envoy::{Envoy, EnvoyPlan};
use serde_json::Value;
use std::process::ExitCode;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

/// What others are compared with.
const DIRECT: &str = "direct_response";
const PLAIN: &str = "plain proxying";

/// One Envoy, and its figures.
struct Row {
    name: &'static str,
    envoy: Envoy,
    daemon: Option<Edge>,
    /// Where its answers are; removed at the end.
    _folder: Option<TempDir>,
    prompts: Prompts,
    /// How many times as much as another row it may take, by that row's name.
    goals: Vec<(&'static str, f64)>,
    envoy_us: Vec<f64>,
    daemon_us: Vec<f64>,
    rate: Vec<f64>,
}

impl Row {
    fn new(name: &'static str, envoy: Envoy, prompts: Prompts) -> Self {
        Self {
            name,
            envoy,
            daemon: None,
            _folder: None,
            prompts,
            goals: Vec::new(),
            envoy_us: Vec::new(),
            daemon_us: Vec::new(),
            rate: Vec::new(),
        }
    }

    /// With a daemon, which this Envoy asks.
    fn asking(mut self, daemon: Edge) -> Self {
        self.daemon = Some(daemon);
        self
    }

    /// One with the native module, whose answers are in a folder.
    async fn in_folder(name: &'static str, provider: &str, prompts: Prompts) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let plan = EnvoyPlan::native(provider).plugin("data_dir", data.to_str());
        Self {
            _folder: Some(folder),
            ..Self::new(name, plan.start().await, prompts)
        }
    }

    /// It is to take no more than so many times of what the row of that name takes.
    fn at_most(mut self, times: f64, row: &'static str) -> Self {
        self.goals.push((row, times));
        self
    }

    fn round(&mut self, runtime: &Runtime) {
        let pid = self.envoy.pid().as_raw_nonzero().get().unsigned_abs();
        let daemon = self.daemon.as_ref().map(Edge::id);
        let cpu = |pid: Option<u32>| pid.map_or(0.0, cpu_seconds);
        let before = (cpu_seconds(pid), cpu(daemon));
        let address = self.envoy.url.trim_start_matches("http://").to_owned();
        let requests = runtime.block_on(load(&address, self.prompts)).len() as f64;
        self.envoy_us
            .push((cpu_seconds(pid) - before.0) * 1e6 / requests);
        self.daemon_us
            .push((cpu(daemon) - before.1) * 1e6 / requests);
        self.rate.push(requests / ROUND.as_secs_f64());
    }

    fn line(&self, rows: &[Self]) -> String {
        let envoy = median(self.envoy_us.clone());
        let times = |name: &str| {
            let row = rows.iter().find(|row| row.name == name);
            row.map_or(f64::NAN, |row| envoy / median(row.envoy_us.clone()))
        };
        let daemon = match &self.daemon {
            Some(_) => format!("{:.1}", median(self.daemon_us.clone())),
            None => "–".into(),
        };
        let goals = self.goals.iter().map(|(name, most)| {
            let met = if times(name) <= *most {
                "met"
            } else {
                "missed"
            };
            format!("≤ {most:.2} × {name}: {met}")
        });
        let goals = goals.collect::<Vec<_>>().join("; ");
        format!(
            "| {} | {envoy:.1} | {daemon} | {:.2} | {:.2} | {:.0} | {goals} |",
            self.name,
            times(DIRECT),
            times(PLAIN),
            median(self.rate.clone()),
        )
    }
}

/// Each Envoy that is measured, in front of this provider.
async fn rows(provider: &str) -> Vec<Row> {
    let daemon = Plan::daemon().start().await;
    let cold = EnvoyPlan::new(provider)
        .daemon(&daemon.socket())
        .plugin("hot_bytes_max", 0);
    let missing = Plan::daemon().start().await;
    let missed = EnvoyPlan::new(provider).daemon(&missing.socket());
    let native = EnvoyPlan::native(provider).start().await;
    vec![
        Row::new(DIRECT, direct(provider).await, Prompts::Same),
        Row::new(
            PLAIN,
            EnvoyPlan::plain(provider).start().await,
            Prompts::Distinct,
        ),
        Row::new(
            "wasm hot hit",
            EnvoyPlan::new(provider).start().await,
            Prompts::Same,
        )
        .at_most(1.7, DIRECT)
        .at_most(1.0, PLAIN),
        Row::new("wasm daemon hit", cold.start().await, Prompts::Same).asking(daemon),
        Row::new("wasm miss", missed.start().await, Prompts::Distinct)
            .asking(missing)
            .at_most(1.8, PLAIN),
        Row::new("native hit, memory", native, Prompts::Same).at_most(1.15, DIRECT),
        Row::in_folder("native hit, mapped store", provider, Prompts::Same)
            .await
            .at_most(1.3, DIRECT),
        Row::in_folder("native miss", provider, Prompts::Distinct)
            .await
            .at_most(1.3, PLAIN),
    ]
}

pub(crate) fn run() -> ExitCode {
    println!(
        "envoy: {CONNECTIONS} connections, HTTP/1.1, 1 KiB prompt, {ANSWER_BYTES} byte answer, one worker\n"
    );
    let bare = Server::bare();
    let provider = format!("http://{}", bare.address);
    // The load and the programs' output share it.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut rows = runtime.block_on(rows(&provider));
    // The first round fills caches and pools.
    for row in &mut rows {
        row.round(&runtime);
        (row.envoy_us, row.daemon_us, row.rate) = Default::default();
    }
    for _ in 0..ROUNDS {
        for row in &mut rows {
            row.round(&runtime);
        }
    }
    println!(
        "| | CPU of Envoy per request, µs | of the daemon, µs | × {DIRECT} | × {PLAIN} | requests per second | goal |"
    );
    println!("|---|---|---|---|---|---|---|");
    for row in &rows {
        println!("{}", row.line(&rows));
    }
    println!();
    ExitCode::SUCCESS
}

/// An Envoy that answers by itself.
async fn direct(provider: &str) -> Envoy {
    let body = String::from_utf8_lossy(&json(ANSWER_BYTES)).into_owned();
    let plan = EnvoyPlan::plain(provider).edit(move |config: &mut Value| {
        let route = config
            .pointer_mut(&format!("{MANAGER}/route_config/virtual_hosts/0/routes/0"))
            .and_then(Value::as_object_mut)
            .expect("a route");
        route.remove("route");
        route.insert(
            "direct_response".into(),
            serde_json::json!({"status": 200, "body": {"inline_string": body}}),
        );
        let filters = config
            .pointer_mut(&format!("{MANAGER}/http_filters"))
            .and_then(Value::as_array_mut)
            .expect("filters");
        let kind = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer";
        let buffer = serde_json::json!({
            "name": "buffer",
            "typed_config": {"@type": kind, "max_request_bytes": 1 << 20},
        });
        filters.insert(0, buffer);
    });
    plan.start().await
}
