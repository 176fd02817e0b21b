//! An edge as a process: its signals, its limits, and what it takes of the machine.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use super::Edge;
use crate::within;

impl Edge {
    /// Asks it to stop.
    ///
    /// # Panics
    ///
    /// If it has ended by itself.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// If it has ended by itself.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a process that takes signals");
    }

    /// Its memory, mapped files not counted, in bytes.
    ///
    /// # Panics
    ///
    /// If the system does not tell.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("a process");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.expect("RssAnon in kB") << 10
    }

    /// The numbers of its open files and sockets.
    ///
    /// # Panics
    ///
    /// If the system does not tell.
    pub fn descriptors(&self) -> usize {
        let folder = fs::read_dir(format!("/proc/{}/fd", self.id()));
        folder.expect("a process").count()
    }

    /// From now on, it may have so many files and sockets.
    ///
    /// # Panics
    ///
    /// If the system refuses.
    pub fn limit_descriptors(&self, count: u64) {
        let limit = Rlimit {
            current: Some(count),
            maximum: Some(count),
        };
        prlimit(Some(self.pid()), Resource::Nofile, limit).expect("a limit that may be set");
    }

    /// Stops its clock: it accepts connections, as far as the system does so for it, and answers
    /// nothing.
    ///
    /// # Panics
    ///
    /// If it has ended by itself.
    pub fn pause(&self) {
        kill_process(self.pid(), Signal::STOP).expect("a process that can be stopped");
    }

    /// Lets it go on after [`Edge::pause`].
    ///
    /// # Panics
    ///
    /// If it has ended by itself.
    pub fn resume(&self) {
        kill_process(self.pid(), Signal::CONT).expect("a process that can go on");
    }

    /// Kills it on the spot, as a power cut would, but for what the operating system keeps.
    ///
    /// # Panics
    ///
    /// If it cannot be killed.
    pub async fn kill(&mut self) {
        within("its death", self.child.kill())
            .await
            .expect("a process that can be killed");
    }

    /// Waits for its end, and returns its exit code; none if a signal ended it.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub async fn ended(&mut self) -> Option<i32> {
        within("the end of reflex-edge", self.child.wait())
            .await
            .expect("an exit status")
            .code()
    }

    /// The number of its process.
    ///
    /// # Panics
    ///
    /// If it has ended by itself.
    pub fn id(&self) -> u32 {
        self.pid().as_raw_nonzero().get().unsigned_abs()
    }

    fn pid(&self) -> Pid {
        self.child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
            .expect("a process that has not ended")
    }
}
