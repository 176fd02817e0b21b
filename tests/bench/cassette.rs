//! How long a large cassette takes to load.

use crate::{ROUNDS, median, report};
use reflex_host::cassette::{Cassette, Options};
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Exchanges of the cassette: an evaluation's, not a test's.
const EXCHANGES: usize = 10_000;

pub(crate) fn run() -> ExitCode {
    println!("a cassette");
    let folder = tempfile::tempdir().expect("a folder");
    for number in 1..=EXCHANGES {
        write(folder.path(), number);
    }
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let rounds = (0..ROUNDS).map(|_| {
        let began = Instant::now();
        let cassette = runtime.block_on(Cassette::start(Options::replay(folder.path())));
        let took = began.elapsed().as_secs_f64() * 1e3;
        let report = runtime.block_on(cassette.expect("a cassette").finish());
        assert_eq!(report.recordings, EXCHANGES);
        took
    });
    let took = median(rounds.collect());
    report(&format!("loading {EXCHANGES} exchanges"), took, "ms");
    ExitCode::SUCCESS
}

/// Half of the answers are streams, of a hundred events.
fn write(folder: &Path, number: usize) {
    let answer = match number % 2 {
        0 => {
            r#""json": {"choices": [{"message": {"content": "Rayleigh scattering."}}]}"#.to_owned()
        }
        _ => {
            let event =
                r#"{ "after_ms": 20, "json": {"choices":[{"delta":{"content":" word"}}]} }"#;
            format!("\"events\": [{}]", vec![event; 100].join(",\n"))
        }
    };
    let file = format!(
        r#"{{
  "cassette": 1,
  "request": {{
    "method": "POST",
    "path": "/v1/chat/completions",
    "json": {{"messages": [{{"content": "Question {number}?", "role": "user"}}], "model": "m"}}
  }},
  "answer": {{ "status": 200, {answer} }}
}}
"#
    );
    let name = format!("{number:04}-chat-completions-00000000.json");
    fs::write(folder.join(name), file).expect("a file");
}
