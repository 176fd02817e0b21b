//! The official clients for Python, of OpenAI, Anthropic and Google, in front of the real binary:
//! as users run them.
//!
//! The scripts stand in `tests/python`; each checks what its client sees, and the test checks
//! what the provider saw.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use http::Method;
use reflex_tests::client::{Ask, Client};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::tls::{CA, Pair};
use reflex_tests::upstream::Upstream;
use reflex_tests::within;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A script that runs.
pub(crate) struct Script {
    name: &'static str,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Script {
    pub(crate) fn start(name: &'static str, url: &str) -> Self {
        Self::start_with(name, url, &[])
    }

    /// With more arguments.
    pub(crate) fn start_with(name: &'static str, url: &str, arguments: &[&str]) -> Self {
        Self::start_in(name, url, arguments, &[])
    }

    /// With more variables in its environment.
    pub(crate) fn start_in(
        name: &'static str,
        url: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
        let mut child = Command::new(python())
            .arg(folder.join(name))
            .arg(url)
            .args(arguments)
            .envs(environment.iter().copied())
            // Neither a proxy of the machine's nor files in the checkout.
            .env("NO_PROXY", "127.0.0.1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python can be started");
        let stdout = child.stdout.take().expect("its stdout");
        Self {
            name,
            child,
            lines: BufReader::new(stdout).lines(),
        }
    }

    /// Waits until the script says this line.
    async fn says(&mut self, line: &str) {
        assert_eq!(self.line().await.as_deref(), Some(line), "{}", self.name);
    }

    /// The next line that it says; none if it has ended.
    pub(crate) async fn line(&mut self) -> Option<String> {
        within(self.name, self.lines.next_line())
            .await
            .expect("text")
    }

    /// Waits for the end of the script, which must be a success.
    pub(crate) async fn ends(mut self) {
        let status = within(self.name, self.child.wait())
            .await
            .expect("an exit status");
        assert!(status.success(), "{}: {status}", self.name);
    }
}

