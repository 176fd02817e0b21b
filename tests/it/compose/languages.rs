//! One guest in four languages, in a host of our own: each looks a prompt up, inserts on a miss,
//! and finds what another one has inserted.

use super::tool;
use reflex_host::component::{ReflexCtxView, add_to_linker};
use reflex_host::grant::{Grant, ReflexCtx};
use reflex_host::{Cache, Tenant};
use std::path::{Path, PathBuf};
use wasmtime::component::{Component, ComponentType, Lift, Linker, ResourceTable, TypedFunc};
use wasmtime::{Config, Engine, OptLevel, Store};

/// The guest in Rust.
pub(crate) const RUST: &str = env!("REFLEX_TEST_ASK_WASM");

/// What the guest answers.
#[derive(ComponentType, Debug, Lift, PartialEq)]
#[component(record)]
pub(crate) struct Answer {
    text: String,
    cached: bool,
}

pub(crate) fn answer(text: &str, cached: bool) -> Answer {
    Answer {
        text: text.into(),
        cached,
    }
}

struct Host {
    reflex: ReflexCtx,
    table: ResourceTable,
}

/// Loads the guest into a host that offers it the cache and nothing else.
struct Asked {
    store: Store<Host>,
    ask: TypedFunc<(Vec<u8>, String), (Answer,)>,
}

impl Asked {
    fn new(component: &Path, reflex: ReflexCtx) -> Self {
        let mut config = Config::new();
        // This compiles a language's whole runtime, for a few calls.
        config.cranelift_opt_level(OptLevel::None);
        let engine = Engine::new(&config).expect("an engine");
        let component = Component::from_file(&engine, component).expect("a component");
        let mut linker = Linker::<Host>::new(&engine);
        add_to_linker(&mut linker, |host| ReflexCtxView {
            ctx: &host.reflex,
            table: &mut host.table,
        })
        .expect("added");
        let table = ResourceTable::new();
        let mut store = Store::new(&engine, Host { reflex, table });
        let instance = linker
            .instantiate(&mut store, &component)
            .expect("it imports nothing but the cache");
        let ask = instance.get_typed_func(&mut store, "ask").expect("ask");
        Self { store, ask }
    }

    fn ask(&mut self, tenant: &[u8], prompt: &str) -> Answer {
        let arguments = (tenant.to_vec(), prompt.to_owned());
        let (answer,) = self.ask.call(&mut self.store, arguments).expect("no trap");
        assert!(
            self.store.data().table.is_empty(),
            "it still holds an entry"
        );
        answer
    }
}

/// A guest of the set-up's; none if it says that a tool is missing.
fn component(language: &str) -> Option<PathBuf> {
    let folder = tool::target().join("languages");
    let component = folder.join(format!("ask-{language}.wasm"));
    if component.exists() {
        return Some(component);
    }
    let why = std::fs::read_to_string(folder.join(format!("ask-{language}.skipped")));
    let why = why.unwrap_or_else(|_| {
        panic!(
            "{} is missing: run `cargo xtask test` or `cargo xtask guests`",
            component.display()
        )
    });
    reflex_skip::skip(&format!("the guest in {language}"), &why);
    None
}

fn check(component: &Path) {
    let cache = Cache::builder("").in_memory();
    let tenant = Tenant::of_group("one").0;
    let mut guest = Asked::new(component, cache.granted(Grant::new("guests")));
    let text = "You said: Grüße, 世界";
    assert_eq!(guest.ask(&tenant, "Grüße, 世界"), answer(text, false));
    assert_eq!(guest.ask(&tenant, "Grüße, 世界"), answer(text, true));
    let other = Tenant::of_group("other").0;
    assert_eq!(guest.ask(&other, "Grüße, 世界"), answer(text, false));

    // All of them find an entry that one of them has stored: the host maps the names.
    let grant = Grant::new("guests");
    let mut in_rust = Asked::new(Path::new(RUST), cache.granted(grant));
    assert_eq!(in_rust.ask(&tenant, "Grüße, 世界"), answer(text, true));

    // Longer than one read of the host's gives.
    let prompt = "x".repeat(1 << 20);
    for cached in [false, true] {
        let said = guest.ask(&tenant, &prompt);
        assert_eq!((said.text.len(), said.cached), (10 + prompt.len(), cached));
    }

    // A refusal of the cache does not fail the guest.
    assert_eq!(guest.ask(b"short", "Hi"), answer("You said: Hi", false));
    let read_only = cache.granted(Grant::new("others").read_only());
    let mut guest = Asked::new(component, read_only);
    for _ in 0..2 {
        assert_eq!(guest.ask(&tenant, "Hi"), answer("You said: Hi", false));
    }
}

#[test]
fn a_guest_in_rust_uses_the_cache() {
    check(Path::new(RUST));
}

#[test]
fn a_guest_in_python_uses_the_cache() {
    if let Some(component) = component("python") {
        check(&component);
    }
}

#[test]
fn a_guest_in_javascript_uses_the_cache() {
    if let Some(component) = component("js") {
        check(&component);
    }
}

#[test]
fn a_guest_in_c_uses_the_cache() {
    if let Some(component) = component("c") {
        check(&component);
    }
}
