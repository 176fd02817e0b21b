//! The functions that Envoy calls. Each turns Envoy's pointers into values of ours and goes on in
//! safe code, inside [`panics`]: no panic reaches Envoy, which would end.
//!
//! Envoy calls the hooks of one request on one thread, one after the other, with one exception:
//! within [`Envoy::answer`] and [`Envoy::go_on`] it may call further hooks of the same request, its
//! end included. So no hook holds a borrow of a stream during these two, and each holds a reference
//! of its own to the stream.

use super::calls::Buffer;
use super::{Envoy, EnvoyConfig, Level, NO_STREAM, VERSION, find_calls, log};
use crate::panics::{self, Hook, caught};
use crate::plugin::Plugin;
use crate::stream::{After, Body, Head, Shared, Stream};
use std::ffi::{c_char, c_void};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

/// # Safety
///
/// `stream` is from [`filter_new`], and [`filter_destroy`] was not called for it.
unsafe fn shared(stream: *const c_void) -> Option<Rc<Shared>> {
    if stream == NO_STREAM {
        return None;
    }
    let stream = stream.cast::<Shared>();
    // SAFETY: by the contract of this function it is from `Rc::into_raw`, and Envoy's reference is
    // still there. Envoy calls this on the thread that made it.
    unsafe {
        Rc::increment_strong_count(stream);
        Some(Rc::from_raw(stream))
    }
}

/// Runs a hook of a stream, then what it has decided, for which the stream is not borrowed.
///
/// # Safety
///
/// As of [`Envoy::new`] and [`shared`].
unsafe fn run<T>(
    hook: Hook,
    filter: *mut c_void,
    stream: *const c_void,
    otherwise: T,
    what: impl FnOnce(&mut Stream, &mut Envoy<'_>) -> (T, After),
) -> T {
    // SAFETY: by the contract of this function.
    let (envoy, shared) = unsafe { (Envoy::new(filter), shared(stream)) };
    match shared {
        Some(shared) => run_in(hook, &shared, envoy, otherwise, what),
        None => otherwise,
    }
}

/// Runs a hook of a stream, and then, without a borrow of the stream, what it has decided. The
/// alternative is for a panic: the request goes on.
fn run_in<T>(
    hook: Hook,
    shared: &Shared,
    mut envoy: Envoy<'_>,
    otherwise: T,
    what: impl FnOnce(&mut Stream, &mut Envoy<'_>) -> (T, After),
) -> T {
    let decided = caught(hook, || {
        panics::plant(hook, shared.planted());
        // Envoy calls a hook within a hook only where no stream is borrowed.
        let mut stream = shared.stream.try_borrow_mut().ok()?;
        Some(what(&mut stream, &mut envoy))
    });
    let Some(decided) = decided else {
        caught(hook, || shared.gives_up());
        // In a hook of the request, Envoy goes on because of what is returned.
        let was_held = shared.is_held.replace(false);
        if hook == Hook::Scheduled && was_held {
            envoy.go_on();
        }
        return otherwise;
    };
    let Some((status, after)) = decided else {
        return otherwise;
    };
    match after {
        After::Nothing if hook.is_of_request() => shared.is_held.set(false),
        After::Nothing => {}
        After::Hold => shared.is_held.set(true),
        After::GoOn => {
            shared.is_held.set(false);
            envoy.go_on();
        }
        After::Answer(reply) => {
            shared.is_held.set(false);
            // What is sent was checked when it was found, so this does not panic before Envoy has
            // it.
            caught(hook, || reply.send(envoy));
        }
    }
    status
}

/// Envoy loads the module. Null refuses it.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    let found = caught(Hook::ProgramInit, || {
        panics::log_panics();
        find_calls()
    });
    match found {
        Some(Ok(())) => VERSION.as_ptr(),
        Some(Err(lacking)) => {
            // Without its functions there is no log but this, where Envoy's own goes, too.
            eprintln!("reflex: this Envoy lacks the function {lacking}, so it is not 1.40");
            ptr::null()
        }
        None => ptr::null(),
    }
}

/// A configuration. Null refuses it.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    config: *mut c_void,
    _name: Buffer,
    text: Buffer,
) -> *const c_void {
    // SAFETY: Envoy gives a valid configuration and text for the time of this call.
    let (mut envoy, text) = unsafe { (EnvoyConfig::new(config), text.bytes()) };
    let made = caught(Hook::ConfigNew, || Plugin::new(&mut envoy, text));
    match made {
        Some(Ok(plugin)) => Arc::into_raw(plugin).cast(),
        Some(Err(why)) => {
            log(Level::Critical, &format!("reflex: configuration: {why}"));
            ptr::null()
        }
        None => ptr::null(),
    }
}

/// A configuration is used no longer.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(plugin: *const c_void) {
    caught(Hook::ConfigDestroy, || {
        // SAFETY: it is from `config_new`, and Envoy gives it back once.
        let plugin = unsafe { Arc::from_raw(plugin.cast::<Plugin>()) };
        plugin.ends();
    });
}

/// What [`super::ConfigScheduler::call`] has asked for.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_scheduled(
    config: *mut c_void,
    plugin: *const c_void,
    _event: u64,
) {
    caught(Hook::ConfigScheduled, || {
        // SAFETY: Envoy gives a valid configuration, and the plugin that `config_new` made for it.
        let (mut envoy, plugin) = unsafe { (EnvoyConfig::new(config), &*plugin.cast::<Plugin>()) };
        plugin.hand_over(&mut envoy);
    });
}

