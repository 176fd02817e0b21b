//! Policy components: a plain function call decides how to handle a request. For hosts without
//! HTTP, and without an async runtime.
//!
//! ```text
//! Question ─► PolicyGuest::decide ─► guest: decide ─► request.lookup (the host hashes) ─► cache
//!                └► Decision: serve this entry | ask, and keep | pass | refuse
//! ```
//!
//! The request stays here and is copied only as far as the guest reads it, so that a decision costs
//! the same for any length. An instance is asked again and again, by one caller at a time; after
//! any fault it is dropped.

use crate::cache::{Entry, Mark};
use crate::component::bindings::{PolicyInstance, PolicyPre, cache, decider, request};
use crate::component::engine::{LoadError, load, one_line, thread_time, tick_epoch};
use crate::component::limits::{EPOCH_TICK, Measured, of_store};
use crate::component::wit::cache::{ReflexCtxView, add_to_linker, part};
use crate::grant::ctx::{Named, ReflexCtx};
use crate::grant::guest_limits::GuestLimits;
use crate::grant::{Error, bytes32};
use crate::sync::lock;
use bytes::Bytes;
use reflex_llm::{Head, Key, Tenant};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime::{Config, Engine, Result, Store, Trap, UpdateDeadline};

/// A request that a policy is asked about. A clone shares it.
#[derive(Clone)]
pub struct Question {
    what: Arc<What>,
    /// The tenant, if the caller named one.
    tenant: Option<Tenant>,
}

enum What {
    Prompt(String),
    Request {
        method: String,
        upstream: String,
        path: String,
        headers: Vec<(String, Vec<u8>)>,
        body: Bytes,
    },
}

impl Question {
    /// A bare prompt of a tenant, with the key [`Key::for_prompt`].
    pub fn prompt(tenant: Tenant, text: impl Into<String>) -> Self {
        Self {
            what: Arc::new(What::Prompt(text.into())),
            tenant: Some(tenant),
        }
    }

    /// An LLM request as it would go to the provider: `POST`, `scheme://authority`, the path with
    /// its query, headers with their names in lower case, the body. The tenant is that of its
    /// credential.
    pub fn request(
        method: impl Into<String>,
        upstream: impl Into<String>,
        path: impl Into<String>,
        headers: Vec<(String, Vec<u8>)>,
        body: impl Into<Bytes>,
    ) -> Self {
        let what = What::Request {
            method: method.into(),
            upstream: upstream.into(),
            path: path.into(),
            headers,
            body: body.into(),
        };
        Self {
            what: Arc::new(what),
            tenant: None,
        }
    }

    fn named(&self, ctx: &ReflexCtx) -> Result<Named, Error> {
        match &*self.what {
            What::Prompt(text) => {
                ctx.check_length("prompt", text.len())?;
                let tenant = self.tenant.ok_or_else(no_tenant)?;
                let tenant = ctx.grant.tenant(&tenant.0)?;
                Ok(Named::bare(Key::for_prompt(&tenant, text)))
            }
            What::Request {
                method,
                upstream,
                path,
                headers,
                body,
            } => {
                let headers: Vec<(&str, &[u8])> = headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_slice()))
                    .collect();
                let head = Head {
                    method,
                    upstream,
                    path,
                    headers: &headers,
                };
                ctx.classify(&head, body, self.tenant)
            }
        }
    }

    fn head(&self) -> [&str; 3] {
        match &*self.what {
            What::Prompt(_) => [""; 3],
            What::Request {
                method,
                upstream,
                path,
                ..
            } => [method, upstream, path],
        }
    }

    fn headers(&self) -> &[(String, Vec<u8>)] {
        match &*self.what {
            What::Prompt(_) => &[],
            What::Request { headers, .. } => headers,
        }
    }

    fn body(&self) -> &[u8] {
        match &*self.what {
            What::Prompt(text) => text.as_bytes(),
            What::Request { body, .. } => body,
        }
    }
}

fn no_tenant() -> Error {
    Error::Invalid("tenant: none".into())
}

/// Without contents: credentials stand there.
impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Question({} bytes)", self.body().len())
    }
}

