//! As much of Envoy as the filter needs to say which key it asks its daemon for: the real module
//! in wasmtime, with the few calls of proxy-wasm that lead there. It takes thousands of requests in
//! the time in which Envoy starts.

use std::collections::HashMap;
use std::path::Path;

use wasmtime::{Caller, Engine, Error, Extern, Instance, Linker, Module, Result, Store, TypedFunc};

const OK: i32 = 0;
const NOT_FOUND: i32 = 1;
const CAS_MISMATCH: i32 = 8;

/// Of proxy-wasm's buffers.
const REQUEST_BODY: i32 = 0;
const PLUGIN_CONFIGURATION: i32 = 7;

const ROOT: i32 = 1;
const PAUSE: i32 = 1;

/// A request as the filter gets to see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// `POST`
    pub method: String,
    /// With query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body.
    pub body: Vec<u8>,
    /// The cluster that was chosen.
    pub cluster: String,
}

/// The filter, running.
pub(crate) struct FilterModule {
    store: Store<State>,
    instance: Instance,
    contexts: i32,
}

#[derive(Default)]
struct State {
    configuration: Vec<u8>,
    request: Seen,
    /// The paths that the daemon was asked for.
    looked_up: Vec<String>,
    /// What the workers of one Envoy share, each with its version.
    shared: HashMap<Vec<u8>, (Vec<u8>, i32)>,
    numbers: u32,
    now_ns: u64,
    log: Vec<String>,
}

impl FilterModule {
    /// The module at this path, with this configuration.
    ///
    /// # Panics
    ///
    /// If it is no filter, or refuses the configuration.
    pub(crate) fn start(module: &Path, configuration: &str) -> Self {
        let engine = Engine::default();
        let module = Module::from_file(&engine, module).expect("a core module");
        let mut linker = Linker::new(&engine);
        define(&mut linker).expect("each name once");
        // Whatever else it may call is not on the way to a key.
        linker
            .define_unknown_imports_as_traps(&module)
            .expect("functions");
        let state = State {
            configuration: configuration.into(),
            now_ns: 1_700_000_000_000_000_000,
            ..State::default()
        };
        let mut store = Store::new(&engine, state);
        let instance = linker
            .instantiate(&mut store, &module)
            .expect("instantiates");
        let mut filter = Self {
            store,
            instance,
            contexts: ROOT,
        };
        filter.call::<(), ()>("_initialize", ());
        filter.call::<_, ()>("proxy_on_context_create", (ROOT, 0));
        assert_eq!(filter.call::<_, i32>("proxy_on_vm_start", (ROOT, 0)), 1);
        let bytes = configuration.len() as i32;
        let accepted = filter.call::<_, i32>("proxy_on_configure", (ROOT, bytes));
        assert_eq!(accepted, 1, "{:?}", filter.store.data().log);
        filter
    }

    /// The path of the entry that the daemon is asked for: `/v1/entries/TENANT/DIGEST`. None for a
    /// request that bypasses.
    ///
    /// # Panics
    ///
    /// If the filter traps, or asks more than once.
    pub(crate) fn looks_up(&mut self, request: &Seen) -> Option<String> {
        let state = self.store.data_mut();
        state.request = request.clone();
        state.looked_up.clear();
        self.contexts += 1;
        let id = self.contexts;
        self.call::<_, ()>("proxy_on_context_create", (id, ROOT));
        let ends = i32::from(request.body.is_empty());
        let headers = request.headers.len() as i32 + 2;
        let action = self.call::<_, i32>("proxy_on_request_headers", (id, headers, ends));
        if action == PAUSE {
            let bytes = request.body.len() as i32;
            self.call::<_, i32>("proxy_on_request_body", (id, bytes, 1));
        }
        let mut looked_up = std::mem::take(&mut self.store.data_mut().looked_up);
        self.call::<_, ()>("proxy_on_log", id);
        self.call::<_, ()>("proxy_on_delete", id);
        assert!(looked_up.len() <= 1, "{looked_up:?}");
        looked_up.pop()
    }