/// A request begins. Null would end its connection, so there is a stream in any case.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_new(
    plugin: *const c_void,
    _filter: *mut c_void,
) -> *const c_void {
    let plugin = plugin.cast::<Plugin>();
    let made = caught(Hook::New, || {
        // SAFETY: it is from `config_new`, and Envoy keeps it as long as a request has it.
        let plugin = unsafe {
            Arc::increment_strong_count(plugin);
            Arc::from_raw(plugin)
        };
        panics::plant_next();
        Rc::into_raw(Rc::new(Shared::new(plugin))).cast()
    });
    made.unwrap_or(NO_STREAM)
}

/// The head of a request.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    filter: *mut c_void,
    stream: *const c_void,
    end: bool,
) -> u32 {
    let hook = Hook::RequestHeaders;
    // SAFETY: Envoy gives the pointers of one request.
    let status = unsafe {
        run(hook, filter, stream, Head::Continue, |stream, envoy| {
            stream.request_headers(envoy, end)
        })
    };
    status as u32
}

/// A part of a request's body.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_request_body(
    filter: *mut c_void,
    stream: *const c_void,
    end: bool,
) -> u32 {
    let hook = Hook::RequestBody;
    // SAFETY: Envoy gives the pointers of one request.
    let status = unsafe {
        run(hook, filter, stream, Body::Continue, |stream, envoy| {
            stream.request_body(envoy, end)
        })
    };
    status as u32
}

/// The trailers of a request.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_request_trailers(
    filter: *mut c_void,
    stream: *const c_void,
) -> u32 {
    let hook = Hook::RequestTrailers;
    // SAFETY: Envoy gives the pointers of one request.
    let status = unsafe {
        run(hook, filter, stream, Head::Continue, |stream, envoy| {
            stream.request_trailers(envoy)
        })
    };
    status as u32
}

/// The head of an answer.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_response_headers(
    filter: *mut c_void,
    stream: *const c_void,
    end: bool,
) -> u32 {
    let hook = Hook::ResponseHeaders;
    // SAFETY: Envoy gives the pointers of one request.
    unsafe {
        run(hook, filter, stream, (), |stream, envoy| {
            stream.response_headers(envoy, end);
            ((), After::Nothing)
        });
    }
    Head::Continue as u32
}

/// A part of an answer's body.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_response_body(
    filter: *mut c_void,
    stream: *const c_void,
    end: bool,
) -> u32 {
    let hook = Hook::ResponseBody;
    // SAFETY: Envoy gives the pointers of one request.
    unsafe {
        run(hook, filter, stream, (), |stream, envoy| {
            stream.response_body(envoy, end);
            ((), After::Nothing)
        });
    }
    Body::Continue as u32
}

/// The trailers of an answer.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_response_trailers(
    filter: *mut c_void,
    stream: *const c_void,
) -> u32 {
    let hook = Hook::ResponseTrailers;
    // SAFETY: Envoy gives the pointers of one request.
    unsafe {
        run(hook, filter, stream, (), |stream, envoy| {
            stream.response_ends(envoy);
            ((), After::Nothing)
        });
    }
    Head::Continue as u32
}

/// What a stream's scheduler has asked for.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_scheduled(
    filter: *mut c_void,
    stream: *const c_void,
    _event: u64,
) {
    let hook = Hook::Scheduled;
    // SAFETY: Envoy gives the pointers of one request.
    unsafe {
        run(hook, filter, stream, (), |stream, envoy| {
            ((), stream.scheduled(envoy))
        });
    }
}

/// A request and its answer are at their end, or the client has gone.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_stream_complete(
    filter: *mut c_void,
    stream: *const c_void,
) {
    let hook = Hook::StreamComplete;
    // SAFETY: Envoy gives the pointers of one request.
    unsafe {
        run(hook, filter, stream, (), |stream, envoy| {
            stream.complete(envoy);
            ((), After::Nothing)
        });
    }
}

/// Envoy lets go of a stream.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_destroy(stream: *const c_void) {
    if stream == NO_STREAM {
        return;
    }
    // SAFETY: it is from `filter_new`, and Envoy gives it back once, on the same thread. A hook that
    // is still running has a reference of its own.
    let stream = unsafe { Rc::from_raw(stream.cast::<Shared>()) };
    caught(Hook::Destroy, || {
        panics::plant(Hook::Destroy, stream.planted());
        stream.destroyed();
        drop(stream);
    });
}

/// Hooks that Envoy wants to find, and that have nothing to do here: the module makes no calls of
/// Envoy's, and it is not at the end of a chain.
macro_rules! unused {
    ($($name:ident($($argument:ty),*);)*) => {
        $(#[unsafe(no_mangle)]
        extern "C" fn $name($(_: $argument),*) {})*
    };
}

unused! {
    envoy_dynamic_module_on_http_filter_http_callout_done(
        *mut c_void, *const c_void, u64, u32, *const c_void, usize, *const c_void, usize);
    envoy_dynamic_module_on_http_filter_http_stream_headers(
        *mut c_void, *const c_void, u64, *const c_void, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_data(
        *mut c_void, *const c_void, u64, *const c_void, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_trailers(
        *mut c_void, *const c_void, u64, *const c_void, usize);
    envoy_dynamic_module_on_http_filter_http_stream_complete(*mut c_void, *const c_void, u64);
    envoy_dynamic_module_on_http_filter_http_stream_reset(*mut c_void, *const c_void, u64, u32);
    envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(
        *mut c_void, *const c_void);
    envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(
        *mut c_void, *const c_void);
}
