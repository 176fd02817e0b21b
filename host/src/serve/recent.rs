//! What happened in the last hour, by name: models, routes and tenants, reasons, keys that split, and
//! faults of guests. Memory is bounded, and nothing of a prompt or credential is kept.
//!
//! Counts are kept in windows of ten minutes, so that an hour later they are gone.

mod top;

use crate::clock::Clock;
use crate::sync::lock;
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
pub(crate) use top::Often;
use top::Top;

/// Windows that are over and still count. With the current one they cover at least an hour.
const WINDOWS_MAX: usize = 6;

/// Names of a list that are shown.
const SHOWN_MAX: usize = 10;

/// Longer names of models and routes are cut, at a character's boundary.
const NAME_BYTES_MAX: usize = 128;

/// Parts of requests that split keys, in one window. The metrics have no more.
const SPLITS_MAX: usize = 128;

/// Hits that a thread counts one by one between two turns; of further ones it counts a sample.
const EXACT_HITS_MAX: u32 = 1024;

/// One in this many further hits is counted, and stands for all of them.
const SAMPLED: u32 = 16;

/// What kind of reason a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A request passed by.
    Bypass,
    /// An answer was not stored.
    NotKept,
    /// A guest failed.
    GuestFault,
}

/// Whose request it is, for which model, and where it went, as far as known.
#[derive(Clone, Copy, Default)]
pub(crate) struct Subject<'a> {
    pub(crate) model: Option<&'a str>,
    /// A path without its query, which may hold a credential.
    pub(crate) route: Option<&'a str>,
    pub(crate) tenant: Option<&'a [u8; 32]>,
}

/// How often something happened in the last hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) count: u64,
    /// In milliseconds since 1970.
    pub(crate) last_ms: u64,
}

/// A part of requests that splits keys: its kind and its name.
type Part = (&'static str, String);

/// Events of the last hour, by name.
pub(crate) struct Recent {
    clock: Clock,
    /// The newest last.
    windows: Mutex<VecDeque<Window>>,
    /// Turns so far, for threads to see that one has come.
    turns: AtomicU32,
}

#[derive(Default)]
struct Window {
    models: Top<String>,
    routes: Top<String>,
    tenants: Top<[u8; 32]>,
    /// Words of ours: as many as `docs/reasons.md` has.
    reasons: BTreeMap<(Kind, &'static str), Times>,
    /// At most [`SPLITS_MAX`].
    splits: BTreeMap<Part, Times>,
}

impl Default for Recent {
    fn default() -> Self {
        Self::with(Clock::system())
    }
}

impl Recent {
    pub(crate) fn with(clock: Clock) -> Self {
        Self {
            clock,
            windows: Mutex::new(VecDeque::from([Window::default()])),
            turns: AtomicU32::new(0),
        }
    }

    /// A request that was a hit. Never waits: while another thread counts, this one is left out. Of
    /// many hits, a sample is counted.
    pub(crate) fn hit(&self, subject: &Subject<'_>) {
        let Some(weight) = weight(self.turns.load(Relaxed)) else {
            return;
        };
        if let Ok(mut windows) = self.windows.try_lock()
            && let Some(window) = windows.back_mut()
        {
            window.add(subject, true, weight);
        }
    }

    /// A request that was no hit.
    pub(crate) fn asked(&self, subject: &Subject<'_>) {
        if let Some(window) = lock(&self.windows).back_mut() {
            window.add(subject, false, 1);
        }
    }

    pub(crate) fn reason(&self, kind: Kind, reason: &'static str) {
        let now_ms = self.clock.now_ms();
        if let Some(window) = lock(&self.windows).back_mut() {
            note(&mut window.reasons, (kind, reason), now_ms);
        }
    }

    /// A miss whose key splits by that part.
    pub(crate) fn split(&self, by: &'static str, name: &str) {
        let part = (by, cut(name).to_owned());
        let now_ms = self.clock.now_ms();
        if let Some(window) = lock(&self.windows).back_mut()
            && (window.splits.len() < SPLITS_MAX || window.splits.contains_key(&part))
        {
            note(&mut window.splits, part, now_ms);
        }
    }

    /// A new sample of hits begins; with `ends_window`, also a new window.
    pub(crate) fn turn(&self, ends_window: bool) {
        self.turns.fetch_add(1, Relaxed);
        if ends_window {
            let mut windows = lock(&self.windows);
            windows.push_back(Window::default());
            if windows.len() > WINDOWS_MAX + 1 {
                windows.pop_front();
            }
        }
    }

    pub(crate) fn models(&self) -> Vec<Often<String>> {
        self.top(|window| &window.models)
    }

    pub(crate) fn routes(&self) -> Vec<Often<String>> {
        self.top(|window| &window.routes)
    }

    pub(crate) fn tenants(&self) -> Vec<Often<[u8; 32]>> {
        self.top(|window| &window.tenants)
    }

    /// The most frequent first.
    pub(crate) fn reasons(&self) -> Vec<((Kind, &'static str), Times)> {
        self.sum(|window| &window.reasons)
    }

    /// The most frequent first.
    pub(crate) fn splits(&self) -> Vec<(Part, Times)> {
        self.sum(|window| &window.splits)
    }

    fn top<K: Clone + Eq + Hash + Ord>(&self, of: impl Fn(&Window) -> &Top<K>) -> Vec<Often<K>> {
        Top::of(lock(&self.windows).iter().map(of), SHOWN_MAX)
    }

    fn sum<K: Clone + Ord>(&self, of: impl Fn(&Window) -> &BTreeMap<K, Times>) -> Vec<(K, Times)> {
        let mut sums: BTreeMap<K, Times> = BTreeMap::new();
        for (name, times) in lock(&self.windows).iter().flat_map(of) {
            let sum = sums.entry(name.clone()).or_insert(Times {
                count: 0,
                last_ms: 0,
            });
            sum.count += times.count;
            sum.last_ms = sum.last_ms.max(times.last_ms);
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(_, times)| std::cmp::Reverse(times.count));
        sums
    }
}

impl Window {
    fn add(&mut self, subject: &Subject<'_>, is_hit: bool, weight: u64) {
        if let Some(model) = subject.model {
            self.models.add(cut(model), is_hit, weight);
        }
        if let Some(route) = subject.route {
            self.routes.add(cut(route), is_hit, weight);
        }
        if let Some(tenant) = subject.tenant {
            self.tenants.add(tenant, is_hit, weight);
        }
    }
}

impl fmt::Debug for Recent {
    /// Without names, which clients choose.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").finish_non_exhaustive()
    }
}

fn note<K: Ord>(times: &mut BTreeMap<K, Times>, name: K, now_ms: u64) {
    let times = times.entry(name).or_insert(Times {
        count: 0,
        last_ms: 0,
    });
    times.count += 1;
    times.last_ms = now_ms;
}

fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_BYTES_MAX)]
}

