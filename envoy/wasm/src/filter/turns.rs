//! Which of several answers is next, counted by all workers of an Envoy together, in Envoy's shared
//! data.

use proxy_wasm::hostcalls;

use reflex_envoy_core::exchange::PLACES;

/// Upper bound of the attempts to count while other workers count at the same time.
const TRIES_MAX: usize = 16;

/// How many turns were taken at a place, by all workers together. Counts one more.
pub(super) fn take(at: u32) -> u32 {
    let name = name_of(at);
    let mut before = None;
    for _ in 0..TRIES_MAX {
        let (value, version) = hostcalls::get_shared_data(&name).unwrap_or_default();
        before = value.and_then(|value| Some(u32::from_le_bytes(value.try_into().ok()?)));
        let after = before.unwrap_or(0_u32).wrapping_add(1).to_le_bytes();
        if hostcalls::set_shared_data(&name, Some(&after), version).is_ok() {
            break;
        }
    }
    before.unwrap_or(0)
}

/// In a place that does not exist yet, two workers would not notice that both count. So all places
/// are made at start, before requests arrive.
pub(super) fn prepare() {
    for at in 0..PLACES {
        let name = name_of(at);
        if matches!(hostcalls::get_shared_data(&name), Ok((None, _))) {
            let _ = hostcalls::set_shared_data(&name, Some(&[0; 4]), None);
        }
    }
}

fn name_of(at: u32) -> String {
    format!("reflex-turns-{at}")
}
