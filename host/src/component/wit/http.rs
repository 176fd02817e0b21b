//! `reflex:cache/http` for guests, and the import of the next `wasi:http` handler.

use crate::cache::Entry;
use crate::component::bindings::http as bindings;
use crate::component::bindings::http::{
    Head, Header, Host, HostFill, HostWithStore, Peeked, Unread,
};
use crate::component::bindings::{cache, embeddings, handler};
use crate::component::border::{from_code, from_wasi, to_code, to_wasi};
use crate::component::host_body::HostBody;
use crate::component::progress::Progress;
use crate::component::wit::cache::ReflexCtxView;
use crate::exchange::body::ahead::read_ahead;
use crate::exchange::boxed::{BoxBody, full};
use crate::exchange::error::Error;
use crate::exchange::fills::{Lead, Turn};
use crate::exchange::policy::HttpPolicy;
use crate::exchange::recording::Target;
use crate::exchange::reply::batch::Texts;
use crate::exchange::reply::head::apply;
use crate::exchange::reply::replayed;
use crate::exchange::shared_body::Follower;
use crate::exchange::watch::{Wanted, Watch, target, target_or_count};
use crate::grant::ctx::ReflexCtx;
use http::header::HeaderMap;
use http::{StatusCode, uri::Scheme};
use reflex_llm::{Anonymous, Api, Bypass, ClientControl, Key, PathRule, Rules, Shape, Tenant};
use std::future::{poll_fn, ready};
use std::sync::Arc;
use std::task::Poll;
use tokio::task::JoinSet;
use wasmtime::Result;
use wasmtime::component::{Access, Accessor, HasData, Linker, Resource};
use wasmtime_wasi::TrappableError;
use wasmtime_wasi_http::p3::bindings::http::client;
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p3::{Request, Response};
use wasmtime_wasi_http::{FieldMap, WasiHttp, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

/// A borrowed look at the parts of a store that the HTTP bridge needs.
#[expect(
    missing_debug_implementations,
    reason = "wasmtime-wasi-http's view has none either"
)]
pub struct ReflexHttpCtxView<'a> {
    /// The cache and the grant.
    pub ctx: &'a ReflexCtx,
    /// The rules for storing answers, and the metrics.
    pub policy: &'a HttpPolicy,
    /// How far the current request has come. One for each request, which remembers when it began:
    /// an answer is not stored when it was purged since.
    pub progress: Arc<Progress>,
    /// Where requests and responses live.
    pub http: WasiHttpCtxView<'a>,
}

/// Implemented by a store's data, so that the bridge can be added to its linker.
pub trait ReflexHttpView: WasiHttpView {
    /// Borrows what the bridge needs.
    fn reflex_http(&mut self) -> ReflexHttpCtxView<'_>;
}

/// Marker for wasmtime's `HasData`: what [`add_http_to_linker`] lends to the generated functions.
#[derive(Debug)]
pub struct ReflexHttp;

impl HasData for ReflexHttp {
    type Data<'a> = ReflexHttpCtxView<'a>;
}

/// Adds `reflex:cache/http` and `embeddings`, and `wasi:http/handler` as an import: the handler
/// behind a middleware component is the host's own client, through `WasiHttpHooks::send_request`.
/// `wasi:http/types` comes from `wasmtime_wasi_http::p3::add_to_linker`.
///
/// # Errors
///
/// Fails only if the linker has one of those interfaces already.
pub fn add_http_to_linker<T: ReflexHttpView + 'static>(linker: &mut Linker<T>) -> Result<()> {
    bindings::add_to_linker::<_, ReflexHttp>(linker, T::reflex_http)?;
    embeddings::add_to_linker::<_, ReflexHttp>(linker, T::reflex_http)?;
    handler::add_to_linker::<_, ReflexHttp>(linker, T::reflex_http)
}

/// The heads of most requests fit.
const HEAD_BYTES: usize = 1024;

impl handler::Host for ReflexHttpCtxView<'_> {}

