//! Servers of other projects, as children; and the CPU time of a server, over all of its
//! processes and threads.

use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// How often a server that starts or ends is polled.
const LOOK: Duration = Duration::from_millis(20);

/// A server starts, and ends, within this time: Varnish has its configuration compiled.
const PATIENCE: Duration = Duration::from_secs(60);

/// An address of this machine that was free a moment ago, for servers that cannot choose one.
pub(crate) fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").to_string()
}

/// A server in the foreground. It is told to end when this is dropped, so that it ends its own
/// children, and killed when it does not.
pub(crate) struct Program {
    child: Child,
}

impl Program {
    /// Starts it, and waits until it accepts connections at `address`. What it prints goes to a file
    /// in `folder`.
    ///
    /// # Errors
    ///
    /// It cannot be started, or ends; the text has its last words.
    pub(crate) async fn start(
        command: &mut Command,
        address: &str,
        folder: &Path,
    ) -> Result<Self, String> {
        let log = folder.join("output.txt");
        let name = command.get_program().to_string_lossy().into_owned();
        let file = fs::File::create(&log).map_err(|error| error.to_string())?;
        let output = file.try_clone().map_err(|error| error.to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(file)
            .spawn()
            .map_err(|error| format!("{name}: {error}"))?;
        let mut program = Self { child };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).await.is_err() {
            let ended = program.child.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("{name} does not serve ({ended:?}):\n{said}"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(program)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It fails only if the child has ended already; so do the kill and the wait.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The CPU time of each thread so far, in nanoseconds.
pub(crate) struct Cpu(HashMap<String, u64>);

impl Cpu {
    /// Of these processes and their descendants.
    pub(crate) fn of(roots: &[u32]) -> Self {
        let mut threads = HashMap::new();
        for pid in family(roots) {
            let tasks = fs::read_dir(format!("/proc/{pid}/task"))
                .into_iter()
                .flatten();
            for task in tasks.filter_map(|entry| Some(entry.ok()?.path())) {
                // A thread that has ended just now has no figures.
                let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
                let first = text.split(' ').next().unwrap_or_default();
                if let Ok(nanoseconds) = first.parse() {
                    threads.insert(task.to_string_lossy().into_owned(), nanoseconds);
                }
            }
        }
        Self(threads)
    }

    /// The CPU time since `before`, in microseconds. A thread that has ended since is not in it:
    /// the servers here keep theirs.
    pub(crate) fn since(&self, before: &Self) -> f64 {
        let used = self.0.iter().map(|(task, now)| {
            let then = before.0.get(task).copied().unwrap_or(0);
            now.saturating_sub(then)
        });
        used.sum::<u64>() as f64 / 1e3
    }
}

/// These processes and their descendants.
fn family(roots: &[u32]) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let entries = fs::read_dir("/proc").expect("Linux");
    for entry in entries.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut family = roots.to_vec();
    let mut at = 0;
    while at < family.len() {
        family.extend(children.get(&family[at]).into_iter().flatten());
        at += 1;
    }
    family
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(1)?.parse().ok()
}
