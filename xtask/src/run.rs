//! `cargo xtask run`: from a fresh clone to a cache that answers, in one command.

use std::net::SocketAddr;
use std::path::{self, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::build::Programs;
use crate::children::{LOOK, Running};
use crate::gateway::{Cache, Gateway, Plan, Wanted};
use crate::sockets::Sockets;
use crate::workspace::{say, stop_step};
use crate::{admin, build, sockets, wasm};

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
    /// Do not fetch or start that Envoy
    #[arg(long)]
    no_envoy: bool,
    /// Also start an Envoy with the native module, which has a cache of its own
    #[arg(long)]
    native: bool,
    /// Where clients of that Envoy connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:10001")]
    native_listen: SocketAddr,
    /// Where its admin interface is
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9902")]
    native_admin: SocketAddr,
    /// Where its answers are kept
    #[arg(long, value_name = "DIR", default_value = "./reflex-data-native")]
    native_data_dir: PathBuf,
    /// Where the cache is kept
    #[arg(long, value_name = "DIR", default_value = "./reflex-data")]
    data_dir: PathBuf,
    /// Further flags of `reflex-edge serve`
    #[arg(last = true)]
    further: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    // Before the build, which may take a quarter of an hour.
    let sockets = Sockets::listen(args.listen, args.admin)?;
    let gateways = gateways(args)?;
    let stop = StopSignals::listen()?;
    let mut system = System {
        args,
        sockets,
        upstream: args.upstream.clone(),
        demo: None,
        edge: None,
        envoys: Vec::new(),
    };
    let outcome = system.run(gateways, &stop);
    if system.edge.is_some() {
        say("stopping: running requests come to their end; Ctrl-C again cuts them");
    }
    let asked = stop.count();
    outcome.and(system.stop(|| stop.count() > asked))
}

/// The Envoys that the user wants.
fn gateways(args: &Args) -> Result<Vec<Wanted>> {
    let mut gateways = Vec::new();
    if !args.no_envoy {
        gateways.push(Wanted {
            cache: Cache::Filter,
            listen: free("--envoy-listen", args.envoy_listen)?,
            admin: free("--envoy-admin", args.envoy_admin)?,
        });
    }
    if args.native {
        let data_dir = path::absolute(&args.native_data_dir).context("--native-data-dir")?;
        gateways.push(Wanted {
            cache: Cache::Module { data_dir },
            listen: free("--native-listen", args.native_listen)?,
            admin: free("--native-admin", args.native_admin)?,
        });
    }
    Ok(gateways)
}

/// All that runs.
struct System<'a> {
    args: &'a Args,
    sockets: Sockets,
    /// Where requests go that the cache cannot answer, once that is known.
    upstream: Option<String>,
    demo: Option<Running>,
    edge: Option<Running>,
    envoys: Vec<Gateway>,
}

/// Where a daemon says that it is.
struct Addresses {
    clients: String,
    admin: String,
}

