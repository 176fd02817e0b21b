//! Several answers to one request, served in turn: for evaluations, which want variety.
//!
//! Whose turn it is, all workers of an Envoy have to agree on, or each would begin at the first
//! answer. So it is asked for, as an effect, and comes as an event.

use super::lookup::look_up;
use super::pending::{Pending, Turn};
use super::{Effect, Stage, Step};
use crate::flights::Id;
use crate::shared::Shared;

/// Envoy counts turns in so many places, which requests share: two that have one take turns in
/// it, and skip answers of theirs. Envoy keeps what it has once counted until its end.
pub const PLACES: u32 = 4096;

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
