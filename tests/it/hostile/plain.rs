//! A component with plain functions in another program's host, beside one that behaves.

use reflex_host::component::{ReflexCtxView, add_to_linker};
use reflex_host::grant::{Grant, ReflexCtx, Refusal};
use reflex_host::{Cache, Key, Tenant};
use wasmtime::component::{Component, Linker, ResourceTable, bindgen};
use wasmtime::{Config, Engine, Store, StoreLimits, StoreLimitsBuilder};

bindgen!({
    inline: "
        package example:rogue;

        world rogue {
            export act: func(what: string, number: u64, tenant: list<u8>, digest: list<u8>) -> result<u64, string>;
        }
    ",
});

const MIB: u64 = 1 << 20;
/// Entries that a guest may hold.
const OPEN_MAX: usize = 100;
const ALICE: Tenant = Tenant([1; 32]);
const BOB: Tenant = Tenant([2; 32]);

struct Host {
    reflex: ReflexCtx,
    table: ResourceTable,
    limits: StoreLimits,
}

struct Guest {
    store: Store<Host>,
    rogue: Rogue,
}

/// What a guest did: a number or an error of the cache; or it trapped.
type Done = Result<Result<u64, String>, String>;

impl Guest {
    fn new(cache: &Cache, grant: &Grant) -> Self {
        Self::with_memory(cache, grant, 64 * MIB)
    }

    fn with_memory(cache: &Cache, grant: &Grant, bytes_max: u64) -> Self {
        let mut config = Config::new();
        config.epoch_interruption(true);
        let engine = Engine::new(&config).expect("an engine");
        let bytes = include_bytes!(env!("REFLEX_TEST_ROGUE_WASM"));
        let component = Component::from_binary(&engine, bytes).expect("a component");
        let mut linker = Linker::<Host>::new(&engine);
        add_to_linker(&mut linker, |host| ReflexCtxView {
            ctx: &host.reflex,
            table: &mut host.table,
        })
        .expect("it is new");
        let mut table = ResourceTable::new();
        table.set_max_capacity(OPEN_MAX);
        let host = Host {
            reflex: cache.granted(grant.clone()),
            table,
            limits: StoreLimitsBuilder::new()
                .memory_size(usize::try_from(bytes_max).expect("it fits"))
                .build(),
        };
        let mut store = Store::new(&engine, host);
        store.limiter(|host| &mut host.limits);
        store.set_epoch_deadline(1);
        let rogue = Rogue::instantiate(&mut store, &component, &linker).expect("it fits");
        Self { store, rogue }
    }

    fn act(&mut self, what: &str, number: u64, tenant: Tenant, digest: [u8; 32]) -> Done {
        let acted = self
            .rogue
            .call_act(&mut self.store, what, number, &tenant.0, &digest);
        acted.map_err(|trap| format!("{trap:?}"))
    }

    fn refused(&self, refusal: Refusal) -> u64 {
        self.store.data().reflex.grant.allowance.refused(refusal)
    }
}

fn good(number: u64) -> Done {
    Ok(Ok(number))
}

fn error(text: &str) -> Done {
    Ok(Err(text.into()))
}

/// A component that behaves, and finds its entries.
struct Beside(Guest);

impl Beside {
    fn new(cache: &Cache) -> Self {
        let grant = Grant::new("beside").for_tenant(BOB);
        Self(Guest::new(cache, &grant))
    }

    fn is_unharmed(&mut self) {
        assert_eq!(self.0.act("insert", 1000, BOB, [3; 32]), good(1000));
        assert_eq!(self.0.act("find", 0, BOB, [3; 32]), good(1));
        assert_eq!(self.0.act("find", 0, BOB, [4; 32]), good(0));
    }
}

#[test]
fn whatever_traps_a_guest_is_an_error_of_that_call_only() {
    let cache = Cache::builder("").in_memory();
    let grant = Grant::new("rogue").for_tenant(ALICE);
    let mut beside = Beside::new(&cache);
    for deed in ["trap", "allocate", "recurse", "drop-twice"] {
        let mut rogue = Guest::new(&cache, &grant);
        assert_eq!(rogue.act("insert", 9, ALICE, [5; 32]), good(9));
        let done = rogue.act(deed, 0, ALICE, [5; 32]);
        assert!(done.is_err(), "{deed}: {done:?}");
        // Wasmtime does not enter it again.
        let again = rogue.act("find", 0, ALICE, [5; 32]);
        assert!(again.is_err(), "{deed}: {again:?}");
        beside.is_unharmed();
        // Its earlier entry is unchanged.
        let mut next = Guest::new(&cache, &grant);
        assert_eq!(next.act("find", 0, ALICE, [5; 32]), good(1), "{deed}");
    }
}

#[test]
fn a_guest_that_spins_is_stopped_and_others_go_on() {
    let cache = Cache::builder("").in_memory();
    let mut rogue = Guest::new(&cache, &Grant::new("rogue").for_tenant(ALICE));
    let mut beside = Beside::new(&cache);
    let engine = rogue.store.engine().clone();
    std::thread::scope(|scope| {
        let spinning = scope.spawn(move || rogue.act("spin", 0, ALICE, [5; 32]));
        beside.is_unharmed();
        // Before it begins, it cannot be stopped.
        while !spinning.is_finished() {
            engine.increment_epoch();
            std::thread::yield_now();
        }
        let done = spinning.join().expect("no panic");
        assert!(
            done.as_ref().is_err_and(|trap| trap.contains("interrupt")),
            "{done:?}"
        );
    });
    beside.is_unharmed();
}