    fn call<P: wasmtime::WasmParams, R: wasmtime::WasmResults>(
        &mut self,
        name: &str,
        with: P,
    ) -> R {
        let function: TypedFunc<P, R> = self
            .instance
            .get_typed_func(&mut self.store, name)
            .expect("an export");
        let called = function.call(&mut self.store, with);
        called.unwrap_or_else(|error| panic!("{name}: {error:?}: {:?}", self.store.data().log))
    }
}

fn define(linker: &mut Linker<State>) -> Result<()> {
    let env = "env";
    linker.func_wrap(env, "proxy_log", |mut at: At<'_>, _: i32, data, size| {
        let text = String::from_utf8_lossy(&read(&mut at, data, size)?).into_owned();
        at.data_mut().log.push(text);
        Ok(OK)
    })?;
    linker.func_wrap(env, "proxy_set_tick_period_milliseconds", |_: i32| OK)?;
    linker.func_wrap(
        env,
        "proxy_get_current_time_nanoseconds",
        |mut at: At<'_>, to: i32| {
            at.data_mut().now_ns += 1_000_000;
            let now = at.data().now_ns;
            write(&mut at, to, &now.to_le_bytes())
        },
    )?;
    linker.func_wrap(
        env,
        "proxy_get_buffer_bytes",
        |mut at: At<'_>, buffer: i32, start: i32, most: i32, data: i32, size: i32| {
            let state = at.data();
            let bytes = match buffer {
                REQUEST_BODY => &state.request.body,
                PLUGIN_CONFIGURATION => &state.configuration,
                _ => return Ok(NOT_FOUND),
            };
            let from = bytes.get(start as usize..).unwrap_or_default();
            let bytes = from[..from.len().min(most as u32 as usize)].to_vec();
            give(&mut at, &bytes, data, size)
        },
    )?;
    linker.func_wrap(
        env,
        "proxy_get_header_map_pairs",
        |mut at: At<'_>, _: i32, data: i32, size: i32| {
            let pairs = pairs_of(&at.data().request);
            give(&mut at, &pairs, data, size)
        },
    )?;
    linker.func_wrap(
        env,
        "proxy_get_property",
        |mut at: At<'_>, path: i32, path_size: i32, data: i32, size: i32| {
            let value = match read(&mut at, path, path_size)?.as_slice() {
                b"xds\0cluster_name" => at.data().request.cluster.clone(),
                b"xds\0virtual_host_name" | b"xds\0route_name" => "llm".into(),
                _ => return Ok(NOT_FOUND),
            };
            give(&mut at, value.as_bytes(), data, size)
        },
    )?;
    // Of Envoy's own functions there are none, such as those for expressions.
    linker.func_wrap(
        env,
        "proxy_call_foreign_function",
        |_: i32, _: i32, _: i32, _: i32, _: i32, _: i32| NOT_FOUND,
    )?;
    linker.func_wrap(
        env,
        "proxy_http_call",
        |mut at: At<'_>,
         _: i32,
         _: i32,
         headers: i32,
         headers_size: i32,
         _: i32,
         _: i32,
         _: i32,
         _: i32,
         _: i32,
         token: i32| {
            let headers = read(&mut at, headers, headers_size)?;
            let headers = headers_of(&headers).ok_or_else(|| Error::msg("no headers"))?;
            let value = |name: &str| headers.get(name).cloned().unwrap_or_default();
            let (method, path) = (value(":method"), value(":path"));
            let state = at.data_mut();
            if method == "GET" {
                state.looked_up.push(path);
            }
            number(&mut at, token)
        },
    )?;
    linker.func_wrap(
        env,
        "proxy_define_metric",
        |mut at: At<'_>, _: i32, _: i32, _: i32, to: i32| number(&mut at, to),
    )?;
    linker.func_wrap(
        env,
        "proxy_register_shared_queue",
        |mut at: At<'_>, _: i32, _: i32, to: i32| number(&mut at, to),
    )?;
    linker.func_wrap(
        env,
        "proxy_enqueue_shared_queue",
        |_: i32, _: i32, _: i32| OK,
    )?;
    // What the route would make of the provider's request, which is not looked at here.
    linker.func_wrap(
        env,
        "proxy_set_property",
        |_: i32, _: i32, _: i32, _: i32| OK,
    )?;
    linker.func_wrap(
        env,
        "proxy_get_shared_data",
        |mut at: At<'_>, name: i32, name_size: i32, data: i32, size: i32, version: i32| {
            let name = read(&mut at, name, name_size)?;
            let Some((value, current)) = at.data().shared.get(&name).cloned() else {
                return Ok(NOT_FOUND);
            };
            write(&mut at, version, &current.to_le_bytes())?;
            give(&mut at, &value, data, size)
        },
    )?;
    linker.func_wrap(
        env,
        "proxy_set_shared_data",
        |mut at: At<'_>, name: i32, name_size: i32, value: i32, value_size: i32, version: i32| {
            let name = read(&mut at, name, name_size)?;
            let value = read(&mut at, value, value_size)?;
            let shared = &mut at.data_mut().shared;
            let current = shared.get(&name).map_or(0, |(_, version)| *version);
            // Without a version none is compared.
            if version != 0 && version != current {
                return Ok(CAS_MISMATCH);
            }
            shared.insert(name, (value, current + 1));
            Ok(OK)
        },
    )?;
    Ok(())
}

