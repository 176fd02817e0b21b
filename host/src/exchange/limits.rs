//! What each tenant may ask of the provider through the cache: misses in a second, and fills at once.
//!
//! Hits are not counted. Each takes some microseconds and costs the provider nothing, so that refusing
//! one, or sending it to the provider, would harm its client and the operator alike.

use reflex_llm::Bypass;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bound of the tenants whose rates are kept apart, at some 60 bytes each. A tenant that has not asked for
/// as long as its burst takes to come back is forgotten. Past the bound, further tenants share one rate.
const RATES_MAX: usize = 1 << 16;

/// Of the tenants past the bound, one in so many has those looked through that can be forgotten.
const REFUSED_EVERY: usize = 1 << 10;

/// What one tenant may ask; by default as much as it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Most {
    pub(crate) rate: Option<Rate>,
    /// Fills at once.
    pub(crate) fills: Option<u32>,
}

/// So many requests in a second, and so many at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    /// Over zero.
    pub(crate) per_second: f64,
    /// At least 1.
    pub(crate) burst: u32,
}

/// What becomes of a miss over its tenant's rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OverRate {
    /// The provider gets it, past the cache.
    #[default]
    Pass,
    /// Its client gets 429.
    Refuse,
}

/// The operator's limits.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rules {
    /// Of each tenant that `of` does not name.
    pub(crate) each: Most,
    pub(crate) of: HashMap<[u8; 32], Most>,
    /// All tenants but these, and those of `of`, count as one. `None`: each counts for itself.
    pub(crate) apart: Option<HashSet<[u8; 32]>>,
    pub(crate) over_rate: OverRate,
}

impl Rules {
    /// What a tenant may ask, and for whom that counts: `None` is all those who count as one.
    fn of<'t>(&self, tenant: &'t [u8; 32]) -> (Option<&'t [u8; 32]>, Most) {
        if let Some(most) = self.of.get(tenant) {
            return (Some(tenant), *most);
        }
        let apart = self.apart.as_ref();
        let is_apart = apart.is_none_or(|apart| apart.contains(tenant));
        (is_apart.then_some(tenant), self.each)
    }
}

/// Why the cache does not take a miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The rate is used up, and has room again after this time. Nothing else becomes of it than
    /// [`OverRate`] says.
    Rate(Duration, OverRate),
    /// The tenant has as many fills as it may have.
    Fills,
}

impl From<Over> for Bypass {
    fn from(over: Over) -> Self {
        match over {
            Over::Rate(..) => Self::TenantRate,
            Over::Fills => Self::TenantFills,
        }
    }
}

/// The limits, and what each tenant has used of them. One for each [`Fills`](super::fills::Fills).
#[derive(Debug)]
pub(crate) struct TenantLimits {
    used: Mutex<Used>,
    /// Rates count from here.
    start: Instant,
    counts: [AtomicU64; 3],
}

/// How many misses were over a limit since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(feature = "serve"), allow(dead_code, reason = "for metrics"))]
pub(crate) struct OverCounts {
    pub(crate) rate_passed: u64,
    pub(crate) rate_refused: u64,
    pub(crate) fills_passed: u64,
}

#[derive(Debug, Default)]
struct Used {
    rules: Arc<Rules>,
    /// When the rate is wholly unused again, in nanoseconds.
    rates: HashMap<[u8; 32], u64>,
    /// Of the tenants that count as one, and of those past the bound.
    others_rate: u64,
    refused: usize,
    /// Fills under way, of tenants that have any. No more than there are fills.
    fills: HashMap<[u8; 32], u32>,
    others_fills: u32,
}

impl Default for TenantLimits {
    /// No limits.
    fn default() -> Self {
        Self {
            used: Mutex::default(),
            start: Instant::now(),
            counts: Default::default(),
        }
    }
}

