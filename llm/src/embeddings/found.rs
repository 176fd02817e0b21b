//! The cached parts of a batch that one client accepts.

use alloc::vec::Vec;

use crate::Control;

/// The cached parts of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// An answer to each of its texts.
    All {
        /// The age of the oldest answer.
        age_seconds: u64,
        /// The seconds until the first of them expires; none if none does.
        ttl_seconds: Option<u64>,
    },
    /// All but these elements, by number.
    AllBut(Vec<u32>),
    /// Nothing that this client accepts.
    Nothing,
}

impl Found {
    /// From the answers to a batch's elements, in their order: the age of each and its remaining
    /// life, in seconds; none without an answer.
    pub fn of(
        control: &Control,
        answers: impl IntoIterator<Item = Option<(u64, Option<u64>)>>,
    ) -> Self {
        let (mut age_seconds, mut ttl_seconds) = (0, None);
        let (mut count, mut missing) = (0, Vec::new());
        for answer in answers {
            match answer.filter(|&(age, ttl)| control.accepts(age, ttl)) {
                Some((age, ttl)) => {
                    age_seconds = age_seconds.max(age);
                    ttl_seconds = [ttl_seconds, ttl].into_iter().flatten().min();
                }
                None => missing.push(count),
            }
            count += 1;
        }
        match missing.len() {
            // A batch without elements cannot be answered either.
            all if all == count as usize => Self::Nothing,
            0 => Self::All {
                age_seconds,
                ttl_seconds,
            },
            _ => Self::AllBut(missing),
        }
    }
}
