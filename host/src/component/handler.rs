//! Runs a `wasi:http` handler component, one request at a time per instance, within limits.
//!
//! An instance is used again and again, but by one request at a time, so that a fault of the guest
//! costs only that request. After any fault the instance is dropped.

use crate::component::border::{from_code, from_wasi, to_wasi};
use crate::component::engine::{LoadError, load, one_line};
use crate::component::errand::{Errand, Rest};
use crate::component::guest_time::Metered;
use crate::component::host_body::is_host_made;
use crate::component::pool::{bound, pooled_engine};
use crate::component::progress::{Done, Progress};
use crate::component::state::GuestState;
use crate::component::watched::Watched;
use crate::component::wit::cache::add_to_linker_async;
use crate::component::wit::http::add_http_to_linker;
use crate::exchange::ask::SendRequest;
use crate::exchange::body::lent::{Lender, lend};
use crate::exchange::boxed::BoxBody;
use crate::exchange::error::Error;
use crate::exchange::outliving::Outliving;
use crate::exchange::policy::HttpPolicy;
use crate::grant::ctx::ReflexCtx;
use crate::grant::guest_limits::GuestLimits;
use crate::sync::lock;
use http_body_util::BodyExt as _;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use wasmtime::component::Linker;
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::p3::Request;
use wasmtime_wasi_http::p3::bindings::{Service, ServicePre};

/// Why the guest gave no response to a request. Nothing has gone to the client.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// All instances are taken, and none came free in time.
    Busy,
    /// A new instance could not be made.
    Instantiate(wasmtime::Error),
    /// The guest trapped, ran out of memory, or broke the rules of the component model.
    Trapped(wasmtime::Error),
    /// The guest took longer than [`GuestLimits::guest_time_max`].
    TimedOut,
    /// The guest answered with an error.
    Refused {
        /// The guest's error.
        error: Error,
        /// Whether the provider was called, so that the error is likely the provider's.
        upstream_called: bool,
    },
    /// The guest failed, and before that it had sent the request that it was given.
    AfterSending {
        /// How it failed.
        cause: Box<Self>,
        /// The provider's answer, if it can still be had.
        rest: Rest,
    },
}

impl Failure {
    /// The same failure, with what is left of the client's request if the guest has sent it.
    fn after(self, errand: &Arc<Errand>) -> Self {
        // An error that the guest returns is its decision.
        if matches!(self, Self::Refused { .. }) {
            return self;
        }
        match Arc::clone(errand).rest() {
            Some(rest) => Self::AfterSending {
                cause: Box::new(self),
                rest,
            },
            None => self,
        }
    }
}

/// A loaded component with its pool of instances. Cheap to share; create one per component.
pub struct Handler {
    pre: ServicePre<GuestState>,
    parts: Parts,
    limits: GuestLimits,
    /// Most recently used last, so that a quiet time leaves the oldest cold.
    idle: Arc<Mutex<Vec<Instance>>>,
    permits: Arc<Semaphore>,
}

/// The parts of each new instance's store.
struct Parts {
    reflex: ReflexCtx,
    policy: Arc<HttpPolicy>,
    sender: Arc<dyn SendRequest>,
}

struct Instance {
    store: Store<GuestState>,
    service: Service,
    served: u32,
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Handler {
    /// Compiles a component (its binary form) and checks that it fits.
    ///
    /// # Errors
    ///
    /// [`LoadError`] says in one line what is wrong with the component or the machine.
    pub fn new(
        component: &[u8],
        reflex: ReflexCtx,
        policy: HttpPolicy,
        sender: Arc<dyn SendRequest>,
        limits: GuestLimits,
    ) -> Result<Self, LoadError> {
        Self::with_policy(component, reflex, Arc::new(policy), sender, limits)
    }

    /// The same with a policy that others have, too.
    pub(crate) fn with_policy(
        component: &[u8],
        reflex: ReflexCtx,
        policy: Arc<HttpPolicy>,
        sender: Arc<dyn SendRequest>,
        limits: GuestLimits,
    ) -> Result<Self, LoadError> {
        let pre = load(pooled_engine(&limits), component, linker, ServicePre::new)?;
        Ok(Self {
            pre,
            parts: Parts {
                reflex,
                policy,
                sender,
            },
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(limits.instances_max as usize)),
            limits,
        })
    }

