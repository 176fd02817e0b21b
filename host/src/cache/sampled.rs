//! Which reads are reported to a policy: one in sixteen.
//!
//! moka takes a lock's worth of time for each read, and every 64 reads the time to process them, on
//! the reader's thread. A sample also shows which entries are asked for often.

use std::cell::Cell;

/// One in this many reads is passed on to the policy.
const SAMPLED: u64 = 16;

/// True for one of [`SAMPLED`] calls, at random: with a fixed step, keys that are asked for in turns
/// could be missed forever.
pub(super) fn is_sampled() -> bool {
    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0x9e37_79b9_7f4a_7c15) };
    }
    STATE.with(|state| {
        let mut x = state.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.set(x);
        x.is_multiple_of(SAMPLED)
    })
}