fn path_rule(rule: &PathRule) -> bindings::PathRule {
    bindings::PathRule {
        path: rule.path.clone(),
        api: rule.api.map_or("none", Api::name).into(),
    }
}

fn rules(rules: &Rules) -> bindings::Rules {
    let Rules {
        ignored_headers,
        ignored_cookies,
        ignored_query,
        ignored_fields,
        keyed_fields,
        bypass_fields,
        bypass_models,
    } = rules.clone();
    bindings::Rules {
        ignored_headers,
        ignored_cookies,
        ignored_query,
        ignored_fields,
        keyed_fields,
        bypass_fields,
        bypass_models,
    }
}

type TrappableResult<T> = Result<T, TrappableError<ErrorCode>>;

impl<T: ReflexHttpView + 'static> handler::HostWithStore<T> for ReflexHttp {
    async fn handle(
        store: &Accessor<T, Self>,
        request: Resource<Request>,
    ) -> Result<Result<Resource<Response>, ErrorCode>> {
        let store = store.with_getter::<WasiHttp>(T::http);
        split(<WasiHttp as client::HostWithStore<T>>::send(&store, request).await)
    }
}

impl Host for ReflexHttpCtxView<'_> {
    fn get_policy(&mut self) -> Result<bindings::Policy> {
        let grant = &self.ctx.grant;
        Ok(bindings::Policy {
            share_anonymous: grant.anonymous() == Anonymous::Share,
            tenant_header: grant.tenant_header.clone(),
            request_bytes_max: grant.request_bytes_max,
            client_control: match self.policy.client_control {
                ClientControl::Obey => bindings::ClientControl::Obey,
                ClientControl::NoRefresh => bindings::ClientControl::NoRefresh,
                ClientControl::Ignore => bindings::ClientControl::Ignore,
            },
            temperature_max: grant.temperature_max,
            samples: self.policy.samples.count(),
            has_groups: grant.has_groups(),
            paths: grant.paths.iter().map(path_rule).collect(),
            rules: rules(&grant.rules),
        })
    }

    fn group_of(&mut self, tenant: Vec<u8>) -> Result<Vec<u8>> {
        Ok(match <[u8; 32]>::try_from(tenant.as_slice()) {
            Ok(bytes) => self.ctx.grant.group_of(Tenant(bytes)).0.to_vec(),
            Err(_) => tenant,
        })
    }

    fn sample(&mut self, key: cache::Key) -> Result<cache::Key> {
        let Some(known) = key_of(&key) else {
            return Ok(key);
        };
        let chosen = self.progress.take_sample(&known);
        let sample = chosen.unwrap_or_else(|| self.policy.samples.next(&known));
        Ok(cache::Key {
            tenant: key.tenant,
            digest: sample.digest.to_vec(),
        })
    }

    fn give_up(&mut self, fill: Resource<Lead>, error: ErrorCode) -> Result<()> {
        self.http.table.delete(fill)?.fail(from_code(error));
        Ok(())
    }

    fn inspect(&mut self, request: Resource<Request>) -> Result<Head> {
        let request = self.http.table.get(&request)?;
        let scheme = request.scheme.as_ref().map_or("", Scheme::as_str);
        let authority = request.authority.as_ref().map_or("", |it| it.as_str());
        let path = request.path_with_query.as_ref();
        let mut text = Vec::with_capacity(HEAD_BYTES);
        let mut ends = Vec::with_capacity(3 + 2 * request.headers.len());
        let mut add = |parts: &[&str], last: &[u8]| {
            for part in parts {
                text.extend_from_slice(part.as_bytes());
            }
            text.extend_from_slice(last);
            // No head is so long; if one were, the guest would find a part missing.
            ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
        };
        add(&[], request.method.as_str().as_bytes());
        add(&[scheme, "://"], authority.as_bytes());
        add(&[], path.map_or("", |it| it.as_str()).as_bytes());
        for (name, value) in request.headers.iter() {
            add(&[], name.as_str().as_bytes());
            add(&[], value.as_bytes());
        }
        Ok(Head { text, ends })
    }

    fn edit_request(
        &mut self,
        request: Resource<Request>,
        remove: Vec<String>,
        set: Vec<Header>,
    ) -> Result<()> {
        let request = self.http.table.get_mut(&request)?;
        request.headers = edited(self.http.hooks, &request.headers, &remove, &set);
        Ok(())
    }

    fn edit_response(
        &mut self,
        response: Resource<Response>,
        remove: Vec<String>,
        set: Vec<Header>,
    ) -> Result<()> {
        let response = self.http.table.get_mut(&response)?;
        response.headers = edited(self.http.hooks, &response.headers, &remove, &set);
        Ok(())
    }

    fn replay(
        &mut self,
        entry: Resource<Entry>,
        set: Vec<Header>,
    ) -> Result<Result<Resource<Response>, cache::Error>> {
        let entry = self.http.table.delete(entry)?;
        let set = |headers: &mut HeaderMap| apply(headers, &[], &set);
        let Some((status, headers, body)) = replayed(&entry, self.policy, set) else {
            return Ok(Err(cache::Error::Invalid(
                "entry: not stored by record-response".into(),
            )));
        };
        self.respond_with(status, headers, body).map(Ok)
    }

    async fn lookup_fresh(&mut self, key: cache::Key) -> Result<Option<bindings::Fresh>> {
        // A key that is not the component's to name is one that has no entry.
        let Ok(named) = self.ctx.resolve(cache::Name::Key(key)) else {
            return Ok(None);
        };
        let key = self.ctx.key(&named.key);
        if self.progress.has_turn(&key) {
            // Looking again could find the answer that the guest is to follow, and call it a hit.
            let since = self.progress.since(&self.ctx.cache);
            self.ctx.grant.lookups.missed(&key, since);
            return Ok(None);
        }
        let waiting = self.progress.wait();
        let found = self.ctx.look_up_async(&named.key).await;
        drop(waiting);
        let Some(entry) = found else {
            return Ok(None);
        };
        let now_ms = self.ctx.clock.now_ms();
        let (age_seconds, ttl_seconds) = (entry.age_seconds(now_ms), entry.ttl_seconds(now_ms));
        let mut view = ReflexCtxView {
            ctx: self.ctx,
            table: self.http.table,
        };
        // Without room for the entry in the guest's table, it is a miss.
        let opened = view.open(Some(entry)).unwrap_or(None);
        Ok(opened.map(|entry| bindings::Fresh {
            entry,
            age_seconds,
            ttl_seconds,
        }))
    }

    async fn lookup_stale(&mut self, key: cache::Key) -> Result<Option<bindings::Stale>> {
        // A key that is not the component's to name is one that has no entry.
        let Ok(named) = self.ctx.resolve(cache::Name::Key(key)) else {
            return Ok(None);
        };
        let most = self.policy.stale_if_error_max;
        let key = self.ctx.key(&named.key);
        let waiting = self.progress.wait();
        let found = self.ctx.find_stale(&key, most).await;
        drop(waiting);
        let Some((entry, expired_seconds)) = found else {
            return Ok(None);
        };
        // Without room for the entry in the guest's table, it is a miss.
        let pushed = self.http.table.push(entry).ok();
        Ok(pushed.map(|entry| bindings::Stale {
            entry,
            expired_seconds,
        }))
    }

    fn respond(
        &mut self,
        status: u16,
        headers: Vec<Header>,
        body: Vec<u8>,
    ) -> Result<Resource<Response>> {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut map = HeaderMap::new();
        apply(&mut map, &[], &headers);
        self.respond_with(status, map, full(body))
    }
}

