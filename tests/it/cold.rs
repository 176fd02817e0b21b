//! Guests that are called asynchronously find what an earlier process has stored: it is read from
//! disk while they are suspended.

use crate::compose::languages::{Answer, RUST, answer};
use reflex_host::component::{ReflexCtxView, add_keyvalue_to_linker_async, add_to_linker_async};
use reflex_host::grant::{Grant, ReflexCtx};
use reflex_host::{Cache, Key, Tenant};
use std::path::Path;
use wasmtime::component::{Component, ComponentNamedList, Lift, Linker, Lower, ResourceTable};
use wasmtime::{Engine, Result, Store};

struct Host {
    reflex: ReflexCtx,
    table: ResourceTable,
}

fn view(host: &mut Host) -> ReflexCtxView<'_> {
    ReflexCtxView {
        ctx: &host.reflex,
        table: &mut host.table,
    }
}

/// Adds an interface to a linker.
type Add = fn(&mut Linker<Host>, fn(&mut Host) -> ReflexCtxView<'_>) -> Result<()>;

/// Calls a guest's function in a host that offers what `add` adds.
async fn call<P, R>(component: &Path, cache: &Cache, add: Add, (name, arguments): (&str, P)) -> R
where
    P: ComponentNamedList + Lower + Send + Sync,
    R: ComponentNamedList + Lift + Send + Sync + 'static,
{
    let engine = Engine::default();
    let component = Component::from_file(&engine, component).expect("a component");
    let mut linker = Linker::new(&engine);
    add(&mut linker, view).expect("it is new");
    assert!(add(&mut linker, view).is_err(), "it is there already");
    let host = Host {
        reflex: cache.granted(Grant::new("cold")),
        table: ResourceTable::new(),
    };
    let mut store = Store::new(&engine, host);
    let instance = linker.instantiate_async(&mut store, &component).await;
    let instance = instance.expect("it imports nothing else");
    let function = instance.get_typed_func::<P, R>(&mut store, name);
    let called = function.expect("a function of the guest's");
    let called = called.call_async(&mut store, arguments).await;
    called.expect("no trap")
}

#[tokio::test]
async fn a_guest_finds_what_an_earlier_process_has_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || {
        let builder = Cache::builder(folder.path()).namespace("cold");
        builder.open().expect("a cache")
    };
    let tenant = Tenant::of_group("one");
    let key = Key::for_prompt(&tenant, "Hi");
    open().insert(&key, "from before").expect("room");

    let cache = open();
    let asked = ("ask", (tenant.0.to_vec(), "Hi".to_owned()));
    let (said,): (Answer,) = call(RUST.as_ref(), &cache, add_to_linker_async, asked).await;
    assert_eq!(said, answer("from before", true));
}

#[tokio::test]
async fn a_guest_of_wasi_keyvalue_goes_on_from_what_an_earlier_process_has_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let kv = Path::new(env!("REFLEX_TEST_KV_WASM"));
    for expected in 1..=3 {
        let cache = Cache::builder(folder.path()).open().expect("a cache");
        let asked = ("count", ("bucket".to_owned(), "key".to_owned()));
        let add = add_keyvalue_to_linker_async;
        let (counted,): (Result<u64, String>,) = call(kv, &cache, add, asked).await;
        assert_eq!(counted, Ok(expected));
    }
}
