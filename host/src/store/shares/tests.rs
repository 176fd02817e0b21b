//! Accounts of tenants: their number, their bounds, and who counts as one.

use super::*;

fn tenant(number: u64) -> [u8; 32] {
    let mut tenant = [1; 32];
    tenant[..8].copy_from_slice(&number.to_le_bytes());
    tenant
}

#[test]
fn accounts_are_bounded_and_further_tenants_count_as_one() {
    let shares = Shares::default();
    let held: Vec<_> = (0..ACCOUNTS_MAX as u64)
        .map(|number| shares.account(&tenant(number)))
        .collect();
    assert!(held.iter().all(|account| account.tenant().is_some()));
    for number in 0..5000 {
        let account = shares.account(&tenant(u64::MAX - number));
        assert!(account.tenant().is_none());
        shares.add(&account, 2);
    }
    assert_eq!(shares.accounts(), ACCOUNTS_MAX);
    let others = shares.stored(None);
    assert_eq!((others.entries, others.bytes), (5000, 10_000 * ALIGN));
    // Once segments count for them no more, others get theirs.
    drop(held);
    let own = (0..SWEEP_LEAST as u64).any(|number| {
        let account = shares.account(&tenant(u64::MAX - number));
        account.tenant().is_some()
    });
    assert!(own && shares.accounts() <= SWEEP_LEAST);
}

#[test]
fn accounts_without_entries_are_dropped_long_before_the_bound() {
    let shares = Shares::default();
    for number in 0..10 * SWEEP_LEAST as u64 {
        drop(shares.account(&tenant(number)));
        assert!(shares.accounts() <= SWEEP_LEAST);
    }
}

#[test]
fn a_tenant_is_over_its_own_bound_or_that_of_each() {
    let most = |bytes, entries| StoredMax { bytes, entries };
    let shares = Shares::new(TenantBounds {
        each: most(u64::MAX, 2),
        of: [(tenant(7), most(10 * ALIGN, u64::MAX))].into(),
        apart: None,
    });
    let over = |shares: &Shares| {
        let over = shares.take_over();
        let tenants = over.iter().map(|account| account.tenant().copied());
        let mut tenants: Vec<_> = tenants.collect();
        tenants.sort_unstable();
        tenants
    };
    let (one, seventh) = (shares.account(&tenant(1)), shares.account(&tenant(7)));
    shares.add(&one, 1000);
    shares.add(&one, 1000);
    for _ in 0..10 {
        shares.add(&seventh, 1);
    }
    assert_eq!(over(&shares), []);
    shares.add(&one, 1);
    shares.add(&one, 1);
    shares.add(&seventh, 1);
    assert_eq!(over(&shares), [Some(tenant(1)), Some(tenant(7))]);
    assert_eq!(over(&shares), []);
    // Other bounds hold at once.
    shares.bound(TenantBounds {
        each: most(u64::MAX, 3),
        ..TenantBounds::default()
    });
    assert_eq!(over(&shares), [Some(tenant(1)), Some(tenant(7))]);
    one.subtract(1, 1);
    assert!(!one.is_over() && seventh.is_over());
}
