//! What no host should let a guest do to its end.

use std::hint::black_box;

pub(crate) fn spin() -> ! {
    loop {
        black_box(());
    }
}

pub(crate) fn allocate() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(vec![1_u8; 1 << 20]));
    }
}

pub(crate) fn recurse(depth: u64) -> u64 {
    if black_box(depth) == 0 {
        0
    } else {
        recurse(depth - 1) + black_box(1)
    }
}

/// A second owner of the same handle, so that it is dropped twice. What the bindings keep a guest
/// from doing is what is tested.
macro_rules! twin {
    ($entry:expr) => {
        // SAFETY: it is not, and the host has to notice.
        unsafe { Entry::from_handle($entry.handle()) }
    };
}
pub(crate) use twin;
