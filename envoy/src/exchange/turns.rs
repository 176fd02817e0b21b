//! Several answers to one request, served in turn: for evaluations, which want variety.
//!
//! Whose turn it is, all workers of an Envoy have to agree on, or each would begin at the first
//! answer. So it is asked for, as an effect, and comes as an event.

use reflex_llm::Key;

use super::lookup::{Pending, look_up};
use super::{Effect, Stage, Step};
use crate::flights::Id;
use crate::shared::Shared;

/// Envoy counts turns in so many places, which requests share: two that have one take turns in
/// it, and skip answers of theirs. Envoy keeps what it has once counted until its end.
pub const PLACES: u32 = 4096;

/// Which of the answers a request is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    request: Key,
    /// The next one to look for, where any of them will do.
    next: u32,
}

/// For a client that wants what is cached, whichever it is, the daemon is asked for so many. They
/// are numbered from 0, and the first come first.
const OTHERS_MAX: u32 = 16;

/// A request that may be answered from the cache, by whichever answer's turn it is.
pub(super) fn take_turn(shared: &mut Shared, id: Id, mut pending: Pending, now_ms: u64) -> Step {
    if shared.config.samples == 1 {
        return look_up(shared, id, pending, now_ms);
    }
    let request = pending.asked.key;
    pending.turn = Some(Turn { request, next: 0 });
    let [a, b, ..] = request.digest;
    let place = u32::from(u16::from_le_bytes([a, b])) % PLACES;
    (Stage::Turning(pending), vec![Effect::Turn(place)])
}

/// So many requests have had their turn before.
pub(super) fn turned(
    shared: &mut Shared,
    id: Id,
    mut pending: Pending,
    before: u32,
    now_ms: u64,
) -> Step {
    pending.asked.key = pending.asked.key.sample(before % shared.config.samples);
    look_up(shared, id, pending, now_ms)
}

impl Pending {
    /// The keys of all answers that there may be to this request, the one whose turn it is first.
    pub(super) fn keys(&self, samples: u32) -> impl Iterator<Item = Key> {
        let others = self.turn.map_or(0..0, |_| 0..samples);
        let request = self.turn.map_or(self.asked.key, |turn| turn.request);
        std::iter::once(self.asked.key).chain(others.map(move |number| request.sample(number)))
    }

    /// On to the next answer that the daemon may have; false after the last.
    pub(super) fn turns_to_next(&mut self, samples: u32) -> bool {
        match &mut self.turn {
            Some(turn) if turn.next < samples.min(OTHERS_MAX) => {
                self.asked.key = turn.request.sample(turn.next);
                turn.next += 1;
                true
            }
            _ => false,
        }
    }
}
