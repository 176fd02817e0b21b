//! Rules about the repository's own text, which a reviewer would otherwise repeat.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Longer files hold more than one noun.
const LINES_MAX: usize = 600;

/// Folders that are not ours, or not written by hand.
const SKIPPED: [&str; 6] = [
    ".git",
    "target",
    "reflex-data",
    "deps",
    "vectors",
    "__pycache__",
];

/// The hand-written modules with unsafe code: one maps files, the other takes what Envoy hands to the
/// filter, in a sandbox.
const UNSAFE_ALLOWED: [&str; 2] = ["host/src/store/mmap.rs", "envoy/wasm/src/abi.rs"];
/// And misdeeds of the tests' guests against a host, in a sandbox.
const UNSAFE_IN_GUESTS: &str = "tests/guests/hostile/src/excess.rs";

/// The required reason at any other place that lifts the ban on unsafe code.
const GENERATED: &str = "reason = \"generated code\"";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .expect("a workspace")
}

/// Every file of the repository with its path from the root, if it is text.
fn files() -> Vec<(String, String)> {
    let root = workspace();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            // In a worktree, `.git` is a file.
            if SKIPPED.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(&root).expect("a path in the workspace");
                found.push((path.to_string_lossy().into_owned(), text));
            }
        }
    }
    assert!(
        found.len() > 20,
        "the workspace was not found at {}",
        root.display()
    );
    found
}

fn rust_files() -> Vec<(String, String)> {
    files()
        .into_iter()
        .filter(|(path, _)| path.ends_with(".rs"))
        .collect()
}

/// Fails with every place where a line of `files` is wrong.
fn check(files: &[(String, String)], rule: &str, wrong: impl Fn(&str, &str) -> bool) {
    let places: Vec<String> = files
        .iter()
        .flat_map(|(path, text)| {
            let lines = text
                .lines()
                .enumerate()
                .filter(|(_, line)| wrong(path, line));
            lines
                .map(|(index, line)| format!("{path}:{}: {line}", index + 1))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(places.is_empty(), "{rule}:\n{}", places.join("\n"));
}

#[test]
fn files_are_short() {
    for (path, text) in rust_files() {
        let lines = text.lines().count();
        assert!(
            lines <= LINES_MAX,
            "{path} has {lines} lines, more than {LINES_MAX}"
        );
    }
}

#[test]
fn files_say_what_they_are_for() {
    for (path, text) in rust_files() {
        assert!(text.starts_with("//! "), "{path} does not open with `//!`");
    }
}

#[test]
fn modules_lie_beside_their_folders() {
    for (path, _) in rust_files() {
        assert!(
            !path.ends_with("/mod.rs"),
            "{path}: name it after its module"
        );
    }
}

#[test]
fn unsafe_has_few_addresses() {
    // In two pieces, or this file would break its own rule.
    let block = ["{", "fn", "impl", "trait", "extern"].map(|what| format!("{} {what}", "unsafe"));
    check(&rust_files(), "unsafe code", |path, line| {
        let code = line.split("//").next().unwrap_or_default();
        let lifts_ban = code.contains(concat!("unsafe", "_code"))
            && (code.contains("allow") || code.contains("expect"));
        !UNSAFE_ALLOWED.contains(&path)
            && path != UNSAFE_IN_GUESTS
            && (lifts_ban && !code.contains(GENERATED)
                || block.iter().any(|block| code.contains(block)))
    });
}

#[test]
fn the_cache_knows_neither_http_nor_wasm() {
    let core: Vec<_> = rust_files()
        .into_iter()
        .filter(|(path, _)| {
            path.starts_with("host/src/cache") || path.starts_with("host/src/store")
        })
        .collect();
    assert!(core.len() > 5, "the cache has moved");
    check(&core, "not the cache's business", |_, line| {
        ["http", "hyper", "wasmtime"]
            .iter()
            .any(|name| line.contains(&format!("use {name}")))
    });
}

/// A program that embeds the cache compiles only what it uses.
#[test]
fn features_keep_the_dependency_tree_small() {
    let packages = |features: &str| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let tree = std::process::Command::new(cargo)
            .args("tree --offline -p reflex-host -e normal --prefix none --format {p}".split(' '))
            .args(["--no-default-features", "--features", features])
            .current_dir(workspace())
            .output()
            .expect("cargo runs");
        assert!(tree.status.success(), "{tree:?}");
        String::from_utf8(tree.stdout).expect("text")
    };
    let check = |features: &str, without: &[&str]| {
        let tree = packages(features);
        assert!(tree.contains("reflex-llm"), "no tree: {tree}");
        for package in tree.lines().filter_map(|line| line.split(' ').next()) {
            assert!(!without.contains(&package), "`{features}` pulls {package}");
        }
    };
    check(
        "",
        &[
            "wasmtime", "hyper", "http", "tokio", "axum", "clap", "serde",
        ],
    );
    check(
        "component",
        &["wasmtime-wasi", "hyper", "http", "axum", "clap"],
    );
    check(
        "serve",
        &[
            "wasmtime",
            "wasmtime-wasi",
            "wasmtime-wasi-http",
            "cranelift-codegen",
        ],
    );
    check(
        "http",
        &[
            "axum",
            "clap",
            "hyper-rustls",
            "prometheus-client",
            "toml_edit",
        ],
    );
}

#[test]
fn what_runs_in_wasm_does_not_depend_on_the_host() {
    let manifests: Vec<_> = files()
        .into_iter()
        .filter(|(path, _)| path.ends_with("Cargo.toml"))
        .filter(|(path, _)| {
            ["llm/", "guest/", "envoy/", "tests/guests/"]
                .iter()
                .any(|part| path.starts_with(part))
        })
        .collect();
    assert!(manifests.len() >= 3, "the guests have moved");
    check(&manifests, "guests know no host", |_, line| {
        line.starts_with("reflex-host")
    });
}

#[test]
fn every_crate_obeys_the_lints_of_the_workspace() {
    for (path, text) in files() {
        if path.ends_with("/Cargo.toml") {
            assert!(
                text.contains("[lints]\nworkspace = true"),
                "{path} has lints of its own"
            );
        }
    }
}

#[test]
fn tests_wait_for_events_and_not_for_time() {
    let ours: Vec<_> = rust_files()
        .into_iter()
        .filter(|(path, _)| path.starts_with("tests/it/"))
        .collect();
    let sleep = concat!("sle", "ep(");
    check(&ours, "waits for time to pass", |_, line| {
        line.contains(sleep)
    });
}

/// A part that is skipped with a message of its own is skipped where no skip is allowed.
#[test]
fn every_skip_fails_where_nothing_may_be_skipped() {
    let word = concat!("skip", "ped:");
    check(&rust_files(), "skips by itself", |path, line| {
        line.contains(word)
            && path != "tests/skip/src/lib.rs"
            && path != "tests/compare/src/stores.rs"
    });
}

#[test]
fn nothing_speaks_of_the_machine_that_it_was_written_on() {
    let folders = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
    ];
    check(&files(), "a path of one machine", |_, line| {
        folders.iter().any(|folder| line.contains(folder))
    });
}

