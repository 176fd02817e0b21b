//! CPU time: the base of figures per core, independent of other load on the machine.

use std::fs;

/// Linux counts a process' CPU time in hundredths of a second in `/proc`, on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of CPU that a process has used, all its threads together.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The second field is the program's name in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(") ").expect("a line of /proc/PID/stat");
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// The CPU time of this thread.
pub(crate) fn thread_nanoseconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let first = text.split(' ').next().expect("a number");
    first.parse().expect("a number")
}