impl HostFill for ReflexHttpCtxView<'_> {
    fn drop(&mut self, fill: Resource<Lead>) -> Result<()> {
        self.http.table.delete(fill)?;
        Ok(())
    }
}

impl ReflexHttpCtxView<'_> {
    pub(crate) fn respond_with(
        &mut self,
        status: StatusCode,
        headers: HeaderMap,
        body: BoxBody,
    ) -> Result<Resource<Response>> {
        let mut response = http::Response::new(HostBody::boxed(body, &self.progress));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        // The transmission's result does not matter: the body is in memory.
        let (response, _transmitted) = Response::from_http(self.http.hooks, response);
        Ok(self.http.table.push(response)?)
    }
}

impl<T: ReflexHttpView + 'static> HostWithStore<T> for ReflexHttp {
    async fn peek(
        store: &Accessor<T, Self>,
        request: Resource<Request>,
        bytes_max: u64,
    ) -> Result<Result<Peeked, ErrorCode>> {
        let taken = store.with(|mut store| {
            let request = store
                .get()
                .http
                .table
                .delete(request)
                .map_err(TrappableError::trap)?;
            let (request, _options) = request.into_http(&mut store, ready(Ok(())))?;
            let view = store.get();
            // The guest asks for less, not for more.
            let bytes_max = bytes_max.min(view.ctx.grant.request_bytes_max);
            let budget = Arc::clone(&view.policy.budget);
            TrappableResult::Ok((request, view.progress, bytes_max, budget))
        });
        let (request, progress, bytes_max, budget) = match split(taken)? {
            Ok(taken) => taken,
            Err(error) => return Ok(Err(error)),
        };
        let (parts, body) = request.map(from_wasi).into_parts();

        let lender = progress.errand().and_then(|errand| errand.client());
        let reading = async move { read_ahead(body, bytes_max, &budget, lender).await };
        let read = progress.host(apart(reading)).await;
        let read = read.unwrap_or(Err(Error::InternalError(None)));

        let (whole, body) = match read {
            Ok(read) => read.with_body(),
            Err(Error::ConnectionReadTimeout) => return Ok(Err(ErrorCode::ConnectionReadTimeout)),
            // Whatever the body's error is, the client will not send the rest.
            Err(_) => return Ok(Err(ErrorCode::ConnectionTerminated)),
        };
        store.with(|mut store| {
            let view = store.get();
            let request = http::Request::from_parts(parts, to_wasi(body));
            let (request, _transmitted) = Request::from_http(view.http.hooks, request);
            let request = view.http.table.push(request)?;
            Ok(Ok(Peeked {
                request,
                body: whole.map(Vec::from).map_err(unread),
            }))
        })
    }

    async fn join(
        store: &Accessor<T, Self>,
        recording: bindings::Recording,
    ) -> Result<bindings::Turn> {
        join(store, recording).await
    }

    fn record_response(
        store: Access<'_, T, Self>,
        response: Resource<Response>,
        recording: bindings::Recording,
        fill: Option<Resource<Lead>>,
    ) -> Result<Resource<Response>> {
        record(store, response, recording, fill, None)
    }
}

