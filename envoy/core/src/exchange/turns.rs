//! Several answers to one request, served in turn: for evaluations, which want variety.
//!
//! All workers of an Envoy count turns together, or each would begin at the first answer. So the
//! turn is asked for as an effect, and comes as an event.

use super::lookup::look_up;
use super::pending::{Pending, Turn};
use super::{Effect, Stage, Step};
use crate::flights::Id;
use crate::shared::Shared;

/// Upper bound of the counters of turns in Envoy's shared data, which Envoy never frees. Requests
/// share them by their keys; two requests with one counter skip some of their answers.
pub const PLACES: u32 = 4096;

/// Asks for the turn of a request that has several answers, or goes on with its only one.
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

/// Goes on with the answer whose turn it is after `before` others.
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