/// For how many hits this one of the current thread stands; none if it is left out. So a hit costs a
/// few reads and writes of the thread's own memory.
fn weight(turns: u32) -> Option<u64> {
    thread_local! {
        /// The turn, hits in it, and the state of a linear congruential generator: a fixed step could
        /// always meet the same of several alternating requests.
        static SEEN: Cell<(u32, u32, u32)> = const { Cell::new((0, 0, 0x9e37_79b9)) };
    }
    SEEN.with(|seen| {
        let (turn, hits, state) = seen.get();
        let hits = if turn == turns { hits } else { 0 };
        if hits < EXACT_HITS_MAX {
            seen.set((turns, hits + 1, state));
            return Some(1);
        }
        // Numerical Recipes' constants; the high bits are the random ones.
        let state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seen.set((turns, hits, state));
        (state / (u32::MAX / SAMPLED + 1) == 0).then_some(u64::from(SAMPLED))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(model: &str) -> Subject<'_> {
        Subject {
            model: Some(model),
            route: Some("/v1/chat/completions"),
            tenant: Some(&[7; 32]),
        }
    }

    #[test]
    fn an_hour_later_nothing_is_left() {
        let recent = Recent::default();
        recent.asked(&subject("m"));
        recent.reason(Kind::Bypass, "store");
        recent.split("header", "x-call");
        for _ in 0..WINDOWS_MAX {
            recent.turn(true);
            assert_eq!(recent.models().len(), 1);
            assert_eq!(recent.reasons().len(), 1);
            assert_eq!(recent.splits().len(), 1);
        }
        recent.turn(true);
        assert!(recent.models().is_empty() && recent.tenants().is_empty());
        assert!(recent.reasons().is_empty() && recent.splits().is_empty());
        assert_eq!(lock(&recent.windows).len(), WINDOWS_MAX + 1);
    }

    #[test]
    fn few_hits_are_counted_exactly_and_many_nearly() {
        let few = u64::from(EXACT_HITS_MAX);
        let recent = Recent::default();
        for (hits, off_max) in [(few, 0), (100_000, 10_000)] {
            recent.turn(false);
            let before = recent.models().first().map_or(0, |it| it.hits);
            for _ in 0..hits {
                recent.hit(&subject("m"));
            }
            let counted = recent.models()[0].hits - before;
            assert!(counted.abs_diff(hits) <= off_max, "{counted} of {hits}");
        }
    }

    #[test]
    fn a_hit_never_waits_for_another_thread_that_counts() {
        let recent = Recent::default();
        let counting = lock(&recent.windows);
        recent.hit(&subject("m"));
        drop(counting);
        assert!(recent.models().is_empty());
    }

    #[test]
    fn names_and_parts_are_bounded() {
        let recent = Recent::default();
        let long = "ä".repeat(NAME_BYTES_MAX);
        recent.asked(&subject(&long));
        assert_eq!(recent.models()[0].name, "ä".repeat(NAME_BYTES_MAX / 2));
        for number in 0..2 * SPLITS_MAX {
            recent.split("header", &format!("x-{number}"));
        }
        assert_eq!(recent.splits().len(), SPLITS_MAX);
        recent.split("header", "x-0");
        assert_eq!(recent.splits()[0].1.count, 2);
    }

    #[test]
    fn the_latest_time_is_told() {
        let now = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(5));
        let recent = Recent::with(Clock::from_fn({
            let now = std::sync::Arc::clone(&now);
            move || now.load(Relaxed)
        }));
        recent.reason(Kind::NotKept, "cut");
        recent.turn(true);
        now.store(9, Relaxed);
        recent.reason(Kind::NotKept, "cut");
        let expected = (
            (Kind::NotKept, "cut"),
            Times {
                count: 2,
                last_ms: 9,
            },
        );
        assert_eq!(recent.reasons(), [expected]);
    }
}