impl TenantLimits {
    /// Other limits hold for all misses from now on. What was used of the earlier ones is used of these.
    #[cfg_attr(
        not(any(feature = "serve", test)),
        allow(dead_code, reason = "the daemon has limits")
    )]
    pub(crate) fn set(&self, rules: Rules) {
        self.lock().rules = Arc::new(rules);
    }

    /// A miss of this tenant: whether the cache takes it.
    pub(crate) fn ask(&self, tenant: &[u8; 32], now: Instant) -> Result<(), Over> {
        let now = now.saturating_duration_since(self.start).as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let mut used = self.lock();
        let rules = Arc::clone(&used.rules);
        let (whose, Most { rate, .. }) = rules.of(tenant);
        let Some(rate) = rate else {
            return Ok(());
        };
        let asked = rate.ask(used.rate_of(whose, now), now);
        drop(used);
        asked.map_err(|wait| {
            let count = match rules.over_rate {
                OverRate::Pass => &self.counts[0],
                OverRate::Refuse => &self.counts[1],
            };
            count.fetch_add(1, Relaxed);
            Over::Rate(wait, rules.over_rate)
        })
    }

    /// A fill of this tenant begins, if it may.
    pub(crate) fn begin(self: &Arc<Self>, tenant: &[u8; 32]) -> Option<FillPlace> {
        let mut used = self.lock();
        let rules = Arc::clone(&used.rules);
        let (whose, Most { fills, .. }) = rules.of(tenant);
        let begun = match whose {
            Some(tenant) => used.fills.entry(*tenant).or_default(),
            None => &mut used.others_fills,
        };
        if fills.is_some_and(|most| *begun >= most) {
            self.counts[2].fetch_add(1, Relaxed);
            return None;
        }
        *begun += 1;
        Some(FillPlace {
            tenant: *tenant,
            is_apart: whose.is_some(),
            limits: Arc::clone(self),
        })
    }

    fn end(&self, whose: Option<&[u8; 32]>) {
        let mut used = self.lock();
        let Some(tenant) = whose else {
            used.others_fills -= 1;
            return;
        };
        if let Some(begun) = used.fills.get_mut(tenant) {
            *begun -= 1;
            if *begun == 0 {
                used.fills.remove(tenant);
            }
        }
    }

    /// How many misses were over a limit.
    #[cfg_attr(not(feature = "serve"), allow(dead_code, reason = "for metrics"))]
    pub(crate) fn counts(&self) -> OverCounts {
        let [rate_passed, rate_refused, fills_passed] =
            [0, 1, 2].map(|at: usize| self.counts[at].load(Relaxed));
        OverCounts {
            rate_passed,
            rate_refused,
            fills_passed,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        // Each statement under this lock leaves the guarded value consistent.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Used {
    /// Where the rate of a tenant is kept.
    fn rate_of(&mut self, whose: Option<&[u8; 32]>, now: u64) -> &mut u64 {
        let Some(tenant) = whose else {
            return &mut self.others_rate;
        };
        if self.rates.len() >= RATES_MAX && !self.rates.contains_key(tenant) {
            if self.refused.is_multiple_of(REFUSED_EVERY) {
                self.rates.retain(|_, unused_at| *unused_at > now);
            }
            if self.rates.len() >= RATES_MAX {
                self.refused += 1;
                return &mut self.others_rate;
            }
            self.refused = 0;
        }
        self.rates.entry(*tenant).or_default()
    }
}

impl Rate {
    /// One request more; without room for it, how long until there is.
    ///
    /// This is the generic cell rate algorithm: a bucket of tokens, of which only the time is kept when it
    /// will be full.
    fn ask(self, full_at: &mut u64, now: u64) -> Result<(), Duration> {
        let each = Duration::from_secs(1).as_nanos() as f64 / self.per_second;
        // A rate of one in a few centuries would have none.
        let each = (each as u64).max(1);
        let burst = each.saturating_mul(self.burst.into());
        let next = (*full_at).max(now).saturating_add(each);
        match next.saturating_sub(now).checked_sub(burst) {
            None | Some(0) => {
                *full_at = next;
                Ok(())
            }
            Some(wait) => Err(Duration::from_nanos(wait)),
        }
    }
}

/// A fill of a tenant, counted as long as this is held.
#[derive(Debug)]
pub(crate) struct FillPlace {
    pub(crate) tenant: [u8; 32],
    /// Not counted as one with others.
    is_apart: bool,
    limits: Arc<TenantLimits>,
}

impl Drop for FillPlace {
    fn drop(&mut self) {
        self.limits.end(self.is_apart.then_some(&self.tenant));
    }
}

#[cfg(test)]
mod tests;
