//! `reflex-edge`: flags and file in, a running daemon out.

mod cli;

use clap::{Args, Parser, Subcommand};
use reflex_host::serve::Server;
use reflex_host::serve::config::{Config, Flags};
use reflex_host::serve::inherited::Inherited;
use reflex_host::serve::tenants;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A cache for LLM answers at the edge.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run as an HTTP reverse proxy in front of a provider, as the cache of edges, or as both
    Serve(Serve),
    Store(cli::store::Store),
    Envoy(cli::envoy::Envoy),
    /// Print the hash by which a configuration's `[[group]]` names a client; reads its headers, such
    /// as `authorization: Bearer KEY`, from standard input, one a line
    Tenant(WhoIs),
}

#[derive(Debug, Args)]
struct WhoIs {
    /// The configuration's tenant_header, if it has one
    #[arg(long, value_name = "NAME")]
    tenant_header: Option<String>,
}

#[derive(Debug, Args)]
struct Serve {
    /// The provider's URL, such as `https://api.openai.com`
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// A Unix socket for edges such as the Envoy filter; with it, there may be no provider
    #[arg(long, value_name = "PATH")]
    edge_socket: Option<PathBuf>,
    /// Where clients connect [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where /health and /metrics are [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Where the cache is kept [default: ./reflex-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A component to run in place of the built-in middleware
    #[arg(long, value_name = "FILE.wasm")]
    component: Option<PathBuf>,
    /// Everything else, and the above, as a TOML file; flags go before it
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
}

/// A file has grown past its limit. Linux's number of this signal, the same on all known machines.
const SIGXFSZ: i32 = 25;
/// Invalid flags or configuration: the same code that clap uses.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let serve = match Cli::parse().command {
        Command::Serve(serve) => serve,
        Command::Store(store) => return store.run(),
        Command::Envoy(envoy) => return envoy.run(),
        Command::Tenant(who) => return tenant(&who),
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .init();

    let flags = Flags {
        listen: serve.listen,
        admin: serve.admin,
        upstream: serve.upstream,
        edge_socket: serve.edge_socket,
        data_dir: serve.data_dir,
        component: serve.component,
    };
    let config = match Config::load(serve.config.as_deref(), flags) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start threads: {error}")),
    };
    runtime.block_on(run(config))
}

/// Credentials come by standard input: every user of the machine can see arguments.
fn tenant(who: &WhoIs) -> ExitCode {
    let lines = match std::io::read_to_string(std::io::stdin().lock()) {
        Ok(lines) => lines,
        Err(error) => return fail(&format!("cannot read standard input: {error}")),
    };
    match tenants::of_lines(&lines, who.tenant_header.as_deref()) {
        Ok(tenant) => {
            println!("{}", tenants::text(&tenant));
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&error),
    }
}

async fn run(config: Config) -> ExitCode {
    // At the file size limit (`ulimit -f`) the system sends a signal that ends the process. With a
    // listener for it, the write fails instead, which the store handles.
    let _file_size = match signal(SignalKind::from_raw(SIGXFSZ)) {
        Ok(listener) => listener,
        Err(error) => return fail(&format!("cannot listen for signals: {error}")),
    };
    if let Err(error) = ignore_signals() {
        return fail(&format!("cannot listen for signals: {error}"));
    }
    let stop = match stop_signal() {
        Ok(stop) => stop,
        Err(error) => return fail(&format!("cannot listen for signals: {error}")),
    };
    let inherited = match Inherited::of_environment() {
        Ok(inherited) => inherited,
        Err(error) => return refuse(&error),
    };
    let server = match Server::prepare(config, inherited).await {
        Ok(server) => server,
        Err(error) => return refuse(&error),
    };
    if let Err(error) = announce(&server) {
        return fail(&error.to_string());
    }
    server.run(stop).await;
    ExitCode::SUCCESS
}

/// The addresses on standard output, one a line: with port 0 the system chooses them.
fn announce(server: &Server) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if let Some(address) = server.address()? {
        writeln!(out, "listening on http://{address}")?;
    }
    writeln!(out, "admin on http://{}", server.admin_address()?)?;
    if let Some(path) = server.edge_socket() {
        writeln!(out, "edge on {}", path.display())?;
    }
    out.flush()
}

/// Ignores signals that mean "read your configuration again" or "open your log again" to other
/// programs. By default, each of them would end the process.
fn ignore_signals() -> std::io::Result<()> {
    for (name, kind) in [
        ("SIGHUP", SignalKind::hangup()),
        ("SIGUSR1", SignalKind::user_defined1()),
        ("SIGUSR2", SignalKind::user_defined2()),
    ] {
        let mut signals = signal(kind)?;
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                tracing::warn!("{name} is ignored: a new configuration needs a restart");
            }
        });
    }
    Ok(())
}

/// Resolves at SIGTERM or Ctrl-C.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn refuse(error: &str) -> ExitCode {
    eprintln!("reflex-edge: {error}");
    ExitCode::from(EXIT_USAGE)
}

fn fail(error: &str) -> ExitCode {
    eprintln!("reflex-edge: {error}");
    ExitCode::FAILURE
}
