//! The commands that talk to a running daemon: `purge`, `stats`, `top`, `inspect`, `export`, `import` and
//! `probe`.
//!
//! Each is one call of the admin API, which `docs/admin-api.md` describes. The daemon does the work; this
//! prints its results.

mod address;
mod call;
mod show;

use address::Address;
use call::{Api, Failed};
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// The daemon refused, or something failed on the way.
const EXIT_FAILED: u8 = 1;
/// No daemon answers.
const EXIT_UNREACHABLE: u8 = 3;
/// The token is missing or another one, or the daemon cannot use its own.
const EXIT_TOKEN: u8 = 4;

// What all these commands take. No doc comment: clap would print it in place of each command's own.
#[derive(Debug, Args)]
pub(crate) struct Daemon {
    /// The daemon's admin address; `https://HOST:PORT` where it has a certificate
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    admin: Address,
    /// A file of CAs in PEM that are trusted for its certificate, beside those of the system
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The file of the admin token; needed for changes and contents [default: reflex-data/admin-token]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
}

/// Remove entries from a running daemon's cache, for good
#[derive(Debug, Args)]
pub(crate) struct Purge {
    #[command(flatten)]
    what: What,
    /// Only tell how much would be removed
    #[arg(long)]
    dry_run: bool,
    /// Wait until the other daemons of the fleet have followed, and fail if one has not
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// All entries of a tenant: its 64 digits, as `reflex-edge tenant` prints, or a group's name
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// All answers of a model; `*` stands for any text
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// All answers of an API, such as chat-completions; `unknown` is those of earlier releases
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
    /// One entry: the 64 digits of its key, or TENANT/DIGEST
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Everything
    #[arg(long)]
    all: bool,
}

/// Tell what a running daemon holds and did
#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    daemon: Daemon,
}

/// List the models, routes and tenants with most entries in a running daemon
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// The length of each list
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    limit: u32,
    /// By bytes instead of entries
    #[arg(long)]
    bytes: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// Tell about one entry of a running daemon; never its contents, unless asked for
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The 64 digits of its key, or TENANT/DIGEST
    #[arg(value_name = "KEY")]
    key: String,
    /// Print the answer's body instead; with `--json` both, the body as base64
    #[arg(long)]
    payload: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// Write all entries of a running daemon as JSON Lines
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Where to; standard output if missing. Only its owner can read the file
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    daemon: Daemon,
}

/// Store the entries of an export in a running daemon, where they are not there yet
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The export; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// End at the first wrong line
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// Tell whether a daemon is alive, or ready; for health checks where there is no curl
#[derive(Debug, Args)]
pub(crate) struct Probe {
    /// The daemon's admin address; `https://HOST:PORT` where it has a certificate
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    admin: Address,
    /// A file of CAs in PEM that are trusted for its certificate, beside those of the system
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Ask for /ready, which fails while the daemon reads its data folder and while it drains
    #[arg(long)]
    ready: bool,
}

impl Purge {
    pub(crate) fn run(self) -> ExitCode {
        self.daemon.run(async |api| {
            let What {
                tenant,
                model,
                route,
                key,
                all,
            } = &self.what;
            let mut ask = json!({ "dry_run": self.dry_run });
            // Daemons of earlier releases do not know it.
            if self.wait {
                ask["wait"] = json!(true);
            }
            for (name, value) in [
                ("tenant", tenant),
                ("model", model),
                ("route", route),
                ("key", key),
            ] {
                if let Some(value) = value {
                    ask[name] = json!(value);
                }
            }
            if *all {
                ask["all"] = json!(true);
            }
            let done = api.json(Method::POST, "/v1/purge", ask.to_string()).await?;
            self.daemon.print(&done, show::purge)?;
            let behind = done["fleet"]["behind"].as_array();
            match behind.is_none_or(Vec::is_empty) {
                true => Ok(()),
                false => Err(Failed::told("not all daemons of the fleet have followed")),
            }
        })
    }
}

impl Stats {
    pub(crate) fn run(self) -> ExitCode {
        self.daemon.run(async |api| {
            let stats = api.json(Method::GET, "/v1/stats", String::new()).await?;
            self.daemon.print(&stats, show::stats)
        })
    }
}

impl Top {
    pub(crate) fn run(self) -> ExitCode {
        self.daemon.run(async |api| {
            let sort = if self.bytes { "bytes" } else { "entries" };
            let path = format!("/v1/top?limit={}&sort={sort}", self.limit);
            let top = api.json(Method::GET, &path, String::new()).await?;
            self.daemon.print(&top, show::top)
        })
    }
}

impl Inspect {
    pub(crate) fn run(self) -> ExitCode {
        self.daemon.run(async |api| {
            let is_key = |byte: u8| byte.is_ascii_hexdigit() || byte == b'/';
            if !self.key.bytes().all(is_key) {
                let why = "KEY is 64 digits, 0 to 9 and a to f, or TENANT/DIGEST";
                return Err(Failed::usage(why));
            }
            let path = format!("/v1/entries/{}?payload={}", self.key, self.payload);
            let entry = api.json(Method::GET, &path, String::new()).await?;
            match self.payload && !self.daemon.json {
                true => show::payload(&entry),
                false => self.daemon.print(&entry, show::entry),
            }
        })
    }
}

impl Export {
    pub(crate) fn run(self) -> ExitCode {
        self.daemon.run(async |api| {
            let counted = api.export(self.file.as_deref()).await?;
            match &self.file {
                Some(_) => self.daemon.print(&counted, show::export),
                // The lines are there.
                None => Ok(()),
            }
        })
    }
}

impl Import {
    pub(crate) fn run(self) -> ExitCode {
        self.daemon.run(async |api| {
            let (report, is_good) = api.import(&self.file, self.strict).await?;
            self.daemon.print(&report, show::import)?;
            match is_good {
                true => Ok(()),
                false => Err(Failed::told("the import is not complete")),
            }
        })
    }
}

impl Probe {
    pub(crate) fn run(self) -> ExitCode {
        exit_code_of(async {
            let path = if self.ready { "/ready" } else { "/health" };
            let api = Api::open(&self.admin, self.ca.as_deref())?;
            let (is_good, answer) = api.probe(path).await?;
            show::print(format!("{answer}\n").as_bytes())?;
            match is_good {
                true => Ok(()),
                false => Err(Failed::told("the daemon is not ready")),
            }
        })
    }
}

impl Daemon {
    fn run(&self, command: impl AsyncFnOnce(Api) -> Result<(), Failed>) -> ExitCode {
        exit_code_of(async {
            let token_file = self.token_file.as_deref();
            let api = Api::new(&self.admin, self.ca.as_deref(), token_file)?;
            command(api).await
        })
    }

    fn print(&self, answer: &Value, shown: impl Fn(&Value) -> String) -> Result<(), Failed> {
        let text = match self.json {
            true => format!("{answer}\n"),
            false => shown(answer),
        };
        show::print(text.as_bytes())
    }
}

/// Runs a command to its end, and prints why it failed.
fn exit_code_of(command: impl Future<Output = Result<(), Failed>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => Err(Failed::told(format!("cannot start: {error}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("reflex-edge: {}", failed.message);
            ExitCode::from(failed.exit_code)
        }
    }
}
