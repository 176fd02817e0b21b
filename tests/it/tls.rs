//! TLS of clients, operators and the provider, with `openssl s_client`, curl and certificates of each kind.

mod bounds;
mod clients;
mod provider;
mod renewal;
mod server;

use reflex_tests::authority::Authority;
use reflex_tests::client::{Ask, Client};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::tls::{self, Pair, trusting};
use reflex_tests::upstream::Upstream;
use reflex_tests::within;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// An edge with a certificate of this authority, and this configuration.
async fn edge(authority: &Authority, upstream: &Upstream, config: &str) -> Edge {
    let plan = Plan::new(&upstream.url()).config(config);
    plan.tls(&authority.sign_server(), &authority.ca())
        .start()
        .await
}

/// A new client that trusts the authority and shows this certificate.
fn client(edge: &Edge, authority: &Authority, own: Option<&Pair>) -> Client {
    Client::tls(&edge.url, trusting(Some(&authority.ca()), own, &[]))
}

/// Whether a program ended well, and what it said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    text: String,
}

async fn run(command: &mut Command) -> Said {
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = within("the end of a program", running)
        .await
        .expect("a program that is installed");
    let [out, err] =
        [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    Said {
        code: output.status.code(),
        text: out + &err,
    }
}

/// `openssl s_client` with these arguments, which ends after the handshake.
async fn s_client(url: &str, ca: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-verify_return_error",
        "-servername",
        "localhost",
    ]);
    command.args(["-connect", url.trim_start_matches("https://"), "-CAfile"]);
    run(command.arg(ca).args(arguments)).await
}

/// curl with these arguments.
async fn curl(url: &str, ca: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--noproxy", "*", "--cacert"]);
    run(command.arg(ca).args(arguments).arg(url)).await
}
