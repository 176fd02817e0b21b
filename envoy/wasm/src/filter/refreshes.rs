//! How workers without a daemon learn of refreshed answers, through Envoy's shared data.

use proxy_wasm::hostcalls;

use reflex_envoy_core::refreshed::{Gone, Refreshed};

const NAME: &str = "reflex-refreshed";

/// Bound of the attempts to write while other workers write at the same time.
const TRIES_MAX: usize = 16;

/// The refreshes of other workers since the last look.
pub(super) fn hear(refreshed: &mut Refreshed) -> Gone {
    let (bytes, _) = hostcalls::get_shared_data(NAME).unwrap_or_default();
    refreshed.hears(&bytes.unwrap_or_default())
}

/// Adds a refresh of this worker, after reading those of the others.
pub(super) fn tell(refreshed: &mut Refreshed, digest: &[u8; 32]) -> Gone {
    let mut gone = Vec::new();
    for _ in 0..TRIES_MAX {
        let (bytes, version) = hostcalls::get_shared_data(NAME).unwrap_or_default();
        let bytes = bytes.unwrap_or_default();
        match refreshed.hears(&bytes) {
            // Its own answer is the newest.
            Gone::These(all) => gone.extend(all.into_iter().filter(|it| it != digest)),
            Gone::All => return Gone::All,
        }
        let said = Refreshed::says(&bytes, digest);
        if hostcalls::set_shared_data(NAME, Some(&said), version).is_ok() {
            refreshed.has_said();
            break;
        }
    }
    Gone::These(gone)
}

/// Creates the place. In one that does not exist yet, two workers would not notice that both write.
pub(super) fn prepare() {
    if matches!(hostcalls::get_shared_data(NAME), Ok((None, _))) {
        let _ = hostcalls::set_shared_data(NAME, Some(&[0; 8]), None);
    }
}