#[test]
fn a_guest_that_opens_a_million_entries_is_refused_most() {
    let cache = Cache::builder("").in_memory();
    let mut rogue = Guest::new(&cache, &Grant::new("rogue").for_tenant(ALICE));
    let mut beside = Beside::new(&cache);
    assert_eq!(rogue.act("insert", 9, ALICE, [5; 32]), good(9));
    let refused = error("unavailable: too many open entries: drop some");
    assert_eq!(rogue.act("open", 1_000_000, ALICE, [5; 32]), refused);
    assert_eq!(rogue.refused(Refusal::Open), 1);
    assert_eq!(rogue.act("read", 0, ALICE, [5; 32]), good(OPEN_MAX as u64));
    beside.is_unharmed();
    // The rest of the cache is still usable.
    assert_eq!(rogue.act("find", 0, ALICE, [5; 32]), good(1));
}

/// Disk stays within its bound, entries that are held stay readable, and in the end
/// all their space is free.
#[test]
fn entries_that_are_held_while_the_cache_evicts_stay_and_disk_stays_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk_bytes_max = 32 * MIB;
    let cache = Cache::builder(folder.path())
        .disk_bytes_max(disk_bytes_max)
        .memory_bytes_max(4 * MIB)
        .entry_bytes_max(2 * MIB)
        .open()
        .expect("a cache");
    let grant = Grant::new("rogue").for_tenant(ALICE);
    let mut rogue = Guest::new(&cache, &grant);
    let mut beside = Beside::new(&cache);
    for number in 0..128_u8 {
        let digest = [number; 32];
        // The disk may be slower than this.
        while rogue.act("insert", MIB, ALICE, digest) != good(MIB) {
            std::thread::yield_now();
        }
        if number < 16 {
            let opened = rogue.act("open", 1, ALICE, digest);
            assert_eq!(opened, good(u64::from(number) + 1));
        }
        let stats = cache.stats();
        // Segments that are still read are unlinked, and told apart.
        let linked = stats.disk_bytes - stats.pinned_bytes;
        assert!(linked <= disk_bytes_max, "{stats:?}");
        assert!(stats.pinned_bytes <= disk_bytes_max, "{stats:?}");
    }
    assert!(cache.stats().evictions > 0, "{:?}", cache.stats());
    assert_eq!(rogue.act("find", 0, ALICE, [0; 32]), good(0));
    assert_eq!(rogue.act("read", 0, ALICE, [0; 32]), good(16));
    beside.is_unharmed();
    drop(rogue);
    let stats = cache.stats();
    assert_eq!(stats.pinned_bytes, 0, "{stats:?}");
}

#[test]
fn a_gigabyte_at_once_never_reaches_the_cache() {
    let cache = Cache::builder("").in_memory();
    let grant = Grant::new("rogue").for_tenant(ALICE);
    let mut beside = Beside::new(&cache);
    // More than it has memory; more than one call may hand over.
    for memory in [64 * MIB, 2048 * MIB] {
        let mut rogue = Guest::with_memory(&cache, &grant, memory);
        let done = rogue.act("insert", 1024 * MIB, ALICE, [5; 32]);
        assert!(done.is_err(), "{done:?}");
        beside.is_unharmed();
    }
    assert_eq!(cache.stats().entries, 1);
    // Less than that, and still too long for an entry: an error, counted.
    let most = cache.granted(grant.clone()).cache.entry_bytes_max();
    let mut rogue = Guest::new(&cache, &grant);
    let refused = error(&format!("too-large: {most}"));
    assert_eq!(rogue.act("insert", most + 1, ALICE, [5; 32]), refused);
    assert_eq!(rogue.refused(Refusal::Size), 1);
}

#[test]
fn a_gigabyte_in_pieces_is_stopped_by_the_quota() {
    let cache = Cache::builder("").in_memory();
    let grant = Grant::new("rogue").for_tenant(ALICE).bytes_max(4 * MIB);
    let mut rogue = Guest::new(&cache, &grant);
    let mut beside = Beside::new(&cache);
    for number in 0..=255_u8 {
        let done = rogue.act("insert", 4 * MIB / 3, ALICE, [number; 32]);
        let expected = match number {
            0 | 1 => good(4 * MIB / 3),
            _ => error("quota-exceeded: bytes"),
        };
        assert_eq!(done, expected, "{number}");
    }
    assert_eq!(rogue.refused(Refusal::Bytes), 254);
    assert!(cache.stats().payload_bytes <= 4 * MIB);
    beside.is_unharmed();
}

#[test]
fn another_tenant_is_refused_and_another_namespace_cannot_be_named() {
    let cache = Cache::builder("").namespace("beside").in_memory();
    let mut beside = Beside::new(&cache);
    beside.is_unharmed();
    let mut rogue = Guest::new(&cache, &Grant::new("rogue").for_tenant(ALICE));
    let denied = error("denied: tenant");
    for deed in ["find", "insert", "remove", "open"] {
        assert_eq!(rogue.act(deed, 1, BOB, [3; 32]), denied, "{deed}");
    }
    assert_eq!(rogue.refused(Refusal::Tenant), 4);
    // One whose tenant is its own to choose sends the digest of the other's entry.
    let mut free = Guest::new(&cache, &Grant::new("rogue"));
    assert_eq!(free.act("find", 0, BOB, [3; 32]), good(0));
    assert_eq!(free.act("remove", 0, BOB, [3; 32]), good(0));
    assert_eq!(free.act("insert", 7, BOB, [3; 32]), good(7));
    let key = Key {
        tenant: BOB,
        digest: [3; 32],
    };
    let entry = cache.lookup(&key).expect("it is still there");
    assert_eq!(entry.payload().len(), 1000);
    beside.is_unharmed();
}
