//! The WIT package, as other projects build against it.

use super::tool;
use std::path::Path;

/// What `wkg build` makes: the package in its binary form, with all that it depends on.
#[test]
fn the_wit_is_a_package() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("package.wasm");
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    tool::run(&["wit".as_ref(), wit.as_os_str(), out.as_os_str()]);
    let bytes = std::fs::read(&out).expect("the package");
    for part in ["reflex:cache/cache@0.1.0", "wasi:http/types@0.3.0"] {
        let found = bytes.windows(part.len()).any(|at| at == part.as_bytes());
        assert!(found, "{part} is not in the package");
    }
}

/// The version and the dependencies are written in several places.
#[test]
fn its_version_and_its_dependencies_agree() {
    let read = |path: &str| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let version = read("wit/cache.wit");
    let version = version.lines().find_map(|line| {
        let rest = line.strip_prefix("package reflex:cache@")?;
        rest.strip_suffix(';')
    });
    let version = version.expect("a version");
    let changes = read("wit/CHANGELOG.md");
    assert!(changes.contains(&format!("\n## {version}")), "{version}");

    let manifest = read("wkg.toml");
    let deps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit/deps");
    for entry in std::fs::read_dir(deps).expect("dependencies") {
        let folder = entry.expect("an entry").file_name();
        let folder = folder.to_str().expect("text");
        let path = format!("wit/deps/{folder}");
        assert!(manifest.contains(&format!("\"{path}\"")), "{path}");
        // `wasi-http-0.3.0` is `wasi:http@0.3.0`.
        let name = folder.replacen('-', ":", 1).replacen('-', "@", 1);
        let text = read(&format!("{path}/package.wit"));
        assert!(text.contains(&format!("package {name};")), "{name}");
    }
}