/// The decision of a policy.
#[derive(Debug)]
pub enum Decision {
    /// Answer with this entry.
    Serve(Entry),
    /// Ask the provider, and have [`PolicyGuest::keep`] keep the answer if it is good.
    Ask(Asking),
    /// Ask the provider, and keep nothing. Why, for the operator.
    Pass(String),
    /// Refuse it, without asking the provider.
    Refuse {
        /// In the terms of HTTP.
        status: u16,
        /// The text for the client.
        text: String,
    },
}

/// How to keep the provider's answer.
#[derive(Debug)]
pub struct Asking {
    named: Named,
    ttl_seconds: Option<u64>,
    /// From before the policy looked for it.
    since: Mark,
}

impl Asking {
    /// Under which key.
    pub fn key(&self) -> Key {
        self.named.key
    }
}

/// A loaded policy component with its instances. Share it between threads.
///
/// ```no_run
/// use reflex_host::component::{Decision, GuestLimits, PolicyGuest, Question};
/// use reflex_host::grant::Grant;
/// use reflex_host::{Cache, Tenant};
///
/// # fn main() -> wasmtime::Result<()> {
/// let tenant = Tenant::of_group("research");
/// let cache = Cache::builder("").in_memory();
/// let ctx = cache.granted(Grant::new("policy").for_tenant(tenant));
/// let component = std::fs::read("reflex-policy.wasm")?;
/// let policy = PolicyGuest::new(&component, ctx, GuestLimits::default())?;
///
/// match policy.decide(Question::prompt(tenant, "Why is the sky blue?"))? {
///     Decision::Serve(entry) => println!("{:?}", entry.payload()),
///     Decision::Ask(asking) => {
///         let answer = "Rayleigh scattering.";
///         println!("{answer}");
///         // If the answer cannot be kept, it can still be used.
///         let _ = policy.keep(&asking, b"text/plain", answer.as_bytes());
///     }
///     Decision::Pass(reason) => println!("asked without the cache: {reason}"),
///     Decision::Refuse { status, text } => println!("{status} {text}"),
/// }
/// # Ok(())
/// # }
/// ```
pub struct PolicyGuest {
    pre: PolicyPre<State>,
    reflex: ReflexCtx,
    limits: GuestLimits,
    failures: AtomicU64,
    /// At most `instances_max`; a further one is dropped when it has answered.
    idle: Mutex<Vec<Instance>>,
}

struct Instance {
    store: Store<State>,
    policy: PolicyInstance,
    asked: u32,
}

/// The data of a policy's store.
struct State {
    reflex: ReflexCtx,
    table: ResourceTable,
    limits: Measured,
    /// The request of the current decision.
    asked: Option<Asked>,
    /// How long its thread had run when it was asked.
    began: Duration,
}

/// The request that a guest decides about.
struct Asked {
    since: Mark,
    question: Question,
    /// Its key, once computed. That is most of the cost of a decision.
    named: Option<Named>,
}

impl Asked {
    fn named(&mut self, ctx: &ReflexCtx) -> Result<&Named, Error> {
        let named = match self.named.take() {
            Some(named) => named,
            None => self.question.named(ctx)?,
        };
        Ok(self.named.insert(named))
    }

    fn into_named(mut self, ctx: &ReflexCtx) -> Result<Named, Error> {
        let named = self.named.take();
        named.map_or_else(|| self.question.named(ctx), Ok)
    }

    /// The same question on behalf of another.
    fn act_for(&mut self, tenant: Tenant) {
        self.question.tenant = Some(tenant);
        self.named = None;
    }
}

impl PolicyGuest {
    /// Compiles a component (its binary form) and checks that it fits.
    ///
    /// # Errors
    ///
    /// [`LoadError`] says in one line what is wrong with the component or the machine.
    pub fn new(
        component: &[u8],
        reflex: ReflexCtx,
        limits: GuestLimits,
    ) -> Result<Self, LoadError> {
        let pre = load(engine(), component, linker, PolicyPre::new)?;
        Ok(Self {
            pre,
            reflex,
            limits,
            failures: AtomicU64::new(0),
            idle: Mutex::default(),
        })
    }

