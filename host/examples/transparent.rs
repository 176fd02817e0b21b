//! Transparent mode: a component that just makes HTTP calls has its LLM calls answered from the
//! cache, without knowing of it.
//!
//! ```sh
//! cargo run --release -p reflex-host --example transparent -- COMPONENT AUTHORITY PROMPT...
//! ```

#![allow(missing_docs, reason = "generated code")]

use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use reflex_host::Cache;
use reflex_host::component::Transparent;
use reflex_host::exchange::{BoxBody, HttpPolicy, ResponseFuture, SendRequest};
use reflex_host::grant::Grant;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use wasmtime::component::{Component, Linker, ResourceTable, bindgen};
use wasmtime::{Config, Engine, Error, Result, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

bindgen!({
    inline: "
        package example:caller;

        world caller {
            export ask: async func(authority: string, prompt: string) -> result<tuple<u16, list<u8>>, string>;
        }
    ",
    exports: { default: async | store },
});

struct Host {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    transparent: Transparent,
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
            hooks: &mut self.transparent,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

/// The host's own client. It decides which targets guests may call.
struct Sender {
    client: Client<HttpConnector, BoxBody>,
    calls: AtomicUsize,
}

impl SendRequest for Sender {
    fn send(&self, request: http::Request<BoxBody>) -> ResponseFuture {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let response = self.client.request(request);
        Box::pin(async move {
            let failed = |_| reflex_host::exchange::Error::ConnectionTerminated;
            let response = response.await.map_err(failed)?;
            let body = |body: hyper::body::Incoming| body.map_err(Into::into).boxed_unsync();
            Ok(response.map(body))
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [component, authority, prompts @ ..] = arguments.as_slice() else {
        return Err(Error::msg("transparent COMPONENT AUTHORITY PROMPT..."));
    };
    let sender = Arc::new(Sender {
        client: Client::builder(TokioExecutor::new()).build_http(),
        calls: AtomicUsize::new(0),
    });
    let cache = Cache::builder("").in_memory();
    let reflex = cache.granted(Grant::new("caller"));
    let policy = HttpPolicy::new(&reflex.cache);
    let transparent = Transparent::new(reflex, policy, Arc::clone(&sender) as _);

    let mut config = Config::new();
    config.wasm_component_model_async(true);
    let engine = Engine::new(&config)?;
    let component = Component::from_file(&engine, component)?;
    let mut linker = Linker::<Host>::new(&engine);
    wasmtime_wasi::p3::clocks::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    let host = Host {
        table: ResourceTable::new(),
        wasi: WasiCtx::builder().build(),
        http: WasiHttpCtx::new(),
        transparent,
    };
    let mut store = Store::new(&engine, host);
    let caller = Caller::instantiate_async(&mut store, &component, &linker).await?;
    for prompt in prompts {
        let (authority, asked) = (authority.clone(), prompt.clone());
        let answer = store
            .run_concurrent(async |accessor| caller.call_ask(accessor, authority, asked).await)
            .await??;
        let (status, body) = answer.map_err(Error::msg)?;
        let calls = sender.calls.load(Ordering::Relaxed);
        println!("{prompt}: {status}, {} bytes, {calls} sent", body.len());
    }
    Ok(())
}