/// How often a guest is polled while the host reads a request for it.
const POLLS_MAX: u32 = 64;

/// Does the work where it is polled, and on a task of its own if that takes many polls. Otherwise a
/// request in a million frames would be a million polls of the guest, which take longer than
/// reading it. None if that task panicked.
async fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let mut work = Box::pin(work);
    let mut polls = 0;
    let done = poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if polls == POLLS_MAX => Poll::Ready(None),
        Poll::Pending => {
            polls += 1;
            Poll::Pending
        }
    });
    if let Some(output) = done.await {
        return Some(output);
    }
    // Ends with this.
    let mut task = JoinSet::new();
    task.spawn(work);
    task.join_next().await?.ok()
}

/// Why a body was not read ahead, for the guest.
fn unread(why: Bypass) -> Unread {
    match why {
        Bypass::Trailers => Unread::Trailers,
        Bypass::Memory => Unread::Memory,
        _ => Unread::TooLong,
    }
}

/// wasmtime-wasi-http has one type for errors that the guest may see and errors that end it.
fn split<T>(result: TrappableResult<T>) -> Result<Result<T, ErrorCode>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => error.downcast().map(Err),
    }
}

fn edited(
    hooks: &mut dyn WasiHttpHooks,
    headers: &FieldMap,
    remove: &[String],
    set: &[Header],
) -> FieldMap {
    let mut map = HeaderMap::clone(headers);
    apply(&mut map, remove, set);
    FieldMap::new_immutable(hooks, map)
}

