//! How much of the store each tenant has, and how much it may have.
//!
//! Each segment counts its live records by tenant (`tenant_bytes.rs`), and adds them up here, in one
//! [`Account`] for each tenant. Lookups use none of this. A tenant over its bound is listed, and the store
//! then evicts the tenant's oldest entries. The accounts also tell whose entries `policy.rs` shelters.

use super::format::ALIGN;
use super::policy::{SHARES, SHELTERED_SHARES, fair_share};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bound of the tenants with an account of their own, at some 150 bytes each. Further tenants have one
/// account together, and are one tenant to all bounds, until others have no entries left.
pub(crate) const ACCOUNTS_MAX: usize = 1 << 16;

/// Fewer accounts than this are never looked through for those without entries.
const SWEEP_LEAST: usize = 1 << 10;

/// A bounded tenant's entries of a segment are evicted in parts of at most one part in this many of its
/// bound, or one entry.
const PARTS: u64 = 16;

/// The whole store, in the unit of [`Account::part_of`].
const WHOLE: u64 = 1 << 32;

/// The most that a tenant may store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredMax {
    /// On disk, in bytes; headers and metadata count.
    pub bytes: u64,
    /// Entries on disk.
    pub entries: u64,
}

impl Default for StoredMax {
    /// As much as the cache has room for.
    fn default() -> Self {
        Self {
            bytes: u64::MAX,
            entries: u64::MAX,
        }
    }
}

/// What each tenant may store, and which tenants count as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantBounds {
    /// Of each tenant that `of` does not name.
    pub each: StoredMax,
    /// Of single tenants.
    pub of: HashMap<[u8; 32], StoredMax>,
    /// All tenants but these, and those of `of`, count as one tenant. `None`: each counts for itself.
    pub apart: Option<HashSet<[u8; 32]>>,
}

impl TenantBounds {
    /// Whether a tenant counts for itself.
    fn is_apart(&self, tenant: &[u8; 32]) -> bool {
        let apart = self.apart.as_ref();
        apart.is_none_or(|apart| apart.contains(tenant) || self.of.contains_key(tenant))
    }

    fn of(&self, tenant: Option<&[u8; 32]>) -> StoredMax {
        let own = tenant.and_then(|tenant| self.of.get(tenant));
        own.copied().unwrap_or(self.each)
    }
}

/// What a tenant has stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Of live entries on disk, headers and metadata included.
    pub bytes: u64,
    /// Live entries on disk.
    pub entries: u64,
}

/// The accounts of all tenants of a store. By default none has a bound.
#[derive(Debug)]
pub(crate) struct Shares {
    accounts: Mutex<Accounts>,
    /// Of the tenants without an account of their own.
    others: Arc<Account>,
    over: Mutex<Vec<Arc<Account>>>,
    /// Whether `over` has any.
    has_over: AtomicBool,
    /// Whether two tenants ever had an account.
    are_several: AtomicBool,
}

/// The tenant of tombstones, which belong to none.
const NO_TENANT: [u8; 32] = [0; 32];

#[derive(Debug, Default)]
struct Accounts {
    by_tenant: HashMap<[u8; 32], Arc<Account>>,
    /// With so many, those without entries are dropped.
    sweep_at: usize,
    /// How often a tenant got none, because all were in use.
    refused: usize,
    bounds: TenantBounds,
}

/// What one tenant has stored, in all segments. Only the writer adds.
#[derive(Debug)]
pub(super) struct Account {
    /// `None`: several tenants together.
    tenant: Option<[u8; 32]>,
    /// In units of [`ALIGN`].
    units: AtomicU64,
    records: AtomicU64,
    units_max: AtomicU64,
    records_max: AtomicU64,
    /// No segment with a lower id has entries of it.
    oldest: AtomicU64,
    /// It is in the list of those over their bound.
    is_listed: AtomicBool,
}

impl Account {
    fn new(tenant: Option<[u8; 32]>, most: StoredMax) -> Arc<Self> {
        let account = Self {
            tenant,
            units: AtomicU64::new(0),
            records: AtomicU64::new(0),
            units_max: AtomicU64::new(0),
            records_max: AtomicU64::new(0),
            oldest: AtomicU64::new(u64::MAX),
            is_listed: AtomicBool::new(false),
        };
        account.bound(most);
        Arc::new(account)
    }

    fn bound(&self, most: StoredMax) {
        let units_max = match most.bytes {
            u64::MAX => u64::MAX,
            bytes => bytes / ALIGN,
        };
        self.units_max.store(units_max, Relaxed);
        self.records_max.store(most.entries, Relaxed);
    }

    /// `None`: several tenants together.
    pub(super) fn tenant(&self) -> Option<&[u8; 32]> {
        self.tenant.as_ref()
    }

    pub(super) fn stored(&self) -> Stored {
        Stored {
            bytes: self.units.load(Relaxed) * ALIGN,
            entries: self.records.load(Relaxed),
        }
    }

    pub(super) fn subtract(&self, records: u32, units: u32) {
        self.records.fetch_sub(records.into(), Relaxed);
        self.units.fetch_sub(units.into(), Relaxed);
    }

    /// Whether it has more than it may have.
    pub(super) fn is_over(&self) -> bool {
        self.units.load(Relaxed) > self.units_max.load(Relaxed)
            || self.records.load(Relaxed) > self.records_max.load(Relaxed)
    }

    /// Whether entries of so much are a whole part of what it may have.
    pub(super) fn is_part(&self, records: u32, units: u32) -> bool {
        let (units_max, records_max) = (&self.units_max, &self.records_max);
        u64::from(units) >= (units_max.load(Relaxed) / PARTS).max(1)
            || u64::from(records) >= (records_max.load(Relaxed) / PARTS).max(1)
    }