type At<'a> = Caller<'a, State>;

fn memory(at: &mut At<'_>) -> Result<wasmtime::Memory> {
    let memory = at.get_export("memory").and_then(Extern::into_memory);
    memory.ok_or_else(|| Error::msg("no memory"))
}

fn read(at: &mut At<'_>, data: i32, size: i32) -> Result<Vec<u8>> {
    let mut bytes = vec![0; size as usize];
    memory(at)?.read(at, data as usize, &mut bytes)?;
    Ok(bytes)
}

fn write(at: &mut At<'_>, to: i32, bytes: &[u8]) -> Result<i32> {
    memory(at)?.write(at, to as usize, bytes)?;
    Ok(OK)
}

/// Bytes that the module is to own: it has them made by its own allocator.
fn give(at: &mut At<'_>, bytes: &[u8], data: i32, size: i32) -> Result<i32> {
    let malloc = at.get_export("malloc").and_then(Extern::into_func);
    let malloc = malloc.ok_or_else(|| Error::msg("no allocator"))?;
    let place = malloc
        .typed::<i32, i32>(&mut *at)?
        .call(&mut *at, bytes.len() as i32)?;
    write(at, place, bytes)?;
    write(at, data, &place.to_le_bytes())?;
    write(at, size, &(bytes.len() as u32).to_le_bytes())
}

/// Returns a unique number.
fn number(at: &mut At<'_>, to: i32) -> Result<i32> {
    at.data_mut().numbers += 1;
    let number = at.data().numbers;
    write(at, to, &number.to_le_bytes())
}

/// Headers as proxy-wasm writes them: how many, the lengths, then names and values, each with a
/// zero behind it.
fn pairs_of(request: &Seen) -> Vec<u8> {
    let own = [(":method", &request.method), (":path", &request.path)];
    let own = own.map(|(name, value)| (name, value.as_bytes()));
    let sent = request.headers.iter();
    let sent = sent.map(|(name, value)| (name.as_str(), value.as_slice()));
    let all: Vec<(&str, &[u8])> = own.into_iter().chain(sent).collect();
    let mut bytes = (all.len() as u32).to_le_bytes().to_vec();
    for (name, value) in &all {
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
    }
    for (name, value) in &all {
        bytes.extend([name.as_bytes(), b"\0", value, b"\0"].concat());
    }
    bytes
}

fn headers_of(bytes: &[u8]) -> Option<HashMap<String, String>> {
    let number = |at: usize| {
        let four = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes(four.try_into().ok()?) as usize)
    };
    let count = number(0)?;
    let mut at = 4 + 8 * count;
    let mut text = |length: usize| {
        let text = bytes.get(at..at + length)?;
        at += length + 1;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    let mut headers = HashMap::new();
    for pair in 0..count {
        let name = text(number(4 + 8 * pair)?)?;
        let value = text(number(8 + 8 * pair)?)?;
        headers.insert(name, value);
    }
    Some(headers)
}