/// Joins the fill of an answer, or begins it.
async fn join<T: ReflexHttpView + 'static>(
    store: &Accessor<T, ReflexHttp>,
    recording: bindings::Recording,
) -> Result<bindings::Turn> {
    let (target, wait_max, progress) = store.with(|mut store| {
        let view = store.get();
        let since = view.progress.since(&view.ctx.cache);
        let target =
            wanted(recording).and_then(|wanted| target(view.ctx, view.policy, since, &wanted));
        (target, view.policy.fill_wait_max, view.progress)
    });
    let Some(target) = target else {
        return Ok(bindings::Turn::Alone);
    };
    let key = target.ctx.key(&target.key);
    let turn = match progress.take_turn(&key) {
        Some(turn) => turn,
        None => {
            let _waiting = progress.wait();
            target.fills.join(key, target.key.tenant, wait_max).await
        }
    };

    store.with(|mut store| {
        let view = store.get();
        Ok(match turn {
            Turn::Lead(lead) => {
                view.progress.lead(lead.audience());
                bindings::Turn::Lead(view.http.table.push(lead)?)
            }
            Turn::Follow(Follower {
                status,
                headers,
                body,
            }) => {
                let mut response = http::Response::new(HostBody::boxed(body, &view.progress));
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                let (response, _transmitted) = Response::from_http(view.http.hooks, response);
                bindings::Turn::Follow(view.http.table.push(response)?)
            }
            Turn::Failed(error) => {
                view.progress.call_upstream();
                bindings::Turn::Failed(to_code(error))
            }
            Turn::Again => bindings::Turn::Again,
            // A guest has no other word for it, and records its answer.
            Turn::Alone | Turn::Over => bindings::Turn::Alone,
        })
    })
}

/// Hands a response back with a recorder on its body, which followers may read as well. An answer
/// to several texts is stored text by text.
pub(super) fn record<T: ReflexHttpView + 'static>(
    mut store: Access<'_, T, ReflexHttp>,
    response: Resource<Response>,
    recording: bindings::Recording,
    fill: Option<Resource<Lead>>,
    texts: Option<Texts>,
) -> Result<Resource<Response>> {
    let view = store.get();
    let lead = fill.map(|fill| view.http.table.delete(fill)).transpose()?;
    let answer = view.http.table.get(&response)?;
    let (status, headers) = (answer.status, HeaderMap::clone(&answer.headers));
    let since = view.progress.since(&view.ctx.cache);
    let target =
        wanted(recording).and_then(|wanted| target_or_count(view.ctx, view.policy, since, &wanted));
    let target = target.map(|target| Target { texts, ..target });
    let Some(watch) = Watch::new(target, view.policy, (status, &headers), lead) else {
        return Ok(response);
    };
    let response = view.http.table.delete(response)?;
    let response = response.into_http(&mut store, ready(Ok(())))?;
    let response = response.map(|body| to_wasi(watch.body(from_wasi(body))));
    let view = store.get();
    let (response, _transmitted) = Response::from_http(view.http.hooks, response);
    Ok(view.http.table.push(response)?)
}

/// What a guest wants recorded; none if it is malformed.
pub(super) fn wanted(recording: bindings::Recording) -> Option<Wanted> {
    let bindings::Recording {
        key,
        shape,
        path,
        model,
        ttl_seconds,
    } = recording;
    Some(Wanted {
        key: key_of(&key)?,
        shape: Shape::from_token(&shape)?,
        path,
        model,
        ttl_seconds,
    })
}

pub(crate) fn key_of(key: &cache::Key) -> Option<Key> {
    Some(Key {
        tenant: Tenant(key.tenant.as_slice().try_into().ok()?),
        digest: key.digest.as_slice().try_into().ok()?,
    })
}
