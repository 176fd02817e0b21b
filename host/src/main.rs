//! `reflex-edge`: flags and file in, a running daemon out.

mod cli;
mod successor;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use reflex_host::cache::Folder;
use reflex_host::serve::Server;
use reflex_host::serve::config::{self, Config, Flags};
use reflex_host::serve::inherited::Inherited;
use reflex_host::serve::reload::Reload;
use reflex_host::serve::{logs, tenants};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A cache for LLM answers at the edge.
#[derive(Debug, Parser)]
#[command(name = "reflex-edge", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run as an HTTP reverse proxy in front of a provider, as the cache of edges, or as both
    Serve(Serve),
    Store(cli::store::Store),
    Config(cli::config::Config),
    Envoy(cli::envoy::Envoy),
    Explain(cli::explain::Explain),
    Record(cli::cassette::Record),
    Replay(cli::cassette::Replay),
    Auto(cli::cassette::Auto),
    /// Print the hash by which a configuration's `[[group]]` names a client; reads its headers, such
    /// as `authorization: Bearer KEY`, from standard input, one a line
    Tenant(WhoIs),
    Purge(cli::admin::Purge),
    Stats(cli::admin::Stats),
    Top(cli::admin::Top),
    Inspect(cli::admin::Inspect),
    Export(cli::admin::Export),
    Import(cli::admin::Import),
    Probe(cli::admin::Probe),
    Completions(cli::pages::Completions),
    Man(cli::pages::Man),
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
    /// Where /health, /metrics and the admin API are [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Where the cache is kept [default: ./reflex-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A component to run in place of the built-in middleware
    #[arg(long, value_name = "FILE.wasm")]
    component: Option<PathBuf>,
    /// Take over from the daemon that has the data folder, if one has, without a failed request
    #[arg(long)]
    take_over: bool,
    /// Everything else, and the above, as a TOML file. Variables of the environment
    /// (`REFLEX_EDGE_LISTEN`) go before it, and flags before both
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
}

/// A file has grown past its limit. Linux's number of this signal, the same on all known machines.
const SIGXFSZ: i32 = 25;
/// How often the reading of the data folder is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Invalid flags or configuration: the same code that clap uses.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let serve = match Cli::parse().command {
        Command::Serve(serve) => serve,
        Command::Store(store) => return store.run(),
        Command::Config(config) => return config.run(),
        Command::Envoy(envoy) => return envoy.run(),
        Command::Explain(explain) => return explain.run(),
        Command::Record(record) => return record.run(),
        Command::Replay(replay) => return replay.run(),
        Command::Auto(auto) => return auto.run(),
        Command::Tenant(who) => return tenant(&who),
        Command::Purge(purge) => return purge.run(),
        Command::Stats(stats) => return stats.run(),
        Command::Top(top) => return top.run(),
        Command::Inspect(inspect) => return inspect.run(),
        Command::Export(export) => return export.run(),
        Command::Import(import) => return import.run(),
        Command::Probe(probe) => return probe.run(),
        Command::Completions(completions) => return completions.run(Cli::command()),
        Command::Man(man) => return man.run(Cli::command()),
    };
    let flags = Flags {
        listen: serve.listen,
        admin: serve.admin,
        upstream: serve.upstream,
        edge_socket: serve.edge_socket,
        data_dir: serve.data_dir,
        component: serve.component,
        take_over: serve.take_over,
    };
    let variable = std::env::var_os(format!("{}CONFIG", config::VARIABLE));
    let variable = variable.filter(|file| !file.is_empty());
    let file = serve.config.or(variable.map(PathBuf::from));
    let config = match Config::load(file.as_deref(), flags) {
        Ok(config) => config,
        Err(errors) => return refuse_all(&errors),
    };
    // Until the end of the process: the lines that wait are written then.
    let _logs = logs::begin(config.log_format);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
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
    if let Err(error) = listen_for_signals(config.take_over) {
        return fail(&format!("cannot listen for signals: {error}"));
    }
    let hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => return fail(&format!("cannot listen for signals: {error}")),
    };
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
    tokio::spawn(reload_at(hangups, server.reload()));
    tokio::spawn(tell_recovery(server.folder()));
    server.run(stop).await;
    ExitCode::SUCCESS
}

/// The addresses on standard output, one a line: with port 0 the system chooses them.
fn announce(server: &Server) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if let Some(address) = server.address()? {
        writeln!(out, "listening on {}://{address}", server.scheme())?;
    }
    let (scheme, address) = (server.admin_scheme(), server.admin_address()?);
    writeln!(out, "admin on {scheme}://{address}")?;
    if let Some(path) = server.edge_socket() {
        writeln!(out, "edge on {}", path.display())?;
    }
    out.flush()
}

/// Reads the configuration again at each SIGHUP. The log has what became of it.
async fn reload_at(mut hangups: Signal, reload: Reload) {
    while hangups.recv().await.is_some() {
        tracing::info!("SIGHUP: the configuration is read again");
        let _ = reload.apply().await;
    }
}

/// Tells a terminal how far the reading of the data folder is, as long as it takes.
async fn tell_recovery(folder: impl Fn() -> Folder) {
    let mut progress = cli::progress::Progress::of("reading the data folder: segment");
    while !matches!(folder(), Folder::Settled) {
        if let Folder::Reading { read, segments } = folder() {
            progress.tell(read, segments);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// SIGUSR2 starts a successor, if this process hands over. Both signals are ignored otherwise: to other
/// programs they mean "open your log again", and by default each of them would end the process.
fn listen_for_signals(hands_over: bool) -> std::io::Result<()> {
    for (name, kind, starts) in [
        ("SIGUSR1", SignalKind::user_defined1(), false),
        ("SIGUSR2", SignalKind::user_defined2(), hands_over),
    ] {
        let mut signals = signal(kind)?;
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if !starts {
                    tracing::warn!("{name} is ignored; SIGHUP reloads the configuration");
                } else if let Err(error) = successor::start() {
                    tracing::warn!(%error, "SIGUSR2: no successor can be started");
                }
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

fn refuse_all(errors: &[config::ConfigError]) -> ExitCode {
    for error in errors {
        eprintln!("reflex-edge: {error}");
    }
    ExitCode::from(EXIT_USAGE)
}

fn refuse(error: &str) -> ExitCode {
    for line in error.lines() {
        eprintln!("reflex-edge: {line}");
    }
    ExitCode::from(EXIT_USAGE)
}

fn fail(error: &str) -> ExitCode {
    eprintln!("reflex-edge: {error}");
    ExitCode::FAILURE
}