/// The interpreter that has the clients.
pub(crate) fn python() -> PathBuf {
    let path = env::var_os("REFLEX_PYTHON").map_or_else(
        || {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
            workspace.join(target).join("python/bin/python")
        },
        PathBuf::from,
    );
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask test`",
        path.display()
    );
    path
}

/// As with any other server, the client gets the operator's CA from the environment.
#[tokio::test]
async fn the_same_completion_twice_over_tls_is_one_call() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream.url()).tls(&Pair::of_provider(), Path::new(CA));
    let edge = plan.start().await;
    assert!(edge.url.starts_with("https://"), "{}", edge.url);
    for script in ["same_completion_twice.py", "same_stream_twice.py"] {
        let trusts = [("SSL_CERT_FILE", CA)];
        Script::start_in(script, &edge.url, &[], &trusts)
            .ends()
            .await;
    }
    assert_eq!(upstream.call_count(), 3);
}

#[tokio::test]
async fn the_same_completion_twice_is_one_call() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    Script::start("same_completion_twice.py", &edge.url)
        .ends()
        .await;
    assert_eq!(upstream.call_count(), 1);
}

/// BerriAI/litellm#11145: a replay was one aggregated chunk. tensorzero/tensorzero#1791: a streamed
/// hit had no usage chunk.
#[tokio::test]
async fn the_same_stream_twice_is_one_call_and_the_same_chunks_with_usage() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    Script::start("same_stream_twice.py", &edge.url)
        .ends()
        .await;
    // With and without usage.
    assert_eq!(upstream.call_count(), 2);
}

/// Plain and streamed, each asked for twice.
async fn check_two_calls(script: &'static str) {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    Script::start(script, &edge.url).ends().await;
    assert_eq!(upstream.call_count(), 2, "{script}");
}

/// BerriAI/litellm#24579: streamed responses were not cached.
#[tokio::test]
async fn the_same_response_plain_or_streamed_twice_is_one_call() {
    check_two_calls("responses_twice.py").await;
}

/// BerriAI/litellm#25653: Anthropic's `/v1/messages` was not cached.
#[tokio::test]
async fn the_same_message_of_anthropics_sdk_twice_is_one_call() {
    check_two_calls("anthropic_twice.py").await;
}

#[tokio::test]
async fn the_same_request_of_googles_sdk_twice_is_one_call() {
    check_two_calls("genai_twice.py").await;
}

/// BerriAI/litellm#41799 and #29284: such a batch got wrong vectors or indexes.
#[tokio::test]
async fn a_batch_of_which_part_is_cached_gets_right_vectors_and_indexes() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    Script::start("embedding_batches.py", &edge.url)
        .ends()
        .await;
    let asked: Vec<_> = upstream
        .calls()
        .iter()
        .map(|call| serde_json::from_slice::<Value>(&call.body).expect("JSON")["input"].clone())
        .collect();
    let each_way = [
        json!("alpha"),
        json!(["beta", "gamma delta", "epsilon"]),
        json!(["new", "newer text"]),
    ];
    assert_eq!(asked, [each_way.clone(), each_way].concat());
}

#[tokio::test]
async fn the_first_chunk_of_a_slow_stream_arrives_before_the_last_was_sent() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let mut script = Script::start("slow_stream.py", &edge.url);
    // The role and the first token; the rest waits for the script to have seen them.
    upstream.release(2);
    script.says("first chunk").await;
    upstream.release_all();
    script.says("last chunk").await;
    script.ends().await;
}

/// The configuration of a request is the one of its beginning, however many come after it.
#[tokio::test]
async fn a_stream_goes_on_through_reloads_and_is_kept_for_the_configuration_it_began_with() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream.url()).config(&namespace("first"));
    let edge = plan.start().await;
    let mut script = Script::start("slow_stream.py", &edge.url);
    upstream.release(2);
    script.says("first chunk").await;
    for other in ["second", "third"] {
        edge.reload(&namespace(other), "applied").await;
    }
    upstream.release_all();
    script.says("last chunk").await;
    script.ends().await;
    edge.recorded(1, 0).await;
    // The provider holds nothing back any more.
    Script::start("slow_stream.py", &edge.url).ends().await;
    assert_eq!(upstream.call_count(), 2, "another namespace");
    edge.reload(&namespace("first"), "applied").await;
    Script::start("slow_stream.py", &edge.url).ends().await;
    assert_eq!(upstream.call_count(), 2, "its own namespace");
}

#[tokio::test]
async fn no_client_notices_reloads_under_load() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url())
        .config(&namespace("0"))
        .start()
        .await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stop = folder.path().join("stop");
    let stop_path = stop.to_str().expect("a path of letters");
    let mut script = Script::start_with("reloads.py", &edge.url, &[stop_path]);
    let answered = async || edge.metrics().await.sum("reflex_requests_total", &[]);
    for turn in 0..10 {
        // Each configuration has requests of its own, and some that outlive it.
        let before = answered().await;
        edge.until("requests of this configuration", |metrics| {
            metrics.sum("reflex_requests_total", &[]) > before + 15.0
        })
        .await;
        let config = format!(
            "{}samples = {}\n",
            namespace(&(turn % 3).to_string()),
            turn % 2 + 1
        );
        if turn % 2 == 0 {
            edge.reload(&config, "applied").await;
        } else {
            std::fs::write(edge.config_file(), config).expect("a configuration file");
            let ask = Ask::new(Method::POST, "/v1/reload", "").key(Some(&edge.token()));
            let answer = Client::new(&edge.admin_url).fetch(ask).await;
            assert_eq!(answer.status, 200, "{:?}", answer.body);
        }
    }
    std::fs::write(&stop, "").expect("a file");
    let count = script
        .line()
        .await
        .and_then(|line| line.parse::<u32>().ok());
    script.ends().await;
    let metrics = edge.metrics().await;
    let applied = metrics.sum("reflex_config_reloads_total", &[("outcome", "applied")]);
    assert_eq!(applied as u32, 10);
    let of = |status| metrics.sum("reflex_requests_total", &[("status", status)]) as u32;
    let (hits, misses) = (of("HIT_L1_EXACT"), of("MISS"));
    assert_eq!(Some(hits + misses), count, "{metrics:#?}");
    assert!(hits > 0 && misses > 0);
}

fn namespace(name: &str) -> String {
    format!("namespace = \"{name}\"\n")
}

#[tokio::test]
async fn another_api_key_gets_its_own_answer() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    Script::start("two_keys.py", &edge.url).ends().await;
    assert_eq!(upstream.call_count(), 2);
}

#[tokio::test]
async fn fifty_concurrent_prompts_are_not_mixed_up() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    Script::start("many_at_once.py", &edge.url).ends().await;
    assert_eq!(upstream.call_count(), 50);
}

#[tokio::test]
async fn errors_reach_the_client_as_its_own_exceptions() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let mut script = Script::start("errors.py", &edge.url);
    script.says("stop the provider").await;
    upstream.stop().await;
    script.ends().await;
}
