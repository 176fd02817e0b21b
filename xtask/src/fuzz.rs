//! The fuzz targets of `tests/fuzz`: built with a fuzzer's flags, started with the inputs of
//! `tests/vectors` and `tests/fuzz/answers`, and run for a bounded time in bounded memory.
//!
//! It needs only the compiler of all other parts and a C++ compiler; `cargo fuzz` works in that
//! folder too.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Error, Result, bail};
use reflex_skip::Skips;
use serde_json::Value;

use crate::machine::{CXX, any_in_path};
use crate::workspace::{cargo, say, step};

/// Every target, the slow ones first.
const TARGETS: [&str; 7] = [
    "recover",
    "recorder",
    "classify",
    "canonical_json",
    "sse",
    "contents_decode",
    "record_decode",
];

/// Targets that run at once.
const AT_ONCE: usize = 2;

/// How long each runs unless told otherwise.
pub(crate) const SECONDS: u64 = 60;

/// The same within the tests, which have an hour for everything.
const TEST_SECONDS: u64 = 15;

/// Upper bounds: the length of inputs, the memory in MiB, the seconds for an input.
const BOUNDS: [&str; 3] = ["-max_len=16384", "-rss_limit_mb=2048", "-timeout=20"];

/// Compiler flags: coverage of branches and comparisons for the fuzzer, and every access to memory
/// checked. `cargo fuzz` uses the same.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Zsanitizer=address";

/// Runs one target, or all of them, for `seconds` each.
///
/// # Errors
///
/// The target does not exist, this machine cannot build it, or it has found something: the text
/// names the file of the input.
pub(crate) fn fuzz(target: Option<&str>, seconds: u64) -> Result<()> {
    if let Err(why) = able() {
        bail!("fuzz targets cannot be built here: {why}");
    }
    run(target, seconds)
}

/// The same for the tests, which may skip them where they cannot be built.
///
/// # Errors
///
/// As of [`fuzz`].
pub(crate) fn fuzz_if_able(skips: Skips) -> Result<()> {
    match able() {
        Ok(()) => run(None, TEST_SECONDS),
        Err(why) => skips.skip("fuzz targets", &why).map_err(Error::msg),
    }
}

fn run(target: Option<&str>, seconds: u64) -> Result<()> {
    let targets: Vec<&str> = match target {
        Some(target) => TARGETS.iter().copied().filter(|it| *it == target).collect(),
        None => TARGETS.to_vec(),
    };
    if targets.is_empty() {
        bail!("no such target; the targets are {}", TARGETS.join(", "));
    }
    let folder = build()?;
    seed()?;
    for some in targets.chunks(AT_ONCE) {
        let running: Vec<Running> = some
            .iter()
            .map(|target| Running::start(&folder, target, seconds))
            .collect::<Result<_>>()?;
        for run in running {
            run.end()?;
        }
    }
    Ok(())
}

/// Checks that the compiler knows the flags, and that a C++ compiler exists, for the fuzzer.
fn able() -> Result<(), String> {
    if env::var_os("CXX").is_none() && !any_in_path(&CXX) {
        return Err("no C++ compiler: get one (on Debian: `apt-get install g++`)".into());
    }
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let source = folder.path().join("main.rs");
    fs::write(&source, "fn main() {}").map_err(|error| error.to_string())?;
    let output = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args([
            "--crate-type",
            "rlib",
            "--emit",
            "obj",
            "--crate-name",
            "able",
        ])
        .args(FLAGS.split_whitespace())
        .arg(source)
        .current_dir(folder.path())
        .env("RUSTC_BOOTSTRAP", "1")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("rustc cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or_default();
    Err(format!("this compiler has no such sanitizers: {first}"))
}

/// The folder of programs, inputs and findings.
fn home() -> PathBuf {
    reflex_guest_build::target_dir().join("fuzz")
}

/// Builds all targets and returns the folder with the programs.
fn build() -> Result<PathBuf> {
    let host = host()?;
    let manifest = reflex_guest_build::workspace().join("tests/fuzz/Cargo.toml");
    let build = [
        "build",
        "--release",
        "--locked",
        "--bins",
        "--target",
        &host,
    ];
    step(
        cargo(&build)
            .arg("--manifest-path")
            .arg(manifest)
            .arg("--target-dir")
            .arg(home())
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", FLAGS),
    )?;
    Ok(home().join(host).join("release"))
}

/// The machine's own target: if it is named, the flags do not apply to build scripts.
fn host() -> Result<String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .stdin(Stdio::null())
        .output()
        .context("rustc cannot be run")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not tell its host")?.to_owned())
}

