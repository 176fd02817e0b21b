//! `cargo xtask run`: from a fresh clone to a cache that answers, in one command.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::children::{LOOK, Running};
use crate::gateway::{Gateway, Plan};
use crate::workspace::{binary, say};
use crate::{admin, build, wasm};

/// Opening a full cache and compiling the component take seconds; a minute means trouble.
const START_TIME_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The provider, such as `https://api.openai.com`; without it a demo provider is started
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Where clients connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where /health and /metrics are
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    admin: SocketAddr,
    /// Where clients of Envoy connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:10000")]
    envoy_listen: SocketAddr,
    /// Where Envoy's own admin interface is
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    envoy_admin: SocketAddr,
    /// Do not fetch or start Envoy
    #[arg(long)]
    no_envoy: bool,
    /// Where the cache is kept
    #[arg(long, value_name = "DIR", default_value = "./reflex-data")]
    data_dir: PathBuf,
    /// Further flags of `reflex-edge serve`
    #[arg(last = true)]
    further: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    // Before the build, which may take a quarter of an hour.
    free("--listen", args.listen)?;
    free("--admin", args.admin)?;
    wasm::set_up()?;
    let plan = if args.no_envoy {
        None
    } else {
        // Port 0 is resolved here, because Envoy does not say which port it took.
        let listen = free("--envoy-listen", args.envoy_listen)?;
        Some(Plan::set_up(
            listen,
            free("--envoy-admin", args.envoy_admin)?,
        )?)
    };
    build::binaries()?;

    let stop = StopSignals::listen()?;
    let demo = match args.upstream {
        Some(_) => None,
        None => match start_demo(&stop)? {
            None => return Ok(()),
            Some(demo) => Some(demo),
        },
    };
    let upstream = match (&args.upstream, &demo) {
        (Some(url), _) => url.clone(),
        (None, Some((_, url))) => url.clone(),
        (None, None) => return Ok(()),
    };
    let mut serve = serve(args, &upstream, plan.as_ref());
    let mut system = System {
        demo: demo.map(|(running, _)| running),
        edge: Running::start("reflex-edge", &mut serve)?,
        envoy: None,
    };
    let outcome = system.watch(plan.as_ref(), &upstream, &stop, args.upstream.is_none());
    say("stopping: running requests come to their end; Ctrl-C again cuts them");
    let asked = stop.count();
    outcome.and(system.stop(|| stop.count() > asked))
}

/// All that runs.
struct System {
    demo: Option<Running>,
    edge: Running,
    envoy: Option<Gateway>,
}