impl System<'_> {
    /// Until a signal, which is the proper end, or until one of the programs dies.
    fn run(&mut self, gateways: Vec<Wanted>, stop: &StopSignals) -> Result<()> {
        let begun = Instant::now();
        // Further flags may name a component, which the early daemon cannot run.
        if !build::are_known() && self.args.further.is_empty() {
            say("a daemon without the component runtime comes first: it compiles in minutes");
            let programs = build::early_programs()?;
            let Some(addresses) = self.start(&programs, &[], stop)? else {
                return Ok(());
            };
            self.greet(&addresses);
            let seconds = begun.elapsed().as_secs();
            say(&format!(
                "it answers after {seconds} s; the component runtime and what Envoy loads follow"
            ));
        }
        let Some((programs, plans)) = self.set_up(gateways, stop)? else {
            return Ok(());
        };
        if let Some(early) = self.edge.take() {
            say(
                "handing over: running requests come to their end, new ones wait for the next daemon",
            );
            let asked = stop.count();
            early.stop(|| stop.count() > asked + 1)?;
        }
        let Some(addresses) = self.start(&programs, &plans, stop)? else {
            return Ok(());
        };
        for plan in &plans {
            let Some(upstream) = &self.upstream else {
                break;
            };
            self.envoys.push(plan.start(upstream)?);
        }
        self.until("Envoy's /ready", stop, |system| {
            system.envoys.iter().all(Gateway::ready)
        })?;
        if !stop.asked() {
            self.greet(&addresses);
            let seconds = begun.elapsed().as_secs();
            say(&format!("everything runs after {seconds} s"));
        }
        self.wait(stop)
    }

    /// Compiles the rest, which takes minutes at first, and watches what runs meanwhile. `None` if
    /// the user wants to stop.
    fn set_up(
        &mut self,
        gateways: Vec<Wanted>,
        stop: &StopSignals,
    ) -> Result<Option<(Programs, Vec<Plan>)>> {
        let rest = thread::spawn(move || {
            wasm::set_up()?;
            let plans: Result<_> = gateways.into_iter().map(Plan::set_up).collect();
            let plans = plans?;
            Ok((build::programs()?, plans))
        });
        while !rest.is_finished() {
            if let Err(error) = self.check() {
                stop_step();
                return Err(error);
            }
            if stop.asked() {
                stop_step();
                return Ok(None);
            }
            thread::sleep(LOOK);
        }
        let rest = rest.join().map_err(|_| anyhow!("the build panicked"))?;
        match rest {
            // A terminal's Ctrl-C stops the build as well.
            Err(_) if stop.asked() => Ok(None),
            Err(error) if self.edge.is_some() => {
                say(&format!("{error:#}"));
                say("the daemon that runs goes on, without component runtime and Envoy");
                self.wait(stop)?;
                Err(error)
            }
            rest => rest.map(Some),
        }
    }

    /// Starts the provider, unless there is one, and the daemon. `None` if the user wants to stop.
    fn start(
        &mut self,
        programs: &Programs,
        plans: &[Plan],
        stop: &StopSignals,
    ) -> Result<Option<Addresses>> {
        let Some(upstream) = self.provider(programs, stop)? else {
            return Ok(None);
        };
        let mut serve = Command::new(&programs.daemon);
        serve.arg("serve").args(["--upstream", &upstream]);
        serve.arg("--data-dir").arg(&self.args.data_dir);
        let socket = plans.iter().find_map(Plan::socket);
        if let Some(socket) = &socket {
            serve.arg("--edge-socket").arg(socket);
        }
        self.sockets.lend(&mut serve)?;
        serve.args(&self.args.further);
        let edge = self.edge.insert(Running::start("reflex-edge", &mut serve)?);
        let mut said = |prefix| edge.said(prefix, START_TIME_MAX, || stop.asked());
        let Some(clients) = said("listening on http://")? else {
            return Ok(None);
        };
        let Some(admin) = said("admin on http://")? else {
            return Ok(None);
        };
        if socket.is_some() && said("edge on ")?.is_none() {
            return Ok(None);
        }
        let health: SocketAddr = admin.parse().context("the daemon's admin address")?;
        self.until("the daemon's /health", stop, |_| {
            admin::ask(health, "GET", "/health").is_some()
        })?;
        Ok((!stop.asked()).then_some(Addresses { clients, admin }))
    }

    /// The provider's URL; without one, that of the demo provider, which is started once.
    fn provider(&mut self, programs: &Programs, stop: &StopSignals) -> Result<Option<String>> {
        if self.upstream.is_none() {
            let demo = Running::start("demo-provider", &mut Command::new(&programs.demo))?;
            let demo = self.demo.insert(demo);
            self.upstream = demo.said("listening on ", START_TIME_MAX, || stop.asked())?;
        }
        Ok(self.upstream.clone())
    }

    fn greet(&self, addresses: &Addresses) {
        let is_demo = self.demo.is_some();
        greet(&addresses.clients, &addresses.admin, &self.envoys, is_demo);
    }

    fn wait(&mut self, stop: &StopSignals) -> Result<()> {
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
        let running = [&mut self.edge, &mut self.demo].into_iter().flatten();
        for running in running {
            running.check()?;
        }
        self.envoys.iter_mut().try_for_each(Gateway::check)
    }

    /// Envoys first and the provider last: the requests that one lets end need the next.
    fn stop(self, hurry: impl Fn() -> bool) -> Result<()> {
        let envoys = self.envoys.into_iter().map(|envoy| envoy.stop(&hurry));
        let envoy = envoys.fold(Ok(()), Result::and);
        let edge = self.edge.map_or(Ok(()), |edge| edge.stop(&hurry));
        let demo = self.demo.map_or(Ok(()), |demo| demo.stop(&hurry));
        envoy.and(edge).and(demo)
    }
}

/// The address, its port resolved: Envoy does not say which port it took. Another program may still
/// take it until Envoy does, which then says so itself.
fn free(flag: &str, address: SocketAddr) -> Result<SocketAddr> {
    Ok(sockets::listen(flag, address)?.local_addr()?)
}

fn greet(address: &str, admin: &str, envoys: &[Gateway], is_demo: bool) {
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
    for envoy in envoys {
        let (cache, part) = envoy.told();
        println!(
            "\n{cache}:\n\n  {}\n\nFigures of Envoy and {part}: {}",
            curl("-i", &envoy.address().to_string(), ""),
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
