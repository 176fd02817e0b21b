//! The servers that are measured, and how each is started: one row of the tables each.

use crate::bare::Server;
use crate::peers::cores::Cores;
use crate::peers::process::{Program, free_address};
use crate::work::{Answer, Work};
use reflex_tests::edge::Plan;
use reflex_tests::envoy::{Envoy, EnvoyPlan};
use serde_json::{Value, json};
use std::any::Any;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Our configurations: the name of the row, and the lines of the file.
const OURS: [(&str, &str); 2] = [
    ("reflex-edge, native hits", ""),
    ("reflex-edge, component in the path", "hits = \"component\""),
];

/// How a contender treats requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Role {
    /// It is answered without a provider.
    Answers,
    /// It is passed on to the provider.
    Proxies,
    /// The first of its kind is passed on, the others are answered.
    Caches,
}

/// A running server.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) address: String,
    /// Its processes, without their children.
    pub(crate) roots: Vec<u32>,
    /// Ends it when this is dropped.
    _running: Box<dyn Any>,
}

/// All others are compared with the first.
pub(crate) async fn all(cores: &Cores, provider: &str) -> Result<Vec<Contender>, String> {
    let url = format!("http://{provider}");
    let bare = cores.on_server(async { Server::bare() }).await;
    let mut all = vec![Contender {
        name: "bare hyper (A)",
        role: Role::Answers,
        address: bare.address.clone(),
        roots: vec![bare.child.id()],
        _running: Box::new(bare),
    }];
    let envoy = cores.on_server(direct(&url)).await;
    all.push(of_envoy("Envoy, direct_response (B)", Role::Answers, envoy));
    for (name, lines) in OURS {
        let edge = cores.on_server(Plan::new(&url).config(lines).start()).await;
        all.push(Contender {
            name,
            role: Role::Caches,
            address: edge.url.trim_start_matches("http://").to_owned(),
            roots: vec![edge.id()],
            _running: Box::new(edge),
        });
    }
    all.push(cores.on_server(nginx(provider)).await?);
    all.push(cores.on_server(varnish(provider)).await?);
    let envoy = cores.on_server(EnvoyPlan::plain(&url).start()).await;
    all.push(of_envoy("Envoy, plain proxying", Role::Proxies, envoy));
    // By default the filter's own memory takes no entry of a whole MiB, and keeps none for as long as
    // a run takes.
    let filter = EnvoyPlan::new(&url)
        .plugin("hot_entry_bytes_max", 4 << 20)
        .plugin("hot_ttl_seconds", 3600);
    let envoy = cores.on_server(filter.start()).await;
    all.push(of_envoy("Envoy with our filter", Role::Caches, envoy));
    Ok(all)
}

fn of_envoy(name: &'static str, role: Role, envoy: Envoy) -> Contender {
    Contender {
        name,
        role,
        address: envoy.url.trim_start_matches("http://").to_owned(),
        roots: vec![envoy.pid().as_raw_nonzero().get().unsigned_abs()],
        _running: Box::new(envoy),
    }
}

/// An Envoy that answers each kind of work by itself.
///
/// `direct_response` is the minimum of work of Envoy. It stands behind the buffer filter,
/// because Envoy closes the connection when a body arrives that no filter has read.
async fn direct(provider: &str) -> Envoy {
    const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    let routes: Vec<Value> = Work::all().iter().filter_map(direct_route).collect();
    let plan = EnvoyPlan::plain(provider).edit(move |config: &mut Value| {
        let table = config
            .pointer_mut(&format!("{MANAGER}/route_config"))
            .and_then(Value::as_object_mut)
            .expect("routes");
        table.insert("max_direct_response_body_size_bytes".into(), json!(4 << 20));
        let hosts = table.get_mut("virtual_hosts").expect("hosts");
        hosts[0]["routes"] = routes.into();
        let filters = config
            .pointer_mut(&format!("{MANAGER}/http_filters"))
            .and_then(Value::as_array_mut)
            .expect("filters");
        let kind = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer";
        let buffer = json!({
            "name": "buffer",
            "typed_config": {"@type": kind, "max_request_bytes": 1 << 20},
        });
        filters.insert(0, buffer);
    });
    plan.start().await
}

