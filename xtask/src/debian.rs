//! Debian's packages, unpacked into a folder of the workspace and not installed: for programs that
//! only measurements run.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use reflex_guest_build::run_bounded;

use crate::machine::any_in_path;
use crate::workspace::say;

/// Some 10 MB for all that is asked for here.
const DOWNLOAD_TIME_MAX: Duration = Duration::from_secs(300);

/// One package.
const UNPACK_TIME_MAX: Duration = Duration::from_secs(60);

/// Says in the folder what was unpacked; written last.
const STAMP: &str = "made-of.txt";

/// A folder with the `usr` of some packages in it.
pub(crate) struct Unpacked {
    /// It has `usr` in it, unless all packages are installed.
    pub(crate) root: PathBuf,
}

/// Unpacks `packages` and what they depend on into `root` in this folder, less what the system has
/// installed already. Does nothing if that was done before.
///
/// # Errors
///
/// This is no Debian, or its packages cannot be downloaded; the text says what is missing and how to
/// get it.
pub(crate) fn unpack(packages: &[&str], folder: &Path) -> Result<Unpacked> {
    let root = folder.join("root");
    let made_of = packages.join("\n");
    let made = || fs::read_to_string(folder.join(STAMP)).is_ok_and(|old| old == made_of);
    if !(root.exists() && made()) {
        fetch(packages, folder, &root).map_err(|why| {
            anyhow!(
                "{why:#}\nDebian's {0} are needed: on Debian or Ubuntu, run `apt-get update` as root \
                 and try again, or install them (`apt-get install --no-install-recommends {0}`); \
                 elsewhere, run this in a container of Debian's",
                packages.join(" ")
            )
        })?;
        fs::write(folder.join(STAMP), made_of)
            .with_context(|| format!("{} cannot be written", folder.display()))?;
    }
    Ok(Unpacked { root })
}

impl Unpacked {
    /// The program of that name: an unpacked one, or the system's.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        let ours = ["usr/bin", "usr/sbin"].map(|bin| self.root.join(bin));
        let paths = env::var_os("PATH").unwrap_or_default();
        let system = env::split_paths(&paths).chain(["/usr/sbin".into()]);
        let mut all = ours.into_iter().chain(system).map(|bin| bin.join(name));
        all.find(|path| path.is_file())
            .ok_or_else(|| anyhow!("{} has no `{name}`", self.root.display()))
    }
}

fn fetch(packages: &[&str], folder: &Path, root: &Path) -> Result<()> {
    for tool in ["apt-get", "dpkg"] {
        if !any_in_path(&[tool]) {
            bail!("`{tool}` is missing");
        }
    }
    let wanted = missing(packages)?;
    let draft = folder.join(format!(".fetch-{}", std::process::id()));
    fs::create_dir_all(draft.join("root"))
        .with_context(|| format!("{} cannot be made", draft.display()))?;
    let fetched = download(&wanted, &draft).and_then(|()| {
        if root.exists() {
            fs::remove_dir_all(root).with_context(|| format!("{} is old", root.display()))?;
        }
        fs::rename(draft.join("root"), root)
            .with_context(|| format!("{} cannot be made", root.display()))
    });
    // Nothing of the rest is of use.
    let _ = fs::remove_dir_all(&draft);
    fetched
}

/// What apt would install for `packages` on this system.
fn missing(packages: &[&str]) -> Result<Vec<String>> {
    let said = Command::new("apt-get")
        .args(["install", "--simulate", "--no-install-recommends"])
        .args(packages)
        // Its words are read below.
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .context("apt-get cannot be started")?;
    if !said.status.success() {
        let why = String::from_utf8_lossy(&said.stderr);
        bail!("apt-get does not know them: {}", why.trim());
    }
    Ok(installed_by(&String::from_utf8_lossy(&said.stdout)))
}

/// `Inst nginx (1.22.1-9 Debian:12.14/oldstable [amd64])` → `nginx=1.22.1-9`.
fn installed_by(simulation: &str) -> Vec<String> {
    let installed = |line: &str| {
        let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
        // A package that is installed in another version has that one in brackets first.
        let (_, rest) = rest.split_once('(')?;
        Some(format!("{name}={}", rest.split(' ').next()?))
    };
    simulation.lines().filter_map(installed).collect()
}

/// Downloads these packages into `draft`, and unpacks them into `root` in it.
fn download(packages: &[String], draft: &Path) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    say(&format!(
        "downloading Debian's {}, for at most {} s",
        packages.join(" "),
        DOWNLOAD_TIME_MAX.as_secs()
    ));
    let mut apt = Command::new("apt-get");
    apt.args(["-qq", "download"])
        // apt, started by root, changes to a user without access to this folder.
        .args(["-o", "APT::Sandbox::User=root"])
        .args(packages)
        .current_dir(draft)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    run_bounded(&mut apt, DOWNLOAD_TIME_MAX).map_err(|why| anyhow!(why))?;
    let files = fs::read_dir(draft).context("the downloads are gone")?;
    let is_package = |path: &PathBuf| path.extension() == Some(&OsString::from("deb"));
    for package in files.filter_map(|entry| Some(entry.ok()?.path())) {
        if is_package(&package) {
            let mut dpkg = Command::new("dpkg");
            dpkg.arg("-x").arg(&package).arg(draft.join("root"));
            run_bounded(&mut dpkg, UNPACK_TIME_MAX).map_err(|why| anyhow!(why))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_would_install_is_read_from_what_it_says() {
        let said = "The following NEW packages will be installed:\n  nginx\n\
            Inst libjemalloc2 (5.3.0-1 Debian:12.14/oldstable [amd64])\n\
            Inst nginx [1.22.1-9] (1.22.1-9+deb12u7 Debian-Security:12/oldstable-security [amd64])\n\
            Conf nginx (1.22.1-9+deb12u7 Debian-Security:12/oldstable-security [amd64])\n";
        let packages = ["libjemalloc2=5.3.0-1", "nginx=1.22.1-9+deb12u7"];
        assert_eq!(installed_by(said), packages);
        assert!(installed_by("0 upgraded, 0 newly installed\n").is_empty());
    }

    #[test]
    fn unpacked_programs_come_before_those_of_the_system() {
        let folder = tempfile::tempdir().expect("a folder");
        let unpacked = Unpacked {
            root: folder.path().into(),
        };
        let sh = unpacked.program("sh").expect("the system's");
        assert!(!sh.starts_with(folder.path()));
        let ours = folder.path().join("usr/sbin");
        fs::create_dir_all(&ours).expect("a folder");
        fs::write(ours.join("sh"), "").expect("a file");
        assert_eq!(unpacked.program("sh").expect("ours"), ours.join("sh"));
        assert!(unpacked.program("no-such-program").is_err());
    }
}
