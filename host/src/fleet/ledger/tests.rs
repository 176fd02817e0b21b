//! Ledgers of several edges: they agree, and none forgets a purge.

use super::*;

const T: [u8; 32] = [1; 32];
const U: [u8; 32] = [2; 32];
const K: [u8; 32] = [3; 32];

fn secret() -> (Secret, Name) {
    let secret = Secret::of(b"fleet");
    let name = secret.name(&[b"ledger"]);
    (secret, name)
}

/// An edge that listens.
const NOW: Option<u64> = Some(u64::MAX);

#[test]
fn a_ledger_comes_back_and_every_flipped_byte_is_refused() {
    let (secret, name) = secret();
    let mut ledger = Ledger::default();
    ledger.purge_all(1);
    ledger.purge_tenant(&T, 2);
    ledger.remove(&K, 3);
    ledger.begin_season();
    let whole = ledger.encode(&secret, &name);
    assert_eq!(Ledger::decode(&secret, &name, &whole), Some(ledger));
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        assert_eq!(Ledger::decode(&secret, &name, &bytes), None, "byte {at}");
        assert_eq!(Ledger::decode(&secret, &name, &whole[..at]), None);
    }
    let other = secret.name(&[b"bell"]);
    assert_eq!(Ledger::decode(&secret, &other, &whole), None);
}

#[test]
fn a_merge_tells_what_is_to_be_dropped_and_only_once() {
    let check = |change: fn(&mut Ledger), changes: Changes| {
        let (mut one, mut other) = (Ledger::default(), Ledger::default());
        change(&mut other);
        assert_eq!(one.merge(&other, NOW), changes);
        assert_eq!(one, other);
        assert!(one.merge(&other, NOW).is_empty());
        assert!(other.merge(&one, NOW).is_empty());
        // What has never been a member has nothing that was purged.
        assert!(Ledger::default().merge(&other, None).is_empty());
    };
    let none = Changes::default;
    check(|ledger| ledger.begin_season(), none());
    let all = Changes {
        all: true,
        ..none()
    };
    check(|ledger| ledger.purge_all(0), all);
    let tenants = Changes {
        tenants: vec![T],
        ..none()
    };
    check(|ledger| ledger.purge_tenant(&T, 0), tenants);
    let keys = Changes {
        keys: vec![K],
        ..none()
    };
    check(
        |ledger| {
            let _ = ledger.remove(&K, 7);
        },
        keys,
    );
}

#[test]
fn edges_that_purge_at_the_same_time_agree_in_either_order() {
    let mut one = Ledger::default();
    let mut other = Ledger::default();
    one.purge_tenant(&T, 1);
    other.purge_tenant(&T, 1);
    other.purge_tenant(&U, 1);
    one.remove(&K, 5);
    other.remove(&K, 6);
    let (mut first, mut second) = (one.clone(), other.clone());
    first.merge(&other, NOW);
    second.merge(&one, NOW);
    assert_eq!(first, second);
    assert!(first.tenant(&T) == one.tenant(&T).max(other.tenant(&T)));
}

#[test]
fn a_restored_ledger_loses_nothing_that_an_edge_knows() {
    let mut edge = Ledger::default();
    edge.purge_tenant(&T, 1);
    let old = edge.clone();
    edge.purge_tenant(&T, 2);
    edge.purge_all(2);
    let knows = edge.clone();
    assert!(edge.merge(&old, NOW).is_empty());
    assert_eq!(edge, knows);
}

#[test]
fn a_purge_of_a_tenant_after_one_of_everything_survives_it() {
    // This edge has purged a tenant, and has not heard that everything was purged elsewhere before.
    let mut edge = Ledger::default();
    edge.purge_tenant(&T, 1);
    let own = edge.tenant(&T);
    let mut elsewhere = Ledger::default();
    elsewhere.purge_all(0);
    edge.merge(&elsewhere, NOW);
    edge.insist(&T, own, 2);
    assert!(edge.tenant(&T) > Generation::default() && edge.tenant(&T) != own);
    let changes = elsewhere.merge(&edge, NOW);
    assert_eq!(changes.tenants, [T]);
    // A purge that is still known is not made again.
    let known = edge.clone();
    edge.insist(&T, known.tenant(&T), 2);
    assert_eq!(edge, known);
}

#[test]
fn a_removal_is_later_than_any_other_of_its_key() {
    let mut edge = Ledger::default();
    assert_eq!(edge.remove(&K, 100), 100);
    let mut elsewhere = Ledger::default();
    elsewhere.merge(&edge, NOW);
    // Its clock is behind.
    assert_eq!(elsewhere.remove(&K, 40), 101);
    assert_eq!(edge.merge(&elsewhere, NOW).keys, [K]);
    edge.purge_all(200);
    assert_eq!(edge.removed_at(&K), None);
    assert_eq!(edge.remove(&K, 40), 201);
}

#[test]
fn more_tenants_than_fit_purge_everything() {
    let mut ledger = Ledger::default();
    for number in 0..TENANTS_MAX as u64 {
        let mut tenant = [0; 32];
        tenant[..8].copy_from_slice(&number.to_le_bytes());
        ledger.purge_tenant(&tenant, 1);
    }
    assert_eq!(ledger.tenants.len(), TENANTS_MAX);
    assert_eq!(ledger.all, Generation::default());
    let before = ledger.clone();
    ledger.purge_tenant(&[0xff; 32], 1);
    assert!(ledger.tenants.is_empty() && ledger.all > before.all);
    // The copy of an edge that has not heard of it does not bring them back.
    assert!(ledger.merge(&before, NOW).keys.is_empty());
    assert!(ledger.tenants.is_empty());
}

#[test]
fn old_removals_are_forgotten_and_an_edge_that_was_away_drops_everything() {
    let key = |number: u64| {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        key
    };
    let mut ledger = Ledger::default();
    for number in 0..=REMOVALS_KEPT as u64 {
        ledger.remove(&key(number), 1_000_000 + number * 1000);
    }
    assert!(ledger.removals.len() <= REMOVALS_KEPT);
    assert!(ledger.forgotten_at_ms >= 1_000_000);
    let last = 1_000_000 + REMOVALS_KEPT as u64 * 1000;
    assert!(ledger.forgotten_at_ms <= last - FORGOTTEN_AFTER_MS);
    let has_to_drop_all = |heard| Ledger::default().merge(&ledger, Some(heard)).all;
    assert!(has_to_drop_all(ledger.forgotten_at_ms));
    assert!(has_to_drop_all(
        ledger.forgotten_at_ms + CLOCKS_DIFFER_MS_MAX
    ));
    assert!(!has_to_drop_all(
        ledger.forgotten_at_ms + CLOCKS_DIFFER_MS_MAX + 1
    ));
    // The one that listens all the time never has to.
    assert!(!has_to_drop_all(last));
}

#[test]
fn more_removals_at_once_than_fit_purge_everything() {
    let mut ledger = Ledger::default();
    for number in 0..=REMOVALS_MAX as u64 {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        assert_eq!(ledger.all, Generation::default());
        ledger.remove(&key, 1_000_000);
        assert!(ledger.removals.len() <= REMOVALS_MAX);
    }
    assert!(ledger.all > Generation::default());
    assert!(ledger.removals.is_empty());
    let (secret, name) = secret();
    assert!(ledger.encode(&secret, &name).len() < BYTES_MAX);
}
