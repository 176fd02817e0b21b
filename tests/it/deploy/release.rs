//! What is published: crates, the files of a release, and their licences.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;

use reflex_tests::{edge, envoy};
use serde_json::Value;

use super::*;

/// The crates that are published: the cache with its daemon, and what it is made of.
const PUBLISHED: [&str; 6] = [
    "reflex-llm",
    "reflex-settings",
    "reflex-envoy-config",
    "reflex-envoy-check",
    "reflex-guest-build",
    "reflex-host",
];

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

async fn packages(arguments: &[&str]) -> Vec<Value> {
    let mut metadata = cargo();
    metadata.args(["metadata", "--offline", "--format-version", "1"]);
    let output = run(metadata.args(arguments)).await;
    assert!(output.status.success(), "{output:?}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().expect("a name")
}

/// An empty list of registries is `publish = false`.
fn is_published(package: &Value) -> bool {
    package["publish"]
        .as_array()
        .is_none_or(|to| !to.is_empty())
}

#[tokio::test]
async fn what_is_published_says_what_it_is_and_needs_nothing_that_is_not() {
    let packages = packages(&["--no-deps"]).await;
    let published = || packages.iter().filter(|package| is_published(package));
    let names: BTreeSet<&str> = published().map(name).collect();
    assert_eq!(names, BTreeSet::from(PUBLISHED));
    for package in published() {
        for field in ["description", "license", "readme", "rust_version"] {
            assert!(package[field].is_string(), "{}: {field}", name(package));
        }
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let needed = name(dependency);
            // Those of tests have no version, and are left out.
            if dependency["path"].is_string() && dependency["kind"] != "dev" {
                assert_eq!(
                    dependency["req"],
                    format!("^{}", env!("CARGO_PKG_VERSION")),
                    "{needed}"
                );
                assert!(names.contains(needed), "{}: {needed}", name(package));
            }
        }
    }
}

/// `cargo publish` would upload these. They are not compiled: that takes minutes.
#[tokio::test]
async fn the_packages_of_the_crates_can_be_made() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut package = cargo();
    package.args([
        "package",
        "--no-verify",
        "--offline",
        "--allow-dirty",
        "--quiet",
        "--target-dir",
    ]);
    package.arg(folder.path());
    for name in PUBLISHED {
        package.args(["-p", name]);
    }
    succeeds(&mut package).await;
    let made = folder.path().join("package");
    for name in PUBLISHED {
        let file = made.join(format!("{name}-{}.crate", env!("CARGO_PKG_VERSION")));
        let listed = succeeds(Command::new("tar").arg("-tzf").arg(&file)).await;
        let has = |path: &str| listed.lines().any(|line| line.ends_with(path));
        assert!(has("/Cargo.toml") && has("/README.md"), "{listed}");
        // What the host reads outside its sources comes along through links.
        let needs = [
            "/docs/reasons.md",
            "/wit/cache.wit",
            "/wit/deps/wasi-http-0.3.0/package.wit",
        ];
        if name == "reflex-host" {
            assert!(needs.into_iter().all(has), "{listed}");
        }
    }
}

#[tokio::test]
async fn a_release_has_all_files_and_their_checksums() {
    let [one, two] = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
    let filter = envoy::filter();
    let wasm = filter.parent().expect("a folder");
    // The lean build of a developer has no components.
    let wasm_files = [
        "reflex-envoy.core",
        "reflex-middleware",
        "reflex-policy",
        "reflex-keyvalue",
    ];
    let modules = tempfile::tempdir().expect("a temporary folder");
    for module in wasm_files.map(|module| format!("{module}.wasm")) {
        let from = Some(wasm.join(&module)).filter(|path| path.exists());
        let from = from.unwrap_or_else(|| filter.clone());
        fs::copy(from, modules.path().join(module)).expect("a copy");
    }
    // A program with line tables takes minutes to compress. This one is short, and is the same to the script.
    let program = modules.path().join("reflex-edge");
    let calls = format!("#!/bin/sh\nexec '{}' \"$@\"\n", edge::binary().display());
    fs::write(&program, calls).expect("a script");
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&program, executable).expect("a mode");
    for folder in [&one, &two] {
        let mut release = Command::new("deploy/release.sh");
        release.arg("1.2.3").arg(folder.path());
        release.env("REFLEX_EDGE_BIN", &program);
        succeeds(release.env("REFLEX_WASM", modules.path())).await;
    }
    let sums = fs::read_to_string(one.path().join("SHA256SUMS")).expect("sums");
    let again = fs::read_to_string(two.path().join("SHA256SUMS")).expect("sums");
    assert_eq!(sums, again, "the same files make the same archives");
    let mut verify = Command::new("sha256sum");
    let verify = verify.args(["--check", "--strict", "SHA256SUMS"]);
    let output = verify
        .current_dir(one.path())
        .output()
        .await
        .expect("sha256sum");
    assert!(output.status.success(), "{output:?}");
    let files: BTreeSet<&str> = sums
        .lines()
        .filter_map(|line| line.split("  ").nth(1))
        .collect();
    let expected = [
        "reflex-cache-wit-1.2.3.tar.gz",
        "reflex-edge-1.2.3-x86_64-linux.tar.gz",
        "reflex-edge-chart-1.2.3.tgz",
        "reflex-envoy.core-1.2.3.wasm",
        "reflex-keyvalue-1.2.3.wasm",
        "reflex-middleware-1.2.3.wasm",
        "reflex-policy-1.2.3.wasm",
    ];
    assert_eq!(files, BTreeSet::from(expected));
    let archive = one.path().join("reflex-edge-1.2.3-x86_64-linux.tar.gz");
    let listed = succeeds(Command::new("tar").arg("-tzf").arg(archive)).await;
    for path in [
        "bin/reflex-edge",
        "man/man1/reflex-edge-serve.1",
        "completions/reflex-edge.zsh",
        "systemd/reflex-edge.socket",
        "LICENSE-MIT",
    ] {
        assert!(listed.contains(&format!("/{path}\n")), "{listed}");
    }
}

