//! Envoy's interface for dynamic modules, as Envoy 1.40 has it: the module's only unsafe code.
//!
//! Envoy calls the functions named `envoy_dynamic_module_on_…` ([`hooks`]), and offers functions
//! named `envoy_dynamic_module_callback_…`. Those are looked up when the module is loaded and not
//! linked: an Envoy that lacks one would otherwise end at the first call of it.
//!
//! Nothing of Envoy's is kept beyond a hook, except schedulers, which are made for that.

#![allow(
    unsafe_code,
    reason = "Envoy's interface is one of C; everything above this module is safe"
)]

mod calls;
mod hooks;

use calls::{Buffer, Calls, EnvoyHeader, Header};
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Wake;

/// The functions of this Envoy.
static CALLS: OnceLock<Calls> = OnceLock::new();

/// The functions of this Envoy, which were found when the module was loaded.
fn calls() -> &'static Calls {
    // Without them the module was not loaded, and no hook of it is called.
    CALLS.get().expect("Envoy's functions")
}

/// Whether Envoy only checks its configuration. For the main thread.
pub(crate) fn is_validation_mode() -> bool {
    // SAFETY: it takes nothing and has no state but the server's mode.
    unsafe { (calls().is_validation_mode)() }
}

/// How urgent a line of the log is, as Envoy numbers it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Level {
    Warn = 3,
    Error = 4,
    Critical = 5,
}

/// Writes a line to Envoy's log; from any thread.
pub(crate) fn log(level: Level, line: &str) {
    let Some(calls) = CALLS.get() else { return };
    // SAFETY: Envoy copies the line before it returns; its log takes lines from any thread.
    unsafe { (calls.log)(level as u32, Buffer::of(line.as_bytes())) }
}

/// The map of headers that is meant, as Envoy numbers it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Map {
    Request = 0,
    RequestTrailers = 1,
    Response = 2,
}

/// The body that is meant, as Envoy numbers it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body {
    /// What has just come; only in the hook for it.
    ReceivedRequest = 0,
    /// What came before and is held.
    BufferedRequest = 1,
    /// What has just come; only in the hook for it.
    ReceivedResponse = 2,
}

/// Texts that Envoy knows of a request, as Envoy numbers them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Text {
    Protocol = 10,
    ResponseCodeDetails = 16,
    RouteName = 61,
    VirtualHostName = 63,
    FilterChainName = 66,
}

/// Numbers that Envoy knows of a request, as Envoy numbers them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    ResponseFlags = 17,
    DestinationPort = 27,
    ConnectionId = 28,
}

/// The request that Envoy is calling for. Nothing that it returns outlives the hook, or the next
/// change.
#[derive(Debug)]
pub(crate) struct Envoy<'hook> {
    filter: *mut c_void,
    hook: PhantomData<&'hook ()>,
}