/// Each line of the list of cases has a test through the program, and names only existing tests;
/// each test that is named as a case is in the list.
#[test]
fn every_case_has_its_tests_and_they_are_there() {
    let files = files();
    let list = files.iter().find(|(path, _)| path == "docs/cases.md");
    let list = &list.expect("docs/cases.md").1;
    let tests_in = |folder: &str| -> Vec<&str> {
        let ours = files.iter().filter(|(path, _)| path.starts_with(folder));
        let bodies = ours.flat_map(|(_, text)| text.split("test]\n").skip(1));
        bodies
            .filter_map(|body| body.split_once("fn ")?.1.split('(').next())
            .collect()
    };
    let (program, alone) = (tests_in("tests/it/"), tests_in("llm/tests/it/"));
    let mut cases = 0;
    for line in list.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cells: Vec<&str> = line.split(" | ").collect();
        assert_eq!(cells.len(), 4, "{line}");
        for (cell, tests, least) in [(cells[2], &program, 1), (cells[3], &alone, 0)] {
            let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
            assert!(named.len() >= least, "no test: {line}");
            for name in named {
                assert!(tests.contains(&name), "the test `{name}` is missing");
            }
        }
        cases += 1;
    }
    assert!(cases > 30, "the list has moved");
    for name in alone.iter().filter(|name| name.starts_with("case_")) {
        assert!(
            list.contains(&format!("`{name}`")),
            "`{name}` is not listed"
        );
    }
}

/// Each threat of `docs/security.md` names existing tests, or says by a dash that nothing but the operator
/// is against it.
#[test]
fn every_threat_has_its_tests_and_they_are_there() {
    let files = files();
    let page = files.iter().find(|(path, _)| path == "docs/security.md");
    let page = &page.expect("docs/security.md").1;
    let rust = files.iter().filter(|(path, _)| path.ends_with(".rs"));
    let bodies = rust.flat_map(|(_, text)| text.split("test]\n").skip(1));
    let tests: HashSet<&str> = bodies
        .filter_map(|body| body.split_once("fn ")?.1.split('(').next())
        .collect();
    let mut threats = 0;
    for table in page.split("| shown by |\n").skip(1) {
        let rows = table.lines().take_while(|line| line.starts_with('|'));
        for row in rows.skip(1) {
            let cells: Vec<&str> = row.trim_end_matches('|').split(" | ").collect();
            assert_eq!(cells.len(), 3, "{row}");
            let named: Vec<&str> = cells[2].split('`').skip(1).step_by(2).collect();
            assert!(
                !named.is_empty() || cells[2].trim() == "–",
                "no test: {row}"
            );
            for name in named {
                assert!(tests.contains(name), "the test `{name}` is missing");
            }
            threats += 1;
        }
    }
    assert!(threats > 30, "the page has moved");
}
