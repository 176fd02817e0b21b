//! `cargo xtask run`: from a fresh clone to a cache that answers, in one command.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::children::{LOOK, Running};
use crate::workspace::{binary, say};
use crate::{build, wasm};

/// Opening a full cache and compiling the component take seconds; a minute means trouble.
const START_TIME_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The provider, such as https://api.openai.com; without it a demo provider is started
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Where clients connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where /health and /metrics are
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    admin: SocketAddr,
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
    let mut demo = demo.map(|(running, _)| running);
    let mut edge = Running::start("reflex-edge", &mut serve(args, &upstream))?;

    let outcome = watch(&mut edge, demo.as_mut(), &stop, args.upstream.is_none());
    say("stopping: running requests come to their end; Ctrl-C again cuts them");
    let asked = stop.count();
    let hurry = || stop.count() > asked;
    // The daemon first: the requests that it lets end need the provider.
    let stopped = edge.stop(hurry);
    let demo_stopped = demo.map_or(Ok(()), |demo| demo.stop(hurry));
    outcome.and(stopped).and(demo_stopped)
}

/// Until a signal, which is the proper end, or until one of the programs dies.
fn watch(
    edge: &mut Running,
    mut demo: Option<&mut Running>,
    stop: &StopSignals,
    is_demo: bool,
) -> Result<()> {
    let Some(address) = edge.said("listening on ", START_TIME_MAX, || stop.asked())? else {
        return Ok(());
    };
    let Some(admin) = edge.said("admin on ", START_TIME_MAX, || stop.asked())? else {
        return Ok(());
    };
    let deadline = Instant::now() + START_TIME_MAX;
    let mut greeted = false;
    while !stop.asked() {
        edge.check()?;
        if let Some(demo) = &mut demo {
            demo.check()?;
        }
        if !greeted && healthy(&admin) {
            greeted = true;
            greet(&address, &admin, is_demo);
        }
        if !greeted && Instant::now() > deadline {
            bail!("{admin}/health does not answer");
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

fn start_demo(stop: &StopSignals) -> Result<Option<(Running, String)>> {
    let mut demo = Running::start("demo-provider", &mut Command::new(binary("demo-provider")))?;
    let url = demo.said("listening on ", START_TIME_MAX, || stop.asked())?;
    Ok(url.map(|url| (demo, url)))
}

fn serve(args: &Args, upstream: &str) -> Command {
    let mut serve = Command::new(binary("reflex-edge"));
    serve.arg("serve");
    serve.args(["--listen", &args.listen.to_string()]);
    serve.args(["--admin", &args.admin.to_string()]);
    serve.args(["--upstream", upstream]);
    serve
        .arg("--data-dir")
        .arg(&args.data_dir)
        .args(&args.further);
    serve
}

/// Another program may still take the address until the daemon does, which then says so itself.
fn free(flag: &str, address: SocketAddr) -> Result<()> {
    TcpListener::bind(address)
        .map(drop)
        .with_context(|| format!("{address} cannot be listened on; pass {flag} with another one"))
}

/// Whether `/health` answers with 200.
fn healthy(admin: &str) -> bool {
    let ask = || {
        let address: SocketAddr = admin.strip_prefix("http://")?.parse().ok()?;
        let mut stream = TcpStream::connect_timeout(&address, LOOK).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        let request =
            format!("GET /health HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut status = [0; "HTTP/1.1 200".len()];
        stream.read_exact(&mut status).ok()?;
        Some(status.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

fn greet(address: &str, admin: &str, is_demo: bool) {
    let (key, model) = if is_demo {
        ("demo", "demo")
    } else {
        ("$OPENAI_API_KEY", "gpt-4o-mini")
    };
    let curl = |flags: &str, stream: &str| {
        let body = format!(
            r#"{{"model":"{model}","messages":[{{"role":"user","content":"Why is the sky blue?"}}]{stream}}}"#
        );
        format!(
            "curl {flags} {address}/v1/chat/completions -H \"authorization: Bearer {key}\" \
             -H 'content-type: application/json' -d '{body}'"
        )
    };
    let plain = curl("-i", "");
    let streamed = curl("-iN", r#","stream":true"#);
    println!(
        "\nreflex-edge answers. Paste these into another terminal and look at x-reflex-status.\n\n\
         a miss, which the provider answers (a hit, if it was asked before a restart):\n\n  \
         {plain}\n\n\
         the same again, a hit:\n\n  {plain}\n\n\
         a stream at the provider's pace, then its replay, a streamed hit:\n\n  \
         {streamed}; {streamed}\n\n\
         For an OpenAI SDK: OPENAI_BASE_URL={address}/v1\n\
         Figures: {admin}/metrics   Ctrl-C stops everything.\n"
    );
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