    /// Asks the policy. Blocks for as long as the guest takes, which computes for at most
    /// [`guest_time_max`](GuestLimits::guest_time_max).
    ///
    /// # Errors
    ///
    /// The guest trapped, ran out of time or memory, or could not be started. The caller goes on
    /// without it: asks, and keeps nothing.
    pub fn decide(&self, question: Question) -> Result<Decision> {
        let mut instance = self.instance()?;
        let decided = instance
            .decide(question, self.limits.guest_time_max)
            .inspect_err(|error| {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(error = one_line(error), "policy guest failed");
            })?;
        instance.asked += 1;
        let has_grown = instance.store.data().limits.has_grown();
        if instance.asked < self.limits.requests_per_instance_max && !has_grown {
            let mut idle = lock(&self.idle);
            if idle.len() < self.limits.instances_max as usize {
                idle.push(instance);
            }
        }
        Ok(decided)
    }

    /// How often an instance trapped, or ran out of time or memory, while it decided. The log says
    /// why; such an instance is not used again.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Keeps an answer as the policy has said. Whether it is good is the caller's to judge.
    ///
    /// # Errors
    ///
    /// Why it was not stored, as a component would be told; also that it was purged since the policy
    /// decided. Nothing to fail a request for.
    pub fn keep(&self, asking: &Asking, metadata: &[u8], payload: &[u8]) -> Result<(), Error> {
        let kept = self.store(asking, metadata, payload);
        self.reflex.settled(kept)
    }

    /// As [`keep`](Self::keep), for async callers: no thread of theirs waits for the disk.
    ///
    /// # Errors
    ///
    /// As of [`keep`](Self::keep).
    pub async fn keep_async(
        &self,
        asking: &Asking,
        metadata: &[u8],
        payload: &[u8],
    ) -> Result<(), Error> {
        self.store(asking, metadata, payload)?;
        self.reflex.cache.wait_until_durable_async().await;
        Ok(())
    }

    fn store(&self, asking: &Asking, metadata: &[u8], payload: &[u8]) -> Result<(), Error> {
        let Asking {
            named,
            ttl_seconds,
            since,
        } = asking;
        self.reflex
            .keep(named, metadata, payload, *ttl_seconds, *since)
    }

    fn instance(&self) -> Result<Instance> {
        if let Some(instance) = lock(&self.idle).pop() {
            return Ok(instance);
        }
        let limits = &self.limits;
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles_max);
        let state = State {
            reflex: self.reflex.clone(),
            table,
            limits: Measured::new(of_store(limits)),
            asked: None,
            began: thread_time(),
        };
        let mut store = Store::new(self.pre.engine(), state);
        store.limiter(|state| &mut state.limits);
        store.set_hostcall_fuel(limits.hostcall_bytes_max);
        store.set_epoch_deadline(ticks(limits.guest_time_max));
        let most = limits.guest_time_max;
        // The epoch goes on while a busy machine does not run this thread. Its own time decides.
        store.epoch_deadline_callback(move |store| {
            let used = thread_time().saturating_sub(store.data().began);
            match most.checked_sub(used) {
                Some(left) if !left.is_zero() => Ok(UpdateDeadline::Continue(ticks(left))),
                _ => Err(Trap::Interrupt.into()),
            }
        });
        let policy = self.pre.instantiate(&mut store)?;
        store.data_mut().limits.begin();
        Ok(Instance {
            store,
            policy,
            asked: 0,
        })
    }
}

