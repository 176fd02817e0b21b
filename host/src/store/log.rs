//! The names of the two logs. `policy.rs` decides which entry is in which.

/// One of the two logs of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Log {
    /// New entries.
    Small = 0,
    /// Entries that were asked for again.
    Main = 1,
}

impl Log {
    pub(crate) const BOTH: [Self; 2] = [Self::Small, Self::Main];

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Small => Self::Main,
            Self::Main => Self::Small,
        }
    }
}
