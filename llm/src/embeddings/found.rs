//! What there is of a batch for one client, of all that a cache has.

use alloc::vec::Vec;

use crate::Control;

/// What a cache has of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// An answer to each of its texts.
    All {
        /// That of the oldest.
        age_seconds: u64,
        /// For how long the first to expire stays; none if none of them does.
        ttl_seconds: Option<u64>,
    },
    /// All but these elements, by number.
    AllBut(Vec<u32>),
    /// Nothing that this client wants.
    Nothing,
}

impl Found {
    /// Of the answers to a batch's elements, in their order: how old each is, and for how long it
    /// stays, in seconds; none where there is no answer.
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
            // Nor is a batch without elements one that can be answered.
            all if all == count as usize => Self::Nothing,
            0 => Self::All {
                age_seconds,
                ttl_seconds,
            },
            _ => Self::AllBut(missing),
        }
    }
}