impl Envoy<'_> {
    /// # Safety
    ///
    /// `filter` is the pointer that Envoy gave to the hook that runs now, on this thread, and
    /// `'hook` ends with the hook.
    unsafe fn new(filter: *mut c_void) -> Self {
        Self {
            filter,
            hook: PhantomData,
        }
    }

    /// Names in lower case, and values; empty where Envoy has no such map.
    pub(crate) fn headers(&self, map: Map) -> Vec<(&[u8], &[u8])> {
        // SAFETY: `filter` is alive during the hook (`new`). Envoy writes as many headers as it has
        // said, and what they point to stays until the hook ends or a header is set, for which
        // `self` must not be borrowed.
        unsafe {
            let count = (calls().http_get_headers_size)(self.filter, map as u32);
            let mut found = vec![EnvoyHeader::EMPTY; count];
            if count == 0
                || !(calls().http_get_headers)(self.filter, map as u32, found.as_mut_ptr())
            {
                return Vec::new();
            }
            found
                .iter()
                .map(|it| (it.name.bytes(), it.value.bytes()))
                .collect()
        }
    }

    /// How many headers a map has.
    pub(crate) fn headers_count(&self, map: Map) -> usize {
        // SAFETY: `filter` is alive during the hook (`new`).
        unsafe { (calls().http_get_headers_size)(self.filter, map as u32) }
    }

    /// Replaces all headers of that name by this one, or removes them.
    pub(crate) fn set_header(&mut self, map: Map, name: &str, value: Option<&[u8]>) {
        let value = value.map_or(Buffer::NULL, Buffer::of);
        // SAFETY: `filter` is alive during the hook (`new`), and Envoy copies both.
        unsafe {
            (calls().http_set_header)(self.filter, map as u32, Buffer::of(name.as_bytes()), value);
        }
    }

    /// Whether what has just come is what was held before: a filter in front has held it.
    pub(crate) fn received_is_buffered(&self) -> bool {
        // SAFETY: `filter` is alive during the hook (`new`).
        unsafe { (calls().http_received_buffered_request_body)(self.filter) }
    }

    /// The length of a body in bytes.
    pub(crate) fn body_bytes(&self, body: Body) -> usize {
        // SAFETY: `filter` is alive during the hook (`new`).
        unsafe { (calls().http_get_body_size)(self.filter, body as u32) }
    }

    /// The pieces of a body, in order; empty where Envoy has none.
    pub(crate) fn body(&self, body: Body) -> Vec<&[u8]> {
        // SAFETY: `filter` is alive during the hook (`new`). Envoy writes as many pieces as it has
        // said. They stay as they are until the hook ends: the module changes no body.
        unsafe {
            let count = (calls().http_get_body_chunks_size)(self.filter, body as u32);
            let mut pieces = vec![Buffer::NULL; count];
            if count == 0
                || !(calls().http_get_body_chunks)(self.filter, body as u32, pieces.as_mut_ptr())
            {
                return Vec::new();
            }
            pieces.iter().map(|it| it.bytes()).collect()
        }
    }

    /// The cluster of the route that Envoy has chosen.
    pub(crate) fn cluster(&self) -> Option<&[u8]> {
        let mut found = Buffer::NULL;
        // SAFETY: `filter` is alive during the hook (`new`); the name is the cluster's, which the
        // request holds.
        unsafe { (calls().http_get_cluster_name)(self.filter, &mut found).then(|| found.bytes()) }
    }

    /// A text; none where Envoy has none.
    pub(crate) fn text(&self, text: Text) -> Option<&[u8]> {
        let mut found = Buffer::NULL;
        // SAFETY: `filter` is alive during the hook (`new`), and what Envoy returns is the stream's,
        // which lives as long.
        unsafe {
            (calls().http_filter_get_attribute_string)(self.filter, text as u32, &mut found)
                .then(|| found.bytes())
        }
    }

    /// A number; none where Envoy has none.
    pub(crate) fn number(&self, number: Number) -> Option<u64> {
        let mut found = 0;
        // SAFETY: `filter` is alive during the hook (`new`).
        unsafe {
            (calls().http_filter_get_attribute_int)(self.filter, number as u32, &mut found)
                .then_some(found)
        }
    }

    /// How many bytes of a body Envoy holds, before it answers 413.
    pub(crate) fn buffer_limit(&self) -> u64 {
        // SAFETY: `filter` is alive during the hook (`new`).
        unsafe { (calls().http_get_buffer_limit)(self.filter) }
    }

    /// Sets it for this request.
    pub(crate) fn set_buffer_limit(&mut self, bytes: u64) {
        // SAFETY: `filter` is alive during the hook (`new`).
        unsafe { (calls().http_set_buffer_limit)(self.filter, bytes) }
    }

    /// What calls [`hooks`] for this request again, on its worker, from any thread.
    pub(crate) fn scheduler(&self) -> Arc<Scheduler> {
        // SAFETY: `filter` is alive during the hook (`new`). What Envoy returns is ours to delete.
        let scheduler = unsafe { (calls().http_filter_scheduler_new)(self.filter) };
        Arc::new(Scheduler(Mutex::new(Some(Handle(scheduler)))))
    }

    /// Answers the client. Envoy may end the request meanwhile, hooks included: no borrow of a
    /// stream may be held, and this handle is used up.
    pub(crate) fn answer(self, status: u16, headers: &[(&[u8], &[u8])], body: &[u8]) {
        let mut headers: Vec<Header> = headers
            .iter()
            .map(|(name, value)| Header {
                name: Buffer::of(name),
                value: Buffer::of(value),
            })
            .collect();
        // SAFETY: `filter` is alive (`new`), and Envoy copies headers, body and details before it
        // returns.
        unsafe {
            (calls().http_send_response)(
                self.filter,
                status.into(),
                headers.as_mut_ptr(),
                headers.len(),
                Buffer::of(body),
                Buffer::of(b"reflex"),
            );
        }
    }

    /// Lets a request go on that a hook has stopped. As of [`answer`](Self::answer).
    pub(crate) fn go_on(self) {
        // SAFETY: `filter` is alive during the hook (`new`).
        unsafe { (calls().http_filter_continue_decoding)(self.filter) }
    }
}

/// A pointer of Envoy's that any thread may use.
#[derive(Debug)]
struct Handle(*mut c_void);

// SAFETY: Envoy's schedulers are made for other threads: a commit only posts to the dispatcher of
// the thread that they belong to, and a deletion only releases a weak reference.
unsafe impl Send for Handle {}

/// Has Envoy call `scheduled` for one request, on its worker. Does nothing once the request has
/// ended: the worker may have ended by then as well.
#[derive(Debug)]
pub(crate) struct Scheduler(Mutex<Option<Handle>>);

impl Scheduler {
    /// The request ends.
    pub(crate) fn end(&self) {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Handle(scheduler)) = taken {
            // SAFETY: it is from `http_filter_scheduler_new` and was taken out, so nobody uses it.
            unsafe { (calls().http_filter_scheduler_delete)(scheduler) }
        }
    }
}

