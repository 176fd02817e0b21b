//! A program of WASI 0.2 in a host of ours: its LLM calls by `wasi:http/outgoing-handler` are
//! answered in transparent mode, and it may import the cache itself.

use crate::transparent::Sender;
use reflex_host::Cache;
use reflex_host::component::{ReflexCtxView, Transparent, add_to_linker_async};
use reflex_host::exchange::HttpPolicy;
use reflex_host::grant::{Grant, ReflexCtx};
use reflex_tests::behaviour::Behaviour;
use reflex_tests::upstream::Upstream;
use reflex_tests::within;
use wasmtime::component::{Component, Linker, ResourceTable, bindgen};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

bindgen!({
    inline: "
        package example:caller02;

        world caller {
            record head {
                status: u16,
                headers: list<tuple<string, string>>,
            }
            export ask: func(authority: string, body: string) -> result<head, string>;
            export part: func() -> result<option<list<u8>>, string>;
            export recall: func(authority: string, body: string) -> result<option<list<u8>>, string>;
            export forget: func(authority: string, body: string) -> result<bool, string>;
        }
    ",
    exports: { default: async },
});

struct Host {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    out: Transparent,
    reflex: ReflexCtx,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.out,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

/// A running program that asks this provider.
struct Program {
    store: Store<Host>,
    caller: Caller,
    authority: String,
}

impl Program {
    async fn asking(upstream: &Upstream) -> Self {
        let engine = Engine::default();
        let component = include_bytes!(env!("REFLEX_TEST_CALLER02_WASM"));
        let component = Component::from_binary(&engine, component).expect("a component");
        let mut linker = Linker::<Host>::new(&engine);
        wasmtime_wasi_http::p2::add_to_linker_async(&mut linker).expect("new");
        add_to_linker_async(&mut linker, |host| ReflexCtxView {
            ctx: &host.reflex,
            table: &mut host.table,
        })
        .expect("new");
        let reflex = Cache::builder("").in_memory().granted(Grant::new("02"));
        let policy = HttpPolicy::new(&reflex.cache);
        let host = Host {
            table: ResourceTable::new(),
            wasi: WasiCtx::builder().build(),
            http: WasiHttpCtx::new(),
            out: Transparent::new(reflex.clone(), policy, Sender::new()),
            reflex,
        };
        let mut store = Store::new(&engine, host);
        let caller = Caller::instantiate_async(&mut store, &component, &linker).await;
        let url = upstream.url();
        Self {
            store,
            caller: caller.expect("it fits"),
            authority: url.strip_prefix("http://").expect("http").to_owned(),
        }
    }

    /// The head of an answer; the error is what WASI calls it.
    async fn ask(&mut self, body: &str) -> Result<Head, String> {
        let asked = self.caller.call_ask(&mut self.store, &self.authority, body);
        within("the head of an answer", asked)
            .await
            .expect("no trap")
    }

    /// The next part of it; nothing at its end.
    async fn part(&mut self) -> Result<String, String> {
        let part = self.caller.call_part(&mut self.store);
        let part = within("a part of an answer", part).await.expect("no trap");
        Ok(String::from_utf8(part?.unwrap_or_default()).expect("text"))
    }

    /// The rest of it.
    async fn rest(&mut self) -> Result<String, String> {
        let mut whole = String::new();
        loop {
            match self.part().await? {
                part if part.is_empty() => return Ok(whole),
                part => whole.push_str(&part),
            }
        }
    }

    /// A whole answer: its status, our status header, and its body.
    async fn fetch(&mut self, body: &str) -> (u16, String, String) {
        let head = self.ask(body).await.expect("an answer");
        let said = head.said();
        (head.status, said, self.rest().await.expect("a whole body"))
    }
}

impl Head {
    fn said(&self) -> String {
        let named = |(name, _): &&(String, String)| name == "x-reflex-status";
        let said = self.headers.iter().find(named);
        said.map(|(_, value)| value.clone()).unwrap_or_default()
    }
}

fn chat(prompt: &str, stream: bool) -> String {
    format!(
        r#"{{"model":"m","stream":{stream},"messages":[{{"role":"user","content":"{prompt}"}}]}}"#
    )
}

#[tokio::test]
async fn what_a_program_of_wasi_02_asks_again_is_answered_from_the_cache() {
    let upstream = Upstream::start().await;
    let mut program = Program::asking(&upstream).await;
    let ask = chat("hello", false);
    let (status, said, body) = program.fetch(&ask).await;
    assert_eq!((status, &*said), (200, "MISS"));
    assert!(body.contains("chat.completion"), "{body}");
    let hit = program.fetch(&ask).await;
    assert_eq!(hit, (200, "HIT_L1_EXACT".to_owned(), body));
    let other = program.fetch(&chat("good bye", false)).await;
    assert_eq!(other.1, "MISS");
    assert_eq!(upstream.call_count(), 2);
}

#[tokio::test]
async fn a_stream_reaches_a_program_of_wasi_02_as_it_is_made_and_is_replayed() {
    let upstream = Upstream::start_with(Behaviour::Gated).await;
    let mut program = Program::asking(&upstream).await;
    let ask = chat("count to three", true);
    let head = program.ask(&ask).await.expect("an answer");
    assert_eq!(head.said(), "MISS");
    // The provider waits for a permit to go on, and the first part has arrived.
    upstream.release(1);
    let first = program.part().await.expect("a part");
    assert!(first.starts_with("data: {"), "{first}");
    upstream.release_all();
    let body = first + &program.rest().await.expect("the rest");
    assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
    let hit = program.fetch(&ask).await;
    assert_eq!(hit, (200, "HIT_L1_EXACT".to_owned(), body));
    assert_eq!(upstream.call_count(), 1);
}

#[tokio::test]
async fn errors_reach_a_program_of_wasi_02_as_they_are() {
    let upstream = Upstream::start_with(Behaviour::Status(500)).await;
    let mut program = Program::asking(&upstream).await;
    for stream in [false, true] {
        let (status, said, body) = program.fetch(&chat("hello", stream)).await;
        assert_eq!((status, &*said), (500, "MISS"));
        assert!(body.contains("as the test wants it"), "{body}");
    }
    // A body that the provider cuts breaks off.
    upstream.behave(Behaviour::Cut);
    let ask = chat("hello", true);
    assert_eq!(program.ask(&ask).await.expect("a head").said(), "MISS");
    assert!(program.rest().await.is_err());
    upstream.stop().await;
    let refused = program.ask(&ask).await.expect_err("no provider is there");
    assert!(refused.contains("ConnectionRefused"), "{refused}");
}

#[tokio::test]
async fn a_program_of_wasi_02_imports_the_cache_itself() {
    let upstream = Upstream::start().await;
    let mut program = Program::asking(&upstream).await;
    let ask = chat("do you remember?", false);
    let Program {
        store,
        caller,
        authority,
    } = &mut program;
    let recalled = caller.call_recall(&mut *store, authority, &ask).await;
    assert_eq!(recalled.expect("no trap"), Ok(None));
    let (_, _, body) = program.fetch(&ask).await;

    let Program {
        store,
        caller,
        authority,
    } = &mut program;
    let recalled = caller.call_recall(&mut *store, authority, &ask).await;
    assert_eq!(recalled.expect("no trap"), Ok(Some(body.into_bytes())));
    let forgotten = caller.call_forget(&mut *store, authority, &ask).await;
    assert_eq!(forgotten.expect("no trap"), Ok(true));
    assert_eq!(program.fetch(&ask).await.1, "MISS");
    assert_eq!(upstream.call_count(), 2);
}
