//! Purges here and elsewhere: nothing is fetched across one, and each is told until it is confirmed.

use super::*;

const T: [u8; 32] = [1; 32];
const U: [u8; 32] = [2; 32];
/// The number of the line to the engine.
const LINE: u64 = 1;
const KEY: CacheKey = CacheKey::from_bytes([3; 32]);

fn state_at(path: Option<PathBuf>) -> State {
    let secret = Secret::of(b"fleet");
    let name = secret.name(&[b"ledger"]);
    State::new(secret, name, path, Clock::from_fn(|| 1_000_000)).0
}

fn ready() -> State {
    let state = state_at(None);
    state.heard(LINE);
    state
}

/// A purge through the cache's own bookkeeping, and what is true meanwhile.
fn purge(state: &State, what: Purged, meanwhile: impl FnOnce()) {
    state.purging(&what);
    meanwhile();
    state.purged(&what);
}

/// Takes over all that the other one knows, as a poll does.
fn follow(edge: &State, other: &State) -> Changes {
    let theirs = edge.decode(&other.encoded().0).expect("a ledger");
    let changes = edge.begin(&theirs);
    edge.learn(&theirs, true);
    changes
}

#[test]
fn nothing_is_fetched_or_shared_before_the_first_news() {
    let state = state_at(None);
    assert!(state.view(&T).is_none() && state.view_to_fetch(&KEY, &T, LINE).is_none());
    state.heard(LINE);
    assert!(state.view(&T).is_some() && state.view_to_fetch(&KEY, &T, LINE).is_some());
}

#[test]
fn nothing_is_fetched_on_a_new_line_before_its_news() {
    let state = ready();
    assert!(state.view_to_fetch(&KEY, &T, LINE).is_some());
    assert!(state.view_to_fetch(&KEY, &T, LINE + 1).is_none());
    state.heard(LINE + 1);
    assert!(state.view_to_fetch(&KEY, &T, LINE + 1).is_some());
}

#[test]
fn nothing_is_fetched_across_a_purge() {
    let state = ready();
    for what in [Purged::All, Purged::Tenant(T), Purged::Matching] {
        let before = state.view(&T).expect("ready");
        purge(&state, what, || {
            assert!(state.view_to_fetch(&KEY, &U, LINE).is_none(), "{what:?}");
            assert!(state.view(&T).is_some());
        });
        let after = state.view_to_fetch(&KEY, &T, LINE).expect("it has ended");
        assert!(before.all < after.all || before.tenant < after.tenant);
    }
    // And not while one that another edge has made is followed.
    let other = ready();
    let changes = state.begin(&other.decode(&other.encoded().0).expect("a ledger"));
    assert!(changes.is_empty() && state.view_to_fetch(&KEY, &T, LINE).is_none());
    state.learn(&Ledger::default(), true);
    assert!(state.view_to_fetch(&KEY, &T, LINE).is_some());
}

#[test]
fn a_removed_key_is_not_fetched_until_the_fleet_confirms() {
    let state = ready();
    purge(&state, Purged::Entry(KEY), || {
        assert!(state.view_to_fetch(&KEY, &T, LINE).is_none());
    });
    assert_eq!(state.to_take_out(9), [KEY]);
    // A confirmation of what was known before says nothing about it.
    state.confirmed(&state.proof());
    assert!(state.view_to_fetch(&KEY, &T, LINE).is_none() && !state.is_confirmed());
    state.taken_out(&[KEY]);
    assert!(state.to_take_out(9).is_empty() && state.view_to_fetch(&KEY, &T, LINE).is_none());
    state.confirmed(&[0; PROOF_BYTES]);
    assert!(!state.is_confirmed());
    state.confirmed(&state.proof());
    assert!(state.is_confirmed() && state.view_to_fetch(&KEY, &T, LINE).is_some());
    let other = ready();
    assert_eq!(follow(&other, &state).keys, [*KEY.as_bytes()]);
}

#[test]
fn what_another_edge_has_purged_is_followed_and_not_told_again() {
    let (one, other) = (ready(), ready());
    purge(&one, Purged::Tenant(T), || ());
    assert!(!one.is_confirmed());
    assert_eq!(follow(&other, &one).tenants, [T]);
    following(|| purge(&other, Purged::Tenant(T), || ()));
    assert!(other.is_confirmed() && other.proof() == one.proof());
    assert!(!FOLLOWS.get());
}

#[test]
fn purges_at_the_same_time_reach_an_edge_that_heard_of_one_of_them() {
    let (one, other, third) = (ready(), ready(), ready());
    for what in [Purged::Tenant(T), Purged::All] {
        purge(&one, what, || ());
        assert!(!follow(&third, &one).is_empty());
        // This one comes after `third` has dropped what it had.
        purge(&other, what, || ());
        follow(&other, &one);
        assert!(!follow(&third, &other).is_empty(), "{what:?}");
        follow(&one, &other);
        for edge in [&one, &other, &third] {
            edge.confirmed(&edge.proof());
        }
    }
}

#[test]
fn unconfirmed_removals_have_a_bound() {
    let state = ready();
    for number in 0..=PENDING_MAX as u64 {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        purge(&state, Purged::Entry(CacheKey::from_bytes(key)), || ());
        assert!(state.lock().pending.len() <= PENDING_MAX);
    }
    assert!(state.view(&T).expect("ready").all > Generation::default());
}

#[test]
fn what_the_fleet_has_not_confirmed_outlives_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(file::FILE_NAME);
    let state = state_at(Some(path.clone()));
    state.heard(LINE);
    purge(&state, Purged::Tenant(T), || ());
    purge(&state, Purged::Entry(KEY), || ());
    state.keep();
    let file::Opened::Kept(kept) = file::read(&path) else {
        panic!("no file");
    };
    assert_eq!((kept.again.tenants, kept.pending), (vec![T], vec![KEY]));
    let again = state_at(Some(path));
    assert_eq!(again.proof(), state.proof());
    assert_eq!(again.to_take_out(9), [KEY]);
    // It has not heard yet: that comes from the fleet.
    assert!(!again.is_ready());
}
