//! What keeps a panic from Envoy, which would end with it: each hook runs in [`caught`]. The request of
//! the hook goes on without the cache, and the panic is counted.

use crate::abi::{Level, log};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! hooks {
    ($($hook:ident = $name:literal,)*) => {
        /// What Envoy calls.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Hook {
            $($hook,)*
        }

        impl Hook {
            /// All hooks, in the order of declaration.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$hook,)*];

            /// Its name in metrics.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$hook => $name,)*
                }
            }
        }
    };
}

hooks! {
    ProgramInit = "program_init",
    ConfigNew = "config_new",
    ConfigDestroy = "config_destroy",
    ConfigScheduled = "config_scheduled",
    New = "new",
    RequestHeaders = "request_headers",
    RequestBody = "request_body",
    RequestTrailers = "request_trailers",
    ResponseHeaders = "response_headers",
    ResponseBody = "response_body",
    ResponseTrailers = "response_trailers",
    Scheduled = "scheduled",
    StreamComplete = "stream_complete",
    Destroy = "destroy",
    // Not Envoy's, but threads of the module's own.
    Thread = "thread",
}

impl Hook {
    /// Whether what it returns says if the request goes on.
    pub(crate) fn is_of_request(self) -> bool {
        matches!(
            self,
            Self::RequestHeaders | Self::RequestBody | Self::RequestTrailers
        )
    }
}

/// Panics since the start, by hook. Of the process, because a hook may panic before it knows its
/// configuration.
static PANICS: [AtomicU64; Hook::ALL.len()] = [const { AtomicU64::new(0) }; Hook::ALL.len()];

/// The panics since the last call, by hook; those without any are left out.
pub(crate) fn take_panics() -> impl Iterator<Item = (&'static str, u64)> {
    let counts = Hook::ALL.iter().zip(&PANICS);
    let counts = counts.map(|(hook, count)| (hook.name(), count.swap(0, Relaxed)));
    counts.filter(|(_, count)| *count > 0)
}

/// Panics write their place to Envoy's log, and nothing else: the text of a panic may have a part of
/// a prompt in it.
pub(crate) fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let place = place.unwrap_or_default();
        log(Level::Error, &format!("reflex: a panic at {place}"));
    }));
}

/// Runs something; none if it panics.
pub(crate) fn caught<T>(hook: Hook, what: impl FnOnce() -> T) -> Option<T> {
    // Nothing that it has changed is used after a panic: a stream gives up, the cache and its maps
    // bear it by themselves.
    let done = panic::catch_unwind(AssertUnwindSafe(what)).ok();
    if done.is_none()
        && let Some(count) = PANICS.get(hook as usize)
    {
        count.fetch_add(1, Relaxed);
    }
    done
}

/// Tests have hooks panic: the header `x-test-panic` names one of the same request, or `new` for the
/// next request.
#[cfg(feature = "planted")]
mod planted {
    use super::Hook;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    static NEXT: AtomicBool = AtomicBool::new(false);

    pub(crate) fn sow(headers: &[(&str, &[u8])], planted: &mut Option<Hook>) {
        let named = headers.iter().find(|(name, _)| *name == "x-test-panic");
        let named = named.map(|(_, value)| *value);
        *planted = Hook::ALL
            .iter()
            .copied()
            .find(|hook| named == Some(hook.name().as_bytes()));
        if *planted == Some(Hook::New) {
            NEXT.store(true, SeqCst);
        }
        assert!(*planted != Some(Hook::RequestHeaders), "planted");
    }

    pub(crate) fn plant(hook: Hook, planted: Option<Hook>) {
        assert!(planted != Some(hook), "planted");
    }

    pub(crate) fn plant_next() {
        assert!(!NEXT.swap(false, SeqCst), "planted");
    }
}

#[cfg(feature = "planted")]
pub(crate) use planted::{plant, plant_next, sow};

#[cfg(not(feature = "planted"))]
pub(crate) fn plant(_: Hook, _: Option<Hook>) {}

#[cfg(not(feature = "planted"))]
pub(crate) fn plant_next() {}