impl fmt::Debug for PolicyGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyGuest")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Instance {
    fn decide(&mut self, question: Question, most: Duration) -> Result<Decision> {
        self.store.set_epoch_deadline(ticks(most));
        let state = self.store.data_mut();
        state.began = thread_time();
        let since = state.reflex.cache.purges().now();
        state.asked = Some(Asked {
            since,
            question,
            named: None,
        });
        let decider = self.policy.reflex_cache_decider();
        let decision = decider.call_decide(&mut self.store)?;
        let state = self.store.data_mut();
        let asked = state.asked.take();
        Ok(match decision {
            decider::Decision::Serve(entry) => Decision::Serve(state.table.delete(entry)?),
            decider::Decision::Ask(decider::Keeping { ttl_seconds }) => {
                let named = asked.map(|it| (it.since, it.into_named(&state.reflex)));
                match named {
                    Some((since, Ok(named))) => Decision::Ask(Asking {
                        named,
                        ttl_seconds,
                        since,
                    }),
                    // The guest wants it kept, but it has no key.
                    Some((_, Err(Error::Bypass(reason)))) => Decision::Pass(reason),
                    Some((_, Err(_))) | None => Decision::Pass("invalid".into()),
                }
            }
            decider::Decision::Pass(reason) => Decision::Pass(reason),
            decider::Decision::Refuse((status, text)) => Decision::Refuse { status, text },
        })
    }
}

/// How many ticks of the epoch cover at least `time`, the current one included.
fn ticks(time: Duration) -> u64 {
    let ticks = time.as_millis() / EPOCH_TICK.as_millis();
    u64::try_from(ticks).unwrap_or(u64::MAX / 2) + 1
}

fn linker(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    add_to_linker(&mut linker, State::reflex)?;
    request::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    Ok(linker)
}

/// Without concurrency: a call is then a plain call.
fn engine() -> Result<Engine> {
    let mut config = Config::new();
    config.concurrency_support(false);
    config.epoch_interruption(true);
    let engine = Engine::new(&config)?;
    tick_epoch(&engine)?;
    Ok(engine)
}

impl State {
    fn reflex(&mut self) -> ReflexCtxView<'_> {
        ReflexCtxView {
            ctx: &self.reflex,
            table: &mut self.table,
        }
    }

    /// None once the guest has answered, and before it is asked.
    fn asked(&self) -> Result<&Asked> {
        self.asked.as_ref().ok_or_else(nothing_asked)
    }

    fn question(&self) -> Result<&Question> {
        Ok(&self.asked()?.question)
    }

    fn key(&mut self) -> Result<Result<Key, Error>> {
        let asked = self.asked.as_mut().ok_or_else(nothing_asked)?;
        Ok(asked.named(&self.reflex).map(|named| named.key))
    }
}

fn nothing_asked() -> wasmtime::Error {
    wasmtime::Error::msg("no request is being decided about")
}

impl request::Host for State {
    fn method(&mut self) -> Result<String> {
        Ok(self.question()?.head()[0].into())
    }

    fn upstream(&mut self) -> Result<String> {
        Ok(self.question()?.head()[1].into())
    }

    fn path(&mut self) -> Result<String> {
        Ok(self.question()?.head()[2].into())
    }

    fn header(&mut self, name: String) -> Result<Vec<Vec<u8>>> {
        let headers = self.question()?.headers().iter();
        let values = headers.filter(|(other, _)| *other == name);
        Ok(values.map(|(_, value)| value.clone()).collect())
    }

    fn size(&mut self) -> Result<u64> {
        Ok(self.question()?.body().len() as u64)
    }

    fn read(&mut self, offset: u64, length: u64) -> Result<Vec<u8>> {
        Ok(part(self.question()?.body(), offset, length))
    }

    fn classify(&mut self) -> Result<Result<cache::Key, cache::Error>> {
        let key = self.key()?.map(|key| cache::Key {
            tenant: key.tenant.0.to_vec(),
            digest: key.digest.to_vec(),
        });
        Ok(key.map_err(Into::into))
    }

    fn act_for(&mut self, tenant: Vec<u8>) -> Result<Result<(), cache::Error>> {
        let asked = self.asked.as_mut().ok_or_else(nothing_asked)?;
        let tenant = bytes32(&tenant, "tenant").and_then(|it| self.reflex.grant.tenant(&it));
        let acted = tenant.map(|tenant| asked.act_for(tenant));
        Ok(acted.map_err(Into::into))
    }

    fn lookup(&mut self) -> Result<Result<Option<Resource<Entry>>, cache::Error>> {
        Ok(self.key()?.map_err(cache::Error::from).and_then(|key| {
            let found = self.reflex.find(&self.reflex.key(&key));
            self.reflex().open(found)
        }))
    }
}