fn direct_route(work: &Work) -> Option<Value> {
    let Answer::Bytes(bytes) = &work.answer else {
        return None;
    };
    let agent = json!({"name": "user-agent", "string_match": {"exact": work.agent}});
    let content_type = json!({"key": "content-type", "value": work.content_type()});
    Some(json!({
        "match": {"prefix": "/", "headers": [agent]},
        "response_headers_to_add": [
            {"header": content_type, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        ],
        "direct_response": {
            "status": 200,
            "body": {"inline_string": String::from_utf8_lossy(bytes)},
        },
    }))
}

async fn nginx(provider: &str) -> Result<Contender, String> {
    let folder = folder()?;
    let address = free_address();
    let file = folder.path().join("nginx.conf");
    let config = include_str!("nginx.conf")
        .replace("@FOLDER@", &folder.path().to_string_lossy())
        .replace("@PROVIDER@", provider)
        .replace("@LISTEN@", &address);
    fs::write(&file, config).map_err(|error| error.to_string())?;
    let mut command = program("nginx")?;
    command.arg("-p").arg(folder.path()).arg("-c").arg(&file);
    // nginx, started by root, changes to a user without access to the folder.
    if rustix::process::geteuid().is_root() {
        command.args(["-g", "user root root;"]);
    }
    let program = Program::start(&mut command, &address, folder.path()).await?;
    Ok(Contender {
        name: "nginx, proxy_cache",
        role: Role::Caches,
        address,
        roots: vec![program.id()],
        _running: Box::new((program, folder)),
    })
}

async fn varnish(provider: &str) -> Result<Contender, String> {
    let folder = folder()?;
    let address = free_address();
    let file = folder.path().join("varnish.vcl");
    let (host, port) = provider
        .split_once(':')
        .ok_or("a provider without a port")?;
    let config = include_str!("varnish.vcl")
        .replace("@HOST@", host)
        .replace("@PORT@", port);
    fs::write(&file, config).map_err(|error| error.to_string())?;
    let mut command = program("varnishd")?;
    command
        // In the foreground, as a child of the benchmark, without a console and as this user.
        .args(["-F", "-T", "none", "-j", "none"])
        .arg("-n")
        .arg(folder.path().join("work"))
        .arg("-f")
        .arg(&file)
        .args(["-a", &address])
        // Memory of its own, the fastest storage that it has.
        .args(["-s", "malloc,1g"])
        // One pool for the one core that each server gets. A thread serves one request; 1,000 wait
        // for the provider in one measurement, and as many for the rest of a body.
        .args(["-p", "thread_pools=1"])
        .args(["-p", "thread_pool_min=100"])
        .args(["-p", "thread_pool_max=3000"])
        // No connection of a client is closed while it is measured.
        .args(["-p", "timeout_idle=600"])
        // Lines of the log that no program reads: all that can be left out.
        .args(["-p", &format!("vsl_mask={VARNISH_LOG}")])
        // Debian's compiler may be missing; Rust's linker is there under this name.
        .args(["-p", "cc_command=exec cc -fpic -shared -O2 -w -o %o %s"]);
    if let Some(modules) = library("varnish/vmods") {
        command
            .arg("-p")
            .arg(format!("vmod_path={}", modules.display()));
    }
    let program = Program::start(&mut command, &address, folder.path()).await?;
    Ok(Contender {
        name: "Varnish",
        role: Role::Caches,
        address,
        roots: vec![program.id()],
        _running: Box::new((program, folder)),
    })
}

/// Names of what Varnish notes of each request; one that is masked is not written to shared memory.
const VARNISH_LOG: &str = "-ReqMethod,-ReqURL,-ReqProtocol,-ReqHeader,-ReqUnset,-ReqStart,-ReqAcct,\
    -RespProtocol,-RespStatus,-RespReason,-RespHeader,-RespUnset,-VCL_call,-VCL_return,-VCL_use,\
    -Timestamp,-Hit,-HitMiss,-Filters,-Storage,-SessOpen,-SessClose,-Begin,-End,-Link";

/// A temporary folder, in memory if the system has one there.
fn folder() -> Result<TempDir, String> {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.map_err(|error| error.to_string())
}

/// What `cargo xtask bench peers` has unpacked.
fn unpacked() -> Option<PathBuf> {
    env::var_os("REFLEX_PEERS").map(PathBuf::from)
}

/// An unpacked program, or the system's, with the libraries that were unpacked.
pub(crate) fn program(name: &str) -> Result<Command, String> {
    let folders = unpacked().map(|root| root.join("usr/sbin"));
    let mut folders = folders.into_iter().chain(["/usr/sbin".into()]);
    let path = folders
        .find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()))
        .ok_or_else(|| {
            format!("{name} is missing: run `cargo xtask bench peers`, which gets it")
        })?;
    let mut command = Command::new(path);
    if let Some(libraries) = library("") {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    Ok(command)
}

/// A folder among the unpacked libraries, which lie below the name of the architecture.
fn library(name: &str) -> Option<PathBuf> {
    let folders = fs::read_dir(unpacked()?.join("usr/lib")).ok()?;
    let mut folders = folders.filter_map(|entry| Some(entry.ok()?.path().join(name)));
    folders.find(|path| path.to_string_lossy().contains("-linux-gnu") && path.is_dir())
}
