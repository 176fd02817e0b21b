//! Removes the build output of checkouts that are gone.
//!
//! `.cargo/config.toml` puts intermediate output outside the checkout, so deleting a checkout
//! leaves it behind. In each such folder a file of ours names the checkout; folders without that
//! file are left alone. An error in here must not stop a build.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::workspace::{cargo, say};

/// Holds the path of the checkout that the build output belongs to.
const CHECKOUT: &str = "CHECKOUT";

/// The folder of `.cargo/config.toml` that holds every checkout's. Below it cargo makes two
/// levels from the hash of the checkout's path: `fe/dd4b40b7be644e`.
const ROOT: &str = "reflex-edge-build";

/// Marks our folder, and removes those whose checkout no longer exists.
pub(crate) fn tidy() {
    let Some(ours) = build_dir() else { return };
    let Some(root) = ours.ancestors().nth(2).filter(|root| root.ends_with(ROOT)) else {
        // The user has chosen another place, which is not ours to clean.
        return;
    };
    let checkout = reflex_guest_build::workspace();
    if let Err(error) = mark(&ours, &checkout) {
        say(&format!("{} cannot be marked: {error}", ours.display()));
    }
    for folder in orphans(root) {
        match fs::remove_dir_all(&folder) {
            Ok(()) => {
                say(&format!(
                    "removed {}: its checkout is gone",
                    folder.display()
                ));
                // The first level goes with its last folder; until then this fails.
                let _ = folder.parent().map(fs::remove_dir);
            }
            Err(error) => say(&format!("{} cannot be removed: {error}", folder.display())),
        }
    }
}

fn mark(folder: &Path, checkout: &Path) -> io::Result<()> {
    let file = folder.join(CHECKOUT);
    let text = checkout.to_string_lossy();
    if fs::read_to_string(&file).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    fs::write(file, text.as_bytes())
}

/// The folders two levels below `root` that name a checkout which does not exist.
fn orphans(root: &Path) -> Vec<PathBuf> {
    let folders = |parent: PathBuf| {
        fs::read_dir(parent)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
    };
    folders(root.to_owned())
        .flat_map(folders)
        .filter(|folder| {
            fs::read_to_string(folder.join(CHECKOUT))
                .map(PathBuf::from)
                .is_ok_and(|checkout| checkout.is_absolute() && !checkout.exists())
        })
        .collect()
}

/// Where cargo puts intermediate output for this workspace, braces filled in.
fn build_dir() -> Option<PathBuf> {
    let metadata = cargo(&[
        "metadata",
        "--no-deps",
        "--offline",
        "--format-version",
        "1",
    ])
    .stdin(Stdio::null())
    .stderr(Stdio::null())
    .output()
    .ok()?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).ok()?;
    Some(metadata.get("build_directory")?.as_str()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_folders_of_checkouts_that_are_gone_are_orphans() {
        let root = std::env::temp_dir().join(format!("reflex-janitor-{}", std::process::id()));
        let make = |name: &str, checkout: Option<&Path>| {
            let folder = root.join(name);
            fs::create_dir_all(&folder).expect("a folder");
            if let Some(checkout) = checkout {
                mark(&folder, checkout).expect("a mark");
            }
            folder
        };
        make("aa/alive", Some(&root));
        make("aa/unmarked", None);
        make("bb/relative", Some(Path::new("no/such/checkout")));
        let gone = make("bb/gone", Some(&root.join("no-such-checkout")));

        assert_eq!(orphans(&root), [gone]);
        fs::remove_dir_all(root).expect("removed");
    }
}