/// The workflow's own lines name scripts, files and crates that exist.
#[test]
fn the_workflow_of_a_release_publishes_these_crates() {
    let text = file(".github/workflows/release.yml");
    let workflow: Value = serde_yaml_ng::from_str(&text).expect("YAML");
    let job = &workflow["jobs"]["release"];
    assert_eq!(workflow["permissions"], Value::Object(Default::default()));
    let steps = job["steps"].as_array().expect("steps");
    let lines: Vec<&str> = steps
        .iter()
        .filter_map(|step| step["run"].as_str())
        .collect();
    assert_eq!(lines.len(), steps.len(), "no code of others");
    let lines = lines.join("\n");
    for script in [".ci/run", "deploy/release.sh"] {
        assert!(
            lines.contains(script) && root().join(script).exists(),
            "{script}"
        );
    }
    let publish = lines.lines().find(|line| line.contains("cargo publish"));
    let words: Vec<&str> = publish.expect("cargo publish").split(' ').collect();
    let named = words
        .windows(2)
        .filter(|pair| pair[0] == "-p")
        .map(|pair| pair[1]);
    assert_eq!(named.collect::<BTreeSet<_>>(), BTreeSet::from(PUBLISHED));
}

/// Whether an expression of SPDX is satisfied by these licences.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words: Vec<&str> = spaced.split_whitespace().rev().collect();
    let is_one = either(&mut words, allowed);
    assert!(words.is_empty(), "{expression}");
    is_one
}

fn either(words: &mut Vec<&str>, allowed: &[String]) -> bool {
    let mut is_one = both(words, allowed);
    while words.pop_if(|word| *word == "OR").is_some() {
        is_one |= both(words, allowed);
    }
    is_one
}

fn both(words: &mut Vec<&str>, allowed: &[String]) -> bool {
    let mut are_all = single(words, allowed);
    while words.pop_if(|word| *word == "AND").is_some() {
        are_all &= single(words, allowed);
    }
    are_all
}

fn single(words: &mut Vec<&str>, allowed: &[String]) -> bool {
    let word = words.pop().expect("a licence");
    if word == "(" {
        let inner = either(words, allowed);
        assert_eq!(words.pop(), Some(")"));
        return inner;
    }
    let exception = words
        .pop_if(|word| *word == "WITH")
        .and_then(|_| words.pop());
    let licence = match exception {
        Some(exception) => format!("{word} WITH {exception}"),
        None => word.to_owned(),
    };
    allowed.contains(&licence)
}

#[test]
fn expressions_of_licences_are_read() {
    let allowed = ["MIT", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
    let check = |expression: &str, is: bool| {
        assert_eq!(is_allowed(expression, &allowed), is, "{expression}");
    };
    check("MIT", true);
    check("GPL-3.0", false);
    check("GPL-3.0 OR MIT", true);
    check("GPL-3.0/MIT", true);
    check("GPL-3.0 AND MIT", false);
    check("Apache-2.0", false);
    check("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true);
    check("(MIT OR GPL-3.0) AND GPL-2.0", false);
    check("(MIT OR GPL-3.0) AND MIT", true);
}

/// As `cargo deny check licenses` judges it, from the same list.
#[tokio::test]
async fn each_dependency_has_a_licence_that_is_allowed() {
    let deny = file("deny.toml");
    let list = deny.split_once("\nallow = [").expect("a list").1;
    let list = list.split(']').next().unwrap_or_default();
    let allowed: Vec<String> = list
        .split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect();
    assert!(allowed.len() > 3, "{allowed:?}");
    let linux = [
        "--all-features",
        "--filter-platform",
        "x86_64-unknown-linux-gnu",
    ];
    let packages = packages(&linux).await;
    assert!(packages.len() > 200, "{}", packages.len());
    for package in &packages {
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(
            is_allowed(licence, &allowed),
            "{}: {licence}",
            name(package)
        );
    }
    for licence in &allowed {
        let needed: Vec<String> = allowed
            .iter()
            .filter(|it| *it != licence)
            .cloned()
            .collect();
        let all = packages.iter().filter_map(|it| it["license"].as_str());
        let is_needed = all.into_iter().any(|it| !is_allowed(it, &needed));
        let is_first_choice = ["MIT", "Apache-2.0"].contains(&licence.as_str());
        assert!(
            is_needed || is_first_choice,
            "{licence} is of no use any more"
        );
    }
}