impl System {
    /// Until a signal, which is the proper end, or until one of the programs dies.
    fn watch(
        &mut self,
        plan: Option<&Plan>,
        upstream: &str,
        stop: &StopSignals,
        is_demo: bool,
    ) -> Result<()> {
        let mut said = |prefix| self.edge.said(prefix, START_TIME_MAX, || stop.asked());
        let Some(address) = said("listening on http://")? else {
            return Ok(());
        };
        let Some(admin) = said("admin on http://")? else {
            return Ok(());
        };
        if plan.is_some() && said("edge on ")?.is_none() {
            return Ok(());
        }
        let health: SocketAddr = admin.parse().context("the daemon's admin address")?;
        self.until("the daemon's /health", stop, |_| {
            admin::ask(health, "GET", "/health").is_some()
        })?;
        if let Some(plan) = plan {
            self.envoy = Some(plan.start(upstream)?);
            self.until("Envoy's /ready", stop, |system| {
                system.envoy.as_ref().is_some_and(Gateway::ready)
            })?;
        }
        if !stop.asked() {
            greet(&address, &admin, self.envoy.as_ref(), is_demo);
        }
        while !stop.asked() {
            self.check()?;
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Waits for something that a program says only when asked, or for the user's wish to stop.
    fn until(&mut self, what: &str, stop: &StopSignals, so: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + START_TIME_MAX;
        while !stop.asked() && !so(self) {
            self.check()?;
            if Instant::now() > deadline {
                bail!("{what} does not answer");
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// An error if one of them has ended by itself.
    fn check(&mut self) -> Result<()> {
        self.edge.check()?;
        self.demo.as_mut().map_or(Ok(()), Running::check)?;
        self.envoy.as_mut().map_or(Ok(()), Gateway::check)
    }

    /// Envoy first and the provider last: the requests that one lets end need the next.
    fn stop(self, hurry: impl Fn() -> bool) -> Result<()> {
        let envoy = self.envoy.map_or(Ok(()), |envoy| envoy.stop(&hurry));
        let edge = self.edge.stop(&hurry);
        let demo = self.demo.map_or(Ok(()), |demo| demo.stop(&hurry));
        envoy.and(edge).and(demo)
    }
}

fn start_demo(stop: &StopSignals) -> Result<Option<(Running, String)>> {
    let mut demo = Running::start("demo-provider", &mut Command::new(binary("demo-provider")))?;
    let url = demo.said("listening on ", START_TIME_MAX, || stop.asked())?;
    Ok(url.map(|url| (demo, url)))
}

fn serve(args: &Args, upstream: &str, plan: Option<&Plan>) -> Command {
    let mut serve = Command::new(binary("reflex-edge"));
    serve.arg("serve");
    serve.args(["--listen", &args.listen.to_string()]);
    serve.args(["--admin", &args.admin.to_string()]);
    serve.args(["--upstream", upstream]);
    if let Some(plan) = plan {
        serve.arg("--edge-socket").arg(plan.socket());
    }
    serve
        .arg("--data-dir")
        .arg(&args.data_dir)
        .args(&args.further);
    serve
}

/// The address, its port resolved. Another program may still take it until ours does, which then
/// says so itself.
fn free(flag: &str, address: SocketAddr) -> Result<SocketAddr> {
    TcpListener::bind(address)
        .and_then(|listener| listener.local_addr())
        .with_context(|| format!("{address} cannot be listened on; pass {flag} with another one"))
}

fn greet(address: &str, admin: &str, envoy: Option<&Gateway>, is_demo: bool) {
    let (key, model) = if is_demo {
        ("demo", "demo")
    } else {
        ("$OPENAI_API_KEY", "gpt-4o-mini")
    };
    let curl = |flags: &str, address: &str, stream: &str| {
        let body = format!(
            r#"{{"model":"{model}","messages":[{{"role":"user","content":"Why is the sky blue?"}}]{stream}}}"#
        );
        format!(
            "curl {flags} http://{address}/v1/chat/completions -H \"authorization: Bearer {key}\" \
             -H 'content-type: application/json' -d '{body}'"
        )
    };
    let plain = curl("-i", address, "");
    let streamed = curl("-iN", address, r#","stream":true"#);
    println!(
        "\nreflex-edge answers. Paste these into another terminal and look at x-reflex-status.\n\n\
         a miss, which the provider answers (a hit, if it was asked before a restart):\n\n  \
         {plain}\n\n\
         the same again, a hit:\n\n  {plain}\n\n\
         a stream at the provider's pace, then its replay, a streamed hit:\n\n  \
         {streamed}; {streamed}\n\n\
         For an OpenAI SDK: OPENAI_BASE_URL=http://{address}/v1\n\
         Figures: http://{admin}/metrics"
    );
    if let Some(envoy) = envoy {
        println!(
            "\nThe same cache through Envoy, a hit for what the first line asked:\n\n  {}\n\n\
             Figures of Envoy and the filter: {}",
            curl("-i", &envoy.address.to_string(), ""),
            envoy.figures()
        );
    }
    println!("\nCtrl-C stops everything.\n");
}

/// How often the user has asked us to stop.
struct StopSignals(Arc<AtomicUsize>);

impl StopSignals {
    fn listen() -> Result<Self> {
        let count = Arc::new(AtomicUsize::new(0));
        // A flag that is set cannot tell a second Ctrl-C from the first; a thread counts.
        let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])
            .context("signals cannot be listened for")?;
        let counted = Arc::clone(&count);
        thread::spawn(move || {
            for _ in signals.forever() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self(count))
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn asked(&self) -> bool {
        self.count() > 0
    }
}