    /// Has a guest handle one request. The response's body may still be on its way when this
    /// returns.
    ///
    /// # Errors
    ///
    /// [`Failure`] says why the guest gave no response. The request has been consumed as far as the
    /// guest read it.
    ///
    /// # Cancellation
    ///
    /// Dropping the future drops the guest, and with it its request to the provider. If followers
    /// wait for the same answer, the guest goes on until the last of them is gone.
    pub async fn handle(
        &self,
        request: http::Request<BoxBody>,
    ) -> Result<http::Response<BoxBody>, Failure> {
        let Parts { reflex, policy, .. } = &self.parts;
        let (parts, body) = request.into_parts();
        let (lender, lent) = lend(body, reflex.grant.request_bytes_max, &policy.budget);
        let request = http::Request::from_parts(parts, lent);
        self.handle_lent(request, lender, &mut None).await
    }

    /// The same with a request whose body was lent, so that it can be taken back, and with what the
    /// host has already done for it. What of that a guest that fails has not used is left there.
    pub(crate) async fn handle_lent(
        &self,
        request: http::Request<BoxBody>,
        lender: Lender,
        done: &mut Option<Done>,
    ) -> Result<http::Response<BoxBody>, Failure> {
        let permit = self.permit().await?;
        let mut instance = self.instance().await?;
        let progress = instance.store.data_mut().begin();
        if let Some(done) = done.take() {
            progress.begin_with(done);
        }
        progress.watch(Errand::new(&request, lender, &self.parts.policy.budget));
        let guest_time_max = self.limits.guest_time_max;

        let work = {
            let progress = Arc::clone(&progress);
            async move {
                let handled = {
                    let work = pin!(instance.respond(request, &progress));
                    // Out of time, the guest's work is dropped here, and then the instance.
                    Metered::new(work, &progress, guest_time_max).await
                };
                Ok((handled.ok_or(Failure::TimedOut)??, instance, permit))
            }
        };
        let audience = {
            let progress = Arc::clone(&progress);
            move || progress.audience()
        };
        let handled: Result<_, Failure> = Outliving::new(work, audience).await;
        let unused = progress.take_done();
        let (handled, instance, permit) = match (handled, progress.errand()) {
            (Ok(handled), errand) => {
                if let Some(errand) = errand {
                    errand.is_done();
                }
                handled
            }
            (Err(failure), errand) => {
                *done = unused;
                return Err(match errand {
                    Some(errand) => failure.after(errand),
                    None => failure,
                });
            }
        };
        // Followers must not wait for what the guest had no use for.
        drop(unused);
        match handled.needs_guest {
            false => {
                self.give_back(instance);
                Ok(handled.response)
            }
            true => Ok(self.keep_running(instance, handled.response, permit)),
        }
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let acquire = Arc::clone(&self.permits).acquire_owned();
        match tokio::time::timeout(self.limits.instance_wait_max, acquire).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Failure::Busy),
        }
    }

    async fn instance(&self) -> Result<Instance, Failure> {
        if let Some(instance) = lock(&self.idle).pop() {
            return Ok(instance);
        }
        let Parts {
            reflex,
            policy,
            sender,
        } = &self.parts;
        let state = GuestState::new(
            reflex.clone(),
            Arc::clone(policy),
            Arc::clone(sender),
            &self.limits,
        );
        let mut store = Store::new(self.pre.engine(), state);
        store.limiter(|state| &mut state.limits);
        bound(&mut store, &self.limits);
        let service = self
            .pre
            .instantiate_async(&mut store)
            .await
            .map_err(Failure::Instantiate)?;
        store.data_mut().limits.begin();
        Ok(Instance {
            store,
            service,
            served: 0,
        })
    }

    fn give_back(&self, instance: Instance) {
        if instance.is_reusable(&self.limits) {
            lock(&self.idle).push(instance);
        }
    }

    /// The guest has more to do: it makes the body itself, or goes on after its return. It gets
    /// the time for that beside the response, and keeps its place in the count of instances.
    fn keep_running(
        &self,
        mut instance: Instance,
        response: http::Response<BoxBody>,
        permit: OwnedSemaphorePermit,
    ) -> http::Response<BoxBody> {
        let (body_open, body_ended) = oneshot::channel::<()>();
        let stream_time_max = self.limits.stream_time_max;
        let limits = self.limits.clone();
        let idle = Arc::clone(&self.idle);
        let observer = Arc::clone(&self.parts.policy.observer);
        let ended = Arc::clone(&observer);
        let broken = Arc::new(AtomicBool::new(false));
        let breaks = Arc::clone(&broken);
        tokio::spawn(async move {
            let rest = instance.store.run_concurrent(async |accessor| {
                // Resolves when the body is dropped, at its end or before.
                let _ = body_ended.await;
                poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
            });
            let rest = tokio::time::timeout(stream_time_max, rest).await;
            let is_done = matches!(rest, Ok(Ok(())));
            // Before the instance is dropped, because the body ends then.
            breaks.store(!is_done, Ordering::Release);
            match rest {
                Ok(Ok(())) => {}
                Ok(Err(trap)) => {
                    ended.guest_failed("stream-trap");
                    tracing::warn!(error = one_line(&trap), "guest trapped while streaming");
                }
                Err(_) => {
                    ended.guest_failed("stream-timeout");
                    tracing::warn!("guest stopped: it streamed for too long");
                }
            }
            // The next holder of the permit must find room for an instance.
            match is_done && instance.is_reusable(&limits) {
                true => lock(&idle).push(instance),
                false => drop(instance),
            }
            drop(permit);
        });
        response.map(|inner| {
            let open = body_open;
            Watched::new(inner, observer, broken, open).boxed_unsync()
        })
    }
}

