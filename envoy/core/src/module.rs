//! What all configurations of one module share: bounds on memory, and figures about all of them.
//!
//! Envoy has one module for each worker and `vm_id`, and in it each configuration of the plugin:
//! those of several listeners, and after an update the old one too, until its listener's
//! connections have drained, which takes ten minutes by default. A module that runs into Envoy's 1
//! GiB ends, and takes every request in it along. So its bounds are for all of its configurations
//! together.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::hot::HotMemory;
use crate::unread::Unread;

/// Upper bound of the bytes of recordings under way in one module.
const RECORDING_BYTES_MAX: usize = 256 << 20;

/// Upper bound of the bytes of answers on their way to the daemon in one module.
const SENDING_BYTES_MAX: usize = 64 << 20;

/// Upper bound of the bytes of the memos of all configurations.
const MEMOS_BYTES_MAX: usize = 32 << 20;

/// One module. A clone is the same one.
#[derive(Clone, Debug)]
pub struct Module {
    /// The memory of the hot tiers.
    pub hot: Rc<RefCell<HotMemory>>,
    /// Answers that clients may still have to read.
    pub unread: Rc<RefCell<Unread>>,
    recording: Rc<Pool>,
    sending: Rc<Pool>,
    memo: Rc<Pool>,
    open_breakers: Rc<Cell<usize>>,
    configurations: Rc<Cell<u64>>,
}

impl Default for Module {
    fn default() -> Self {
        Self {
            hot: Rc::default(),
            unread: Rc::default(),
            recording: Rc::new(Pool::new(RECORDING_BYTES_MAX)),
            sending: Rc::new(Pool::new(SENDING_BYTES_MAX)),
            memo: Rc::new(Pool::new(MEMOS_BYTES_MAX)),
            open_breakers: Rc::default(),
            configurations: Rc::default(),
        }
    }
}

impl Module {
    /// A configuration's share in the room for recordings.
    pub fn recording(&self) -> Budget {
        Budget::new(&self.recording)
    }

    /// A configuration's share in the room for answers that are being sent to the daemon.
    pub fn sending(&self) -> Budget {
        Budget::new(&self.sending)
    }

    /// A configuration's share in the room for requests that are remembered.
    pub fn memo(&self) -> Budget {
        Budget::new(&self.memo)
    }

    /// Whether the breaker of some configuration is open.
    pub fn has_open_breaker(&self) -> bool {
        self.open_breakers.get() > 0
    }

    /// The number of a configuration. In each worker Envoy has the same ones, in the same order.
    pub fn next_generation(&self) -> u64 {
        self.configurations.set(self.configurations.get() + 1);
        self.configurations.get()
    }

    /// The sign by which a configuration tells whether its breaker is open.
    pub fn breaker(&self) -> BreakerSign {
        BreakerSign {
            open_breakers: Rc::clone(&self.open_breakers),
            is_open: false,
        }
    }
}

/// Whether the breaker of a configuration is open, counted in the module. Dropped, it counts as
/// closed.
#[derive(Debug)]
pub struct BreakerSign {
    open_breakers: Rc<Cell<usize>>,
    is_open: bool,
}

impl BreakerSign {
    /// Tells whether the breaker is open.
    pub fn set(&mut self, is_open: bool) {
        let others = self.open_breakers.get() - usize::from(self.is_open);
        self.is_open = is_open;
        self.open_breakers.set(others + usize::from(is_open));
    }
}

impl Drop for BreakerSign {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// A number of bytes that several configurations take from.
#[derive(Debug)]
struct Pool {
    left: Cell<usize>,
}

impl Pool {
    fn new(bytes: usize) -> Self {
        Self {
            left: Cell::new(bytes),
        }
    }
}

/// What one configuration takes from a number of bytes. Dropped, it gives all of it back.
#[derive(Debug)]
pub struct Budget {
    pool: Rc<Pool>,
    taken: usize,
}

impl Budget {
    fn new(pool: &Rc<Pool>) -> Self {
        Self {
            pool: Rc::clone(pool),
            taken: 0,
        }
    }

    /// Whether nothing is taken.
    pub fn is_whole(&self) -> bool {
        self.taken == 0
    }

    /// What can still be taken, by any configuration.
    pub fn left(&self) -> usize {
        self.pool.left.get()
    }

    /// Takes this many bytes, if as many are left.
    pub fn take(&mut self, bytes: usize) -> bool {
        match self.pool.left.get().checked_sub(bytes) {
            Some(left) => {
                self.pool.left.set(left);
                self.taken += bytes;
                true
            }
            None => false,
        }
    }

    /// Gives back what was taken.
    pub fn give_back(&mut self, bytes: usize) {
        self.taken -= bytes;
        self.pool.left.set(self.pool.left.get() + bytes);
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        self.give_back(self.taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_configurations_take_from_one_number_and_give_back_what_they_have() {
        let module = Module::default();
        let (mut one, mut other) = (module.recording(), module.recording());
        assert!(one.take(RECORDING_BYTES_MAX - 1));
        assert!(!other.take(2) && other.take(1));
        assert_eq!((one.left(), one.is_whole()), (0, false));
        drop(one);
        assert_eq!(other.left(), RECORDING_BYTES_MAX - 1);
        other.give_back(1);
        assert!(other.is_whole());
        assert_eq!(module.sending().left(), SENDING_BYTES_MAX);
    }

    #[test]
    fn a_breaker_is_open_until_each_configuration_says_otherwise_or_is_gone() {
        let module = Module::default();
        let (mut one, mut other) = (module.breaker(), module.breaker());
        one.set(true);
        one.set(true);
        other.set(true);
        assert!(module.has_open_breaker());
        other.set(false);
        assert!(module.has_open_breaker());
        drop(one);
        assert!(!module.has_open_breaker());
    }
}