    /// A segment has entries of it from now on.
    pub(super) fn is_in(&self, segment: u64) {
        self.oldest.fetch_min(segment, Relaxed);
    }

    pub(super) fn oldest(&self) -> u64 {
        self.oldest.load(Relaxed)
    }

    /// No segment with a lower id has entries of it.
    pub(super) fn set_oldest(&self, segment: u64) {
        self.oldest.store(segment, Relaxed);
    }

    /// The part of a store of `room` that it takes, by bytes or entries, whichever is more.
    pub(super) fn part_of(&self, room: Stored) -> u64 {
        let part = |of: u64, whole: u64| {
            let part = u128::from(of) * u128::from(WHOLE) / u128::from(whole.max(1));
            u64::try_from(part).unwrap_or(u64::MAX)
        };
        let Stored { bytes, entries } = self.stored();
        part(bytes, room.bytes).max(part(entries, room.entries))
    }
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            accounts: Mutex::default(),
            others: Account::new(None, StoredMax::default()),
            over: Mutex::default(),
            has_over: AtomicBool::new(false),
            are_several: AtomicBool::new(false),
        }
    }
}

impl Shares {
    pub(crate) fn new(bounds: TenantBounds) -> Arc<Self> {
        let shares = Self::default();
        shares.bound(bounds);
        Arc::new(shares)
    }

    /// Other bounds hold from now on. Which tenants count as one: for entries in segments where the tenant
    /// has none yet.
    pub(crate) fn bound(&self, bounds: TenantBounds) {
        let mut accounts = lock(&self.accounts);
        self.others.bound(bounds.of(None));
        self.list_if_over(&self.others);
        for (tenant, account) in &accounts.by_tenant {
            account.bound(bounds.of(Some(tenant)));
            self.list_if_over(account);
        }
        accounts.bounds = bounds;
    }

    /// The account of a tenant.
    pub(super) fn account(&self, tenant: &[u8; 32]) -> Arc<Account> {
        if *tenant == NO_TENANT {
            return Arc::clone(&self.others);
        }
        let mut accounts = lock(&self.accounts);
        if let Some(account) = accounts.by_tenant.get(tenant) {
            return Arc::clone(account);
        }
        if !accounts.by_tenant.is_empty() {
            self.are_several.store(true, Relaxed);
        }
        if !accounts.bounds.is_apart(tenant) || !accounts.has_room() {
            return Arc::clone(&self.others);
        }
        let account = Account::new(Some(*tenant), accounts.bounds.of(Some(tenant)));
        accounts.by_tenant.insert(*tenant, Arc::clone(&account));
        account
    }

    /// Adds to an account.
    pub(super) fn add(&self, account: &Arc<Account>, units: u64) {
        account.units.fetch_add(units, Relaxed);
        account.records.fetch_add(1, Relaxed);
        self.list_if_over(account);
    }

    fn list_if_over(&self, account: &Arc<Account>) {
        if account.is_over() && !account.is_listed.swap(true, Relaxed) {
            lock(&self.over).push(Arc::clone(account));
            self.has_over.store(true, Relaxed);
        }
    }

    /// The accounts that were over their bound, since the last call.
    pub(super) fn take_over(&self) -> Vec<Arc<Account>> {
        if !self.has_over.load(Relaxed) {
            return Vec::new();
        }
        let mut over = lock(&self.over);
        self.has_over.store(false, Relaxed);
        for account in &*over {
            account.is_listed.store(false, Relaxed);
        }
        std::mem::take(&mut *over)
    }

    /// Whether there may be tenants to shelter from each other.
    pub(super) fn are_several(&self) -> bool {
        self.are_several.load(Relaxed)
    }

    /// The entries of accounts that take at most this part of a store of `room` are sheltered: see
    /// `policy.rs`. Looks at each account.
    pub(super) fn sheltered_max(&self, room: Stored) -> u64 {
        let accounts = lock(&self.accounts);
        let all = accounts.by_tenant.values().chain([&self.others]);
        let uses: Vec<u64> = all
            .map(|account| account.part_of(room))
            .filter(|part| *part > 0)
            .collect();
        drop(accounts);
        fair_share(&uses, WHOLE / SHARES * SHELTERED_SHARES)
    }

    /// What a tenant has stored, and `None` for the tenants that count as one.
    pub(crate) fn stored(&self, tenant: Option<&[u8; 32]>) -> Stored {
        let Some(tenant) = tenant else {
            return self.others.stored();
        };
        let accounts = lock(&self.accounts);
        let account = accounts.by_tenant.get(tenant);
        account.map(|account| account.stored()).unwrap_or_default()
    }

    /// What all tenants together have stored.
    #[cfg(test)]
    pub(super) fn all(&self) -> u64 {
        let accounts = lock(&self.accounts);
        let all = accounts.by_tenant.values().chain([&self.others]);
        all.map(|account| account.stored().entries).sum()
    }

    #[cfg(test)]
    pub(super) fn accounts(&self) -> usize {
        lock(&self.accounts).by_tenant.len()
    }
}

impl Accounts {
    /// Whether another account has room. Drops those that no segment counts for, now and then.
    fn has_room(&mut self) -> bool {
        let all = &mut self.by_tenant;
        if all.len() >= self.sweep_at.max(SWEEP_LEAST) {
            // Where all are in use, most looks would be in vain.
            if self.refused.is_multiple_of(SWEEP_LEAST) {
                all.retain(|_, account| Arc::strong_count(account) > 1);
                self.sweep_at = (2 * all.len()).min(ACCOUNTS_MAX);
            }
            self.refused += 1;
        }
        let has_room = all.len() < ACCOUNTS_MAX;
        if has_room {
            self.refused = 0;
        }
        has_room
    }
}

/// Each statement under these locks leaves the guarded value consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
