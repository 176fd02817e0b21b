//! Envoy with the filter beside Envoy without it: CPU for each request, one worker, side by side.
//!
//! `direct_response` is the minimum of work of Envoy for a request: it answers from its own
//! configuration. It stands behind the buffer filter, because it drops the connection when a body
//! comes that no filter reads.

use crate::bare::Server;
use crate::clock::cpu_seconds;
use crate::http::{ANSWER_BYTES, CONNECTIONS, Prompts, ROUND, load};
use crate::work::json;
use crate::{ROUNDS, median, report};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::envoy::{Envoy, EnvoyPlan};
use serde_json::Value;
use std::process::ExitCode;
use tokio::runtime::Runtime;

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

/// One Envoy, and its figures.
struct Case {
    name: &'static str,
    envoy: Envoy,
    daemon: Option<Edge>,
    prompts: Prompts,
    envoy_us: Vec<f64>,
    daemon_us: Vec<f64>,
    rate: Vec<f64>,
}

impl Case {
    fn new(name: &'static str, envoy: Envoy, daemon: Option<Edge>, prompts: Prompts) -> Self {
        Self {
            name,
            envoy,
            daemon,
            prompts,
            envoy_us: Vec::new(),
            daemon_us: Vec::new(),
            rate: Vec::new(),
        }
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
}

pub(crate) fn run() -> ExitCode {
    println!(
        "envoy: {CONNECTIONS} connections, HTTP/1.1, 1 KiB prompt, {ANSWER_BYTES} byte answer, one worker"
    );
    let bare = Server::bare();
    let provider = format!("http://{}", bare.address);
    // The load and the programs' output share it.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut cases = runtime.block_on(async {
        let daemon = Plan::daemon().start().await;
        let cold = EnvoyPlan::new(&provider)
            .daemon(&daemon.socket())
            .plugin("hot_bytes_max", 0);
        let cold = cold.start().await;
        let missing = Plan::daemon().start().await;
        let missed = EnvoyPlan::new(&provider).daemon(&missing.socket());
        let missed = missed.start().await;
        vec![
            Case::new(
                "direct_response",
                direct(&provider).await,
                None,
                Prompts::Same,
            ),
            Case::new(
                "hit, hot tier",
                EnvoyPlan::new(&provider).start().await,
                None,
                Prompts::Same,
            ),
            Case::new("hit, daemon", cold, Some(daemon), Prompts::Same),
            Case::new(
                "plain proxying",
                EnvoyPlan::plain(&provider).start().await,
                None,
                Prompts::Distinct,
            ),
            Case::new("miss", missed, Some(missing), Prompts::Distinct),
        ]
    });
    // The first round fills caches and pools.
    for case in &mut cases {
        case.round(&runtime);
        (case.envoy_us, case.daemon_us, case.rate) = Default::default();
    }
    for _ in 0..ROUNDS {
        for case in &mut cases {
            case.round(&runtime);
        }
    }
    let direct = median(cases[0].envoy_us.clone());
    for case in &cases {
        let (envoy, daemon) = (
            median(case.envoy_us.clone()),
            median(case.daemon_us.clone()),
        );
        let name = case.name;
        report(&format!("{name}: CPU of Envoy per request"), envoy, "µs");
        if case.daemon.is_some() {
            report(
                &format!("{name}: CPU of the daemon per request"),
                daemon,
                "µs",
            );
        }
        report(&format!("{name}: / direct_response"), envoy / direct, "x");
        report(
            &format!("{name}: requests per second"),
            median(case.rate.clone()),
            "/s",
        );
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
