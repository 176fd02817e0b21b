//! The guest of the tests in other languages than Rust, made into components under
//! `target/languages`.
//!
//! Each takes a minute, so it is made anew only when it or its tools have changed. Where a tool is
//! missing that the tests can do without, a file beside says so, and the test repeats it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use reflex_guest_build::run_bounded;
use reflex_skip::Skips;
use sha2::{Digest, Sha256};

use crate::workspace::say;
use crate::{node, python};

/// Where the guest is, in every language.
const SOURCE: &str = "tests/guests/ask";

/// Python packages that are tools.
const PYTHON_TOOLS: &str = "tests/guests/ask/requirements.txt";

/// The files from which npm makes the folder of the JavaScript tools, and the scripts that run
/// there. The lock has a checksum of each package, and no addresses.
const NODE_FILES: [&str; 4] = [
    ".npmrc",
    "package.json",
    "package-lock.json",
    "componentize.js",
];

/// The slowest takes one minute where nothing else runs.
const MAKE_TIME_MAX: Duration = Duration::from_secs(900);

/// Makes the tools and the components, as far as they are not there. `compose` is our own tool.
///
/// # Errors
///
/// A tool fails, cannot be installed, or would be skipped although skips are refused; the text says
/// which.
pub(crate) fn set_up(compose: &Path, skips: Skips) -> Result<()> {
    let folder = reflex_guest_build::target_dir().join("languages");
    let wit = wit(&folder)?;
    let python = python::environment_of(PYTHON_TOOLS, "python-wasm")?;
    let guest = Guest {
        folder: &folder,
        wit: &wit,
    };

    let source = reflex_guest_build::workspace().join(SOURCE);
    guest.make(
        "python",
        &source.join("python/ask.py"),
        PYTHON_TOOLS,
        |out| {
            let tool = python.with_file_name("componentize-py");
            let mut command = Command::new(tool);
            command
                .arg("--wit-path")
                .arg(&wit)
                .args(["--world", "ask", "componentize", "ask"])
                .arg("--python-path")
                .arg(source.join("python"))
                // Without WASI the host needs to offer nothing but the cache.
                .args(["--stub-wasi", "--output"])
                .arg(out);
            vec![command]
        },
    )?;
    guest.make("c", &source.join("c/ask.c"), PYTHON_TOOLS, |out| {
        let generated = folder.join("c");
        let core = folder.join("ask-c.core.wasm");
        let mut bindings = Command::new(compose);
        bindings.arg("c").arg(&wit).arg("ask").arg(&generated);
        let mut compiler = Command::new(&python);
        compiler
            .args(["-m", "ziglang", "cc", "-target", "wasm32-wasi"])
            .args(["-mexec-model=reactor", "-Os", "-Wall", "-Werror", "-I"])
            .arg(&generated)
            .arg("-o")
            .arg(&core)
            .arg(source.join("c/ask.c"))
            .args(["ask.c", "ask_component_type.o"].map(|name| generated.join(name)))
            .env("ZIG_GLOBAL_CACHE_DIR", folder.join("zig"))
            .env("ZIG_LOCAL_CACHE_DIR", folder.join("zig"));
        let mut component = Command::new(compose);
        component.arg("new").arg(&core).arg(out);
        vec![bindings, compiler, component]
    })?;
    match node::packages_of(&format!("{SOURCE}/js"), &NODE_FILES, "languages/node")? {
        Ok(tools) => {
            let mut node = node::command("node")?;
            let lock = format!("{SOURCE}/js/package-lock.json");
            guest.make("js", &source.join("js/ask.js"), &lock, |out| {
                node.arg(tools.join("componentize.js"))
                    .arg(source.join("js/ask.js"))
                    .arg(&wit)
                    .arg("ask")
                    .arg(out);
                vec![node]
            })?;
            node::set_up_suspending(skips)?;
        }
        Err(why) => guest.skip("js", &why, skips)?,
    }
    Ok(())
}

/// The WIT of the guest's world: its own, and the one interface that it imports.
fn wit(folder: &Path) -> Result<PathBuf> {
    let wit = folder.join("wit");
    let root = reflex_guest_build::workspace();
    for (from, to) in [
        ("tests/guests/ask/wit/ask.wit", "ask.wit"),
        ("wit/cache.wit", "deps/reflex-cache/cache.wit"),
    ] {
        let to = wit.join(to);
        let parent = to.parent().unwrap_or(&wit);
        fs::create_dir_all(parent)
            .and_then(|()| fs::copy(root.join(from), &to))
            .with_context(|| format!("{} cannot be written", to.display()))?;
    }
    Ok(wit)
}

struct Guest<'a> {
    folder: &'a Path,
    wit: &'a Path,
}

impl Guest<'_> {
    /// Makes `ask-<language>.wasm` by running `commands`, unless it is made of the same already:
    /// of this source, this WIT, tools of these versions, and these commands.
    fn make(
        &self,
        language: &str,
        source: &Path,
        tools: &str,
        commands: impl FnOnce(&Path) -> Vec<Command>,
    ) -> Result<()> {
        let out = self.folder.join(format!("ask-{language}.wasm"));
        let stamp = self.folder.join(format!("ask-{language}.made-of"));
        let mut commands = commands(&out);
        let mut hasher = Sha256::new();
        for path in [
            source.to_owned(),
            self.wit.join("ask.wit"),
            self.wit.join("deps/reflex-cache/cache.wit"),
            reflex_guest_build::workspace().join(tools),
        ] {
            let bytes =
                fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        hasher.update(format!("{commands:?}"));
        let made_of = format!("{:x}", hasher.finalize());
        let _ = fs::remove_file(self.skipped(language));
        if out.exists() && fs::read_to_string(&stamp).is_ok_and(|old| old == made_of) {
            return Ok(());
        }
        say(&format!("guest in {language}: making {}", out.display()));
        let _ = fs::remove_file(&stamp);
        for command in &mut commands {
            command.stdin(Stdio::null());
            run_bounded(command, MAKE_TIME_MAX).map_err(|why| anyhow!("{why}"))?;
        }
        fs::write(&stamp, made_of).with_context(|| format!("{} cannot be written", stamp.display()))
    }

    /// Notes why `ask-<language>.wasm` is missing.
    fn skip(&self, language: &str, why: &str, skips: Skips) -> Result<()> {
        let part = format!("guest in {language}");
        skips.skip(&part, why).map_err(Error::msg)?;
        let _ = fs::remove_file(self.folder.join(format!("ask-{language}.wasm")));
        let path = self.skipped(language);
        fs::write(&path, why).with_context(|| format!("{} cannot be written", path.display()))
    }

    fn skipped(&self, language: &str) -> PathBuf {
        self.folder.join(format!("ask-{language}.skipped"))
    }
}
