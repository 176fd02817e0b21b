//! The smallest embedding: a component without WASI keeps its answers in the cache.
//!
//! ```sh
//! cargo run --release -p reflex-host --example minimal -- COMPONENT DIR PROMPT
//! ```

#![allow(missing_docs, reason = "generated code")]

use reflex_host::component::{ReflexCtxView, add_to_linker};
use reflex_host::grant::{Grant, ReflexCtx};
use reflex_host::{Cache, Tenant};
use wasmtime::component::{Component, Linker, ResourceTable, bindgen};
use wasmtime::{Engine, Error, Result, Store};

bindgen!({
    inline: "
        package example:app;

        world app {
            export answer: func(prompt: string) -> tuple<string, bool>;
        }
    ",
});

struct Host {
    reflex: ReflexCtx,
    table: ResourceTable,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [component, dir, prompt] = arguments.as_slice() else {
        return Err(Error::msg("minimal COMPONENT DIR PROMPT"));
    };
    let engine = Engine::default();
    let component = Component::from_file(&engine, component)?;
    let mut linker = Linker::<Host>::new(&engine);
    add_to_linker(&mut linker, |host| ReflexCtxView {
        ctx: &host.reflex,
        table: &mut host.table,
    })?;

    let cache = Cache::builder(dir).open()?;
    let grant = Grant::new("app").for_tenant(Tenant::of_group("all"));
    let host = Host {
        reflex: cache.granted(grant),
        table: ResourceTable::new(),
    };
    let mut store = Store::new(&engine, host);
    let app = App::instantiate(&mut store, &component, &linker)?;
    let (answer, was_cached) = app.call_answer(&mut store, prompt)?;
    println!("{answer} ({})", if was_cached { "cached" } else { "new" });
    cache.sync()?;
    Ok(())
}