struct Handled {
    response: http::Response<BoxBody>,
    /// The instance has to run on for the body, or for work of its own.
    needs_guest: bool,
}

impl Instance {
    /// Whether it may serve another request. A leak in a guest has an end, and so has the memory
    /// that one large request took.
    fn is_reusable(&self, limits: &GuestLimits) -> bool {
        self.served < limits.requests_per_instance_max && !self.store.data().limits.has_grown()
    }

    async fn respond(
        &mut self,
        request: http::Request<BoxBody>,
        progress: &Progress,
    ) -> Result<Handled, Failure> {
        self.served += 1;
        self.store.set_epoch_deadline(1);
        let service = &self.service;
        let handled = self.store.run_concurrent(async |accessor| {
            let request = accessor.with(|mut access| {
                let request = request.map(to_wasi);
                let hooks = access.data_mut().http().hooks;
                Request::from_http(hooks, request).0
            });
            let response = match service.handle(accessor, request).await? {
                Ok(response) => response,
                Err(error) => return Ok(Err(error)),
            };
            let response =
                accessor.with(|access| response.into_http(access, std::future::ready(Ok(()))))?;
            // Polled once: a guest that has returned and has nothing left is already gone.
            let settled =
                poll_fn(|cx| Poll::Ready(accessor.poll_no_interesting_tasks(cx).is_ready())).await;
            let needs_guest = !settled || !is_host_made(response.body(), progress);
            Ok(Ok(Handled {
                response: response.map(from_wasi),
                needs_guest,
            }))
        });
        match handled.await.and_then(|handled| handled) {
            Ok(Ok(handled)) => Ok(handled),
            Ok(Err(error)) => Err(Failure::Refused {
                error: from_code(error),
                upstream_called: progress.upstream_called(),
            }),
            Err(trap) => Err(Failure::Trapped(trap)),
        }
    }
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    // Time, randomness, an empty environment and closed standard streams. Files and sockets are
    // not there even as empty shells: a guest that imports them is refused when it is loaded.
    wasmtime_wasi::p3::clocks::add_to_linker(&mut linker)?;
    wasmtime_wasi::p3::random::add_to_linker(&mut linker)?;
    wasmtime_wasi::p3::cli::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    add_to_linker_async(&mut linker, GuestState::reflex)?;
    add_http_to_linker(&mut linker)?;
    Ok(linker)
}
