//! Which cores are a server's, and which are the load's and the provider's.

use std::fs;
use std::process::{Command, Stdio};

/// Cores by number.
pub(crate) struct Cores {
    /// The first: each server that is measured runs here, and nothing else does.
    server: String,
    /// All others.
    load: String,
}

impl Cores {
    /// Divides the cores that this process may use.
    ///
    /// # Errors
    ///
    /// They are fewer than two.
    pub(crate) fn divide() -> Result<Self, String> {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let list = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let cores = numbers(list.unwrap_or_default().trim());
        match cores.split_first() {
            Some((server, load)) if !load.is_empty() => {
                let load: Vec<String> = load.iter().map(ToString::to_string).collect();
                Ok(Self {
                    server: server.to_string(),
                    load: load.join(","),
                })
            }
            _ => Err("servers and the load need a core each; this machine has one".into()),
        }
    }

    /// Moves this thread to the cores of the load, and with it the threads and children that it
    /// starts from now on.
    pub(crate) fn to_load(&self) {
        pin(&self.load);
    }

    /// Runs `start` so that children that it starts are on the server's core.
    pub(crate) async fn on_server<T>(&self, start: impl Future<Output = T>) -> T {
        pin(&self.server);
        let started = start.await;
        pin(&self.load);
        started
    }
}

/// Pins this thread. A program does it for us: the system call has no safe wrapper in our
/// dependencies as they are.
fn pin(cores: &str) {
    let link = fs::read_link("/proc/thread-self").expect("Linux");
    let thread = link.file_name().expect("a number");
    let done = Command::new("taskset")
        .args(["--cpu-list", "--pid", cores])
        .arg(thread)
        .stdout(Stdio::null())
        .status();
    assert!(
        done.is_ok_and(|status| status.success()),
        "`taskset` is needed, of Debian's util-linux"
    );
}

/// `0-2,5` → 0, 1, 2, 5.
fn numbers(list: &str) -> Vec<usize> {
    let mut all = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse()) {
            all.extend(first..=last);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_read_from_the_kernels_list() {
        assert_eq!(numbers("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(numbers("3"), [3]);
        assert!(numbers("").is_empty());
    }
}
