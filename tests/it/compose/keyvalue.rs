//! Our guest on a host that offers only a key-value store and a clock: the cache
//! is composed with it as a component (`guest/keyvalue`).

use super::languages::{self, Answer, answer};
use super::tool;
use std::collections::HashMap;
use std::path::Path;
use wasmtime::component::{
    Component, ComponentType, Linker, Lower, Resource, ResourceType, TypedFunc,
};
use wasmtime::{Engine, Result, Store, StoreContextMut};

#[derive(ComponentType, Lower)]
#[component(variant)]
#[expect(dead_code, reason = "the standard has more cases than this host needs")]
enum Error {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct DateTime {
    seconds: u64,
    nanoseconds: u32,
}

/// The one bucket of this host.
struct Bucket;

#[derive(Default)]
struct Host {
    /// How it is called.
    bucket: &'static str,
    values: HashMap<String, Vec<u8>>,
    now: u64,
    is_full: bool,
    buckets_open: u32,
}

type Context<'a> = StoreContextMut<'a, Host>;

fn linker(engine: &Engine) -> Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    let mut clock = linker.instance("wasi:clocks/wall-clock@0.2.0")?;
    clock.func_wrap("now", |store: Context<'_>, (): ()| {
        let seconds = store.data().now;
        Ok((DateTime {
            seconds,
            nanoseconds: 0,
        },))
    })?;
    let mut kv = linker.instance("wasi:keyvalue/store@0.2.0-draft")?;
    kv.resource("bucket", ResourceType::host::<Bucket>(), |mut store, _| {
        store.data_mut().buckets_open -= 1;
        Ok(())
    })?;
    kv.func_wrap("open", |mut store: Context<'_>, (name,): (String,)| {
        if name != store.data().bucket {
            return Ok((Err(Error::NoSuchStore),));
        }
        store.data_mut().buckets_open += 1;
        Ok((Ok(Resource::<Bucket>::new_own(1)),))
    })?;
    kv.func_wrap(
        "[method]bucket.get",
        |store: Context<'_>, (_, key): (Resource<Bucket>, String)| {
            let value = store.data().values.get(&key).cloned();
            Ok((Ok::<_, Error>(value),))
        },
    )?;
    kv.func_wrap(
        "[method]bucket.set",
        |mut store: Context<'_>, (_, key, value): (Resource<Bucket>, String, Vec<u8>)| {
            if store.data().is_full {
                return Ok((Err(Error::Other("full".into())),));
            }
            store.data_mut().values.insert(key, value);
            Ok((Ok(()),))
        },
    )?;
    kv.func_wrap(
        "[method]bucket.delete",
        |mut store: Context<'_>, (_, key): (Resource<Bucket>, String)| {
            store.data_mut().values.remove(&key);
            Ok((Ok::<_, Error>(()),))
        },
    )?;
    Ok(linker)
}

/// The guest and the cache over key-value as one component, on a host with a bucket of that name.
struct Asked {
    store: Store<Host>,
    ask: TypedFunc<(Vec<u8>, String), (Answer,)>,
}

impl Asked {
    fn new(bucket: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let guest = Path::new(languages::RUST);
        let cache = Path::new(env!("REFLEX_KEYVALUE_WASM"));
        let component = tool::plug(folder.path(), guest, cache);
        let engine = Engine::default();
        let component = Component::from_file(&engine, component).expect("a component");
        let host = Host {
            bucket,
            now: 1_000_000,
            ..Host::default()
        };
        let mut store = Store::new(&engine, host);
        let instance = linker(&engine)
            .and_then(|linker| linker.instantiate(&mut store, &component))
            .expect("it imports nothing else");
        let ask = instance.get_typed_func(&mut store, "ask").expect("ask");
        Self { store, ask }
    }

    fn ask(&mut self, tenant: u8, prompt: &str) -> Answer {
        let arguments = (vec![tenant; 32], prompt.to_owned());
        let (answer,) = self.ask.call(&mut self.store, arguments).expect("no trap");
        assert_eq!(self.store.data().buckets_open, 0);
        answer
    }
}

#[test]
fn the_cache_lives_in_a_store_that_knows_nothing_of_it() {
    // Hosts call theirs by different names.
    for bucket in ["reflex", "default", ""] {
        let mut guest = Asked::new(bucket);
        for (tenant, cached) in [(1, false), (1, true), (2, false), (2, true)] {
            assert_eq!(guest.ask(tenant, "Hi"), answer("You said: Hi", cached));
        }
        assert_eq!(guest.store.data().values.len(), 2);
    }
}

#[test]
fn an_entry_over_keyvalue_ends_with_its_life() {
    let mut guest = Asked::new("default");
    guest.ask(1, "Hi");
    guest.store.data_mut().now += 3599;
    assert_eq!(guest.ask(1, "Hi"), answer("You said: Hi", true));
    guest.store.data_mut().now += 1;
    assert_eq!(guest.ask(1, "Hi"), answer("You said: Hi", false));
}

#[test]
fn what_others_write_into_the_store_is_not_believed() {
    let mut guest = Asked::new("default");
    guest.ask(1, "Hi");
    guest.ask(1, "Bye");
    let values = &mut guest.store.data_mut().values;
    // Each has the other's value now.
    let names: Vec<String> = values.keys().cloned().collect();
    let first = values.remove(&names[0]).expect("there");
    let second = values.insert(names[1].clone(), first).expect("there");
    values.insert(names[0].clone(), second);
    assert_eq!(guest.ask(1, "Hi"), answer("You said: Hi", false));
    assert_eq!(guest.ask(1, "Bye"), answer("You said: Bye", false));

    for value in guest.store.data_mut().values.values_mut() {
        value.truncate(3);
    }
    assert_eq!(guest.ask(1, "Hi"), answer("You said: Hi", false));
}

#[test]
fn trouble_of_the_store_is_a_miss() {
    let mut guest = Asked::new("by another name");
    assert_eq!(guest.ask(1, "Hi"), answer("You said: Hi", false));
    let mut guest = Asked::new("default");
    guest.store.data_mut().is_full = true;
    for _ in 0..2 {
        assert_eq!(guest.ask(1, "Hi"), answer("You said: Hi", false));
    }
}