impl Wake for Scheduler {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Handle(scheduler)) = &*held {
            // SAFETY: it is not deleted while the lock is held, and the worker lives as long as the
            // request, whose end takes the lock.
            unsafe { (calls().http_filter_scheduler_commit)(*scheduler, 0) }
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.end();
    }
}

/// The configuration that Envoy is calling for, on its main thread.
#[derive(Debug)]
pub(crate) struct EnvoyConfig<'hook> {
    config: *mut c_void,
    hook: PhantomData<&'hook ()>,
}

/// A counter or a gauge of Envoy's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric(usize);

impl EnvoyConfig<'_> {
    /// # Safety
    ///
    /// As of [`Envoy::new`], with a configuration's pointer.
    unsafe fn new(config: *mut c_void) -> Self {
        Self {
            config,
            hook: PhantomData,
        }
    }

    /// Defines a counter with these labels; none if Envoy refuses it. Only while a configuration is
    /// made.
    pub(crate) fn define_counter(&mut self, name: &str, labels: &[&str]) -> Option<Metric> {
        let define = calls().http_filter_config_define_counter;
        self.define(define, name, labels)
    }

    /// The same for a gauge.
    pub(crate) fn define_gauge(&mut self, name: &str, labels: &[&str]) -> Option<Metric> {
        let define = calls().http_filter_config_define_gauge;
        self.define(define, name, labels)
    }

    fn define(&mut self, define: calls::Define, name: &str, labels: &[&str]) -> Option<Metric> {
        let mut labels = buffers(labels);
        let name = Buffer::of(name.as_bytes());
        let mut id = 0;
        // SAFETY: `config` is alive during the hook (`new`), and Envoy copies all texts.
        let result = unsafe {
            define(
                self.config,
                name,
                labels.as_mut_ptr(),
                labels.len(),
                &mut id,
            )
        };
        (result == 0).then_some(Metric(id))
    }

    /// Adds to a counter. The values are those of its labels, in their order.
    pub(crate) fn add(&mut self, counter: Metric, labels: &[&str], more: u64) {
        let add = calls().http_filter_config_increment_counter;
        self.change(add, counter, labels, more);
    }

    /// Sets a gauge.
    pub(crate) fn set(&mut self, gauge: Metric, labels: &[&str], value: u64) {
        let set = calls().http_filter_config_set_gauge;
        self.change(set, gauge, labels, value);
    }

    fn change(&mut self, change: calls::Change, metric: Metric, labels: &[&str], value: u64) {
        let mut labels = buffers(labels);
        // SAFETY: `config` is alive during the hook (`new`), and Envoy copies all texts.
        let _refused = unsafe {
            change(
                self.config,
                metric.0,
                labels.as_mut_ptr(),
                labels.len(),
                value,
            )
        };
    }

    /// What has Envoy call `config_scheduled` on its main thread, from any thread.
    pub(crate) fn scheduler(&self) -> ConfigScheduler {
        // SAFETY: `config` is alive during the hook (`new`). What Envoy returns is ours to delete.
        let scheduler = unsafe { (calls().http_filter_config_scheduler_new)(self.config) };
        ConfigScheduler(Mutex::new(Some(Handle(scheduler))))
    }
}

fn buffers(texts: &[&str]) -> Vec<Buffer> {
    texts
        .iter()
        .map(|text| Buffer::of(text.as_bytes()))
        .collect()
}

/// Has Envoy call `config_scheduled`, until the configuration is destroyed.
#[derive(Debug)]
pub(crate) struct ConfigScheduler(Mutex<Option<Handle>>);

impl ConfigScheduler {
    /// Asks for the call.
    pub(crate) fn call(&self) {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Handle(scheduler)) = &*held {
            // SAFETY: it is not deleted while the lock is held, and the main thread's dispatcher
            // lives as long as configurations do.
            unsafe { (calls().http_filter_config_scheduler_commit)(*scheduler, 0) }
        }
    }

    /// The configuration is destroyed.
    pub(crate) fn end(&self) {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Handle(scheduler)) = taken {
            // SAFETY: it is from `http_filter_config_scheduler_new` and was taken out.
            unsafe { (calls().http_filter_config_scheduler_delete)(scheduler) }
        }
    }
}

impl Drop for ConfigScheduler {
    fn drop(&mut self) {
        self.end();
    }
}

/// Finds Envoy's functions; the name of one that this Envoy lacks.
fn find_calls() -> Result<(), &'static str> {
    let found = Calls::find()?;
    // A module is loaded once; a second time would find the same.
    let _ = CALLS.set(found);
    Ok(())
}

/// What Envoy compares with its own version of the interface: another one only warns.
const VERSION: &std::ffi::CStr = c"v0.2.0";

/// The module's part of a filter whose stream could not be made.
const NO_STREAM: *const c_void = ptr::without_provenance(1);
