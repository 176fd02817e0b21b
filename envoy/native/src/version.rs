//! Which Envoy this is. The interface for modules may change with each minor version, and Envoy only
//! warns of that; a function with another signature would be called all the same.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The minor versions that the tests run with.
const TESTED: [(u32, u32); 1] = [(1, 40)];

/// A program says its version at once; its first run may have to read it from a slow disk.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Whether this Envoy was tested.
///
/// # Errors
///
/// A line that names the version.
pub(crate) fn check() -> Result<(), String> {
    static VERSION: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    judge(*VERSION.get_or_init(|| in_text(&told()?)))
}

fn judge(version: Option<(u32, u32)>) -> Result<(), String> {
    let what = match version {
        Some(version) if TESTED.contains(&version) => return Ok(()),
        Some((major, minor)) => format!("this is Envoy {major}.{minor}"),
        None => "this Envoy does not tell its version".into(),
    };
    let [(major, minor)] = TESTED;
    Err(format!(
        "{what}, and the module was tested with {major}.{minor} only: its interface may be another \
         one; `allow_untested_envoy: true` loads it all the same"
    ))
}

/// What the running program says of its version. Envoy offers modules no way to ask.
fn told() -> Option<String> {
    let mut child = Command::new("/proc/self/exe")
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut stdout = child.stdout.take()?;
    let (sender, said) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        // The receiver is gone once the time is up; ignore that.
        let _ = sender.send(stdout.read_to_string(&mut text).map(|_| text));
    });
    let said = said.recv_timeout(TIME_MAX);
    // It has said its version, or takes too long.
    let _ = child.kill();
    let _ = child.wait();
    said.ok()?.ok()
}

/// `…  version: 9e55…/1.40.0/Clean/RELEASE/BoringSSL` → (1, 40).
fn in_text(text: &str) -> Option<(u32, u32)> {
    let (_, build) = text.split_once("version:")?;
    let mut numbers = build.trim().split('/').nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_where_envoy_says_it() {
        let said = "\n/bin/envoy  version: 9e5580/1.40.0/Clean/RELEASE/BoringSSL\n";
        assert_eq!(in_text(said), Some((1, 40)));
        assert_eq!(in_text("x version: a/1.41.0-dev/b"), Some((1, 41)));
        for other in ["", "version:", "version: 1.40.0", "version: a/b/c"] {
            assert_eq!(in_text(other), None, "{other}");
        }
    }

    #[test]
    fn only_tested_versions_are_let_in() {
        assert_eq!(judge(Some((1, 40))), Ok(()));
        let why = judge(Some((1, 41))).expect_err("not tested");
        assert!(why.contains("Envoy 1.41") && why.contains("allow_untested_envoy"));
        assert!(judge(None).is_err());
    }
}