fn seeds_of(target: &str) -> PathBuf {
    home().join("seeds").join(target)
}

/// Writes the first inputs of the targets: the requests of the key vectors, and the answers.
fn seed() -> Result<()> {
    for target in TARGETS {
        let folder = seeds_of(target);
        fs::create_dir_all(&folder)
            .with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    let tests = reflex_guest_build::workspace().join("tests");
    for (file, text) in files(&tests.join("vectors"), "json")? {
        let vectors: Value = serde_json::from_str(&text).with_context(|| file.clone())?;
        let cases = vectors["cases"].as_array().into_iter().flatten();
        for (number, case) in cases.enumerate() {
            let Some(body) = case["request"]["body"].as_str() else {
                continue;
            };
            let name = format!("{file}-{number}");
            write("classify", &name, &request(case, body))?;
            write("canonical_json", &name, body)?;
        }
    }
    for (name, text) in files(&tests.join("fuzz/answers"), "txt")? {
        write("recorder", &name, &text)?;
        if let Some((_, body)) = text.split_once('\n') {
            write("sse", &name, body)?;
        }
    }
    Ok(())
}

/// A case of the vectors as the target `classify` reads it.
fn request(case: &Value, body: &str) -> String {
    let (request, policy) = (&case["request"], &case["policy"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let flags = u8::from(policy["anonymous"] == "share")
        + 2 * u8::from(policy["tenant_header"].is_string());
    let mut seed = format!(
        "{flags} {} {}\n",
        text(&request["method"]),
        text(&request["path"])
    );
    for header in request["headers"].as_array().into_iter().flatten() {
        seed.push_str(&format!("{}: {}\n", text(&header[0]), text(&header[1])));
    }
    seed + "\n" + body
}

/// The files of a folder that end so, by name without the end.
fn files(folder: &Path, end: &str) -> Result<Vec<(String, String)>> {
    let failed = || format!("{} cannot be read", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        if path.extension().is_some_and(|it| it == end) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let text = fs::read_to_string(&path).with_context(failed)?;
            found.push((name.into_owned(), text));
        }
    }
    Ok(found)
}

fn write(target: &str, name: &str, seed: &str) -> Result<()> {
    let path = seeds_of(target).join(name);
    fs::write(&path, seed).with_context(|| format!("{} cannot be written", path.display()))
}

/// A target that runs.
struct Running {
    target: String,
    child: Child,
    log: PathBuf,
    found: PathBuf,
    start: Instant,
}

impl Running {
    fn start(programs: &Path, target: &str, seconds: u64) -> Result<Self> {
        let (corpus, found) = (home().join("corpus"), home().join("found"));
        let (corpus, found) = (corpus.join(target), found.join(target));
        for folder in [&corpus, &found] {
            fs::create_dir_all(folder)
                .with_context(|| format!("{} cannot be made", folder.display()))?;
        }
        let log = found.join("log.txt");
        let output =
            fs::File::create(&log).with_context(|| format!("{} cannot be made", log.display()))?;
        say(&format!("fuzz: {target} for {seconds} s"));
        let child = Command::new(programs.join(target))
            .arg(corpus)
            .arg(seeds_of(target))
            .args(BOUNDS)
            .arg(format!("-max_total_time={seconds}"))
            .arg("-print_final_stats=1")
            .arg(format!("-artifact_prefix={}/", found.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .with_context(|| format!("{target} cannot be started"))?;
        Ok(Self {
            target: target.into(),
            child,
            log,
            found,
            start: Instant::now(),
        })
    }

    fn end(mut self) -> Result<()> {
        let status = self.child.wait().context("a target that ran is gone")?;
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        if !status.success() {
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(60)..];
            bail!(
                "fuzz: {} has found something ({status}): the input is in {}, {} says what\n{}",
                self.target,
                self.found.display(),
                self.log.display(),
                last.join("\n")
            );
        }
        let inputs = log
            .lines()
            .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
        say(&format!(
            "fuzz: {}: nothing found by {} inputs in {:.0} s",
            self.target,
            inputs.unwrap_or("?").trim(),
            self.start.elapsed().as_secs_f32()
        ));
        Ok(())
    }
}

/// Ends a target that is not waited for, because another one has found something.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
