//! So many requests, one after the other, for a server whose instructions are counted: `bench ask ADDRESS
//! REQUESTS`. `docs/figures.md` says how.

use crate::load::{Connection, in_time};
use crate::work::Work;
use std::process::ExitCode;

/// Kept connections, which take turns.
const CONNECTIONS: usize = 4;

pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let [address, requests] = arguments else {
        eprintln!("bench: `ask` takes an address and a number of requests");
        return ExitCode::from(2);
    };
    let Ok(requests) = requests.parse() else {
        eprintln!("bench: {requests} is no number of requests");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    match runtime.block_on(ask(address, requests)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: a request failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn ask(address: &str, requests: usize) -> std::io::Result<()> {
    let request = Work::named("4 KiB").request(0);
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(address).await?);
    }
    for number in 0..requests {
        let connection = &mut connections[number % CONNECTIONS];
        in_time(connection.ask(&request, |_| ())).await?;
    }
    Ok(())
}
