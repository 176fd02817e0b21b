//! The functions that Envoy offers, and the types of their arguments.

use std::ffi::{CStr, c_char, c_void};
use std::{mem, ptr, slice};

/// Bytes of Envoy's or of ours, by value: `envoy_dynamic_module_type_envoy_buffer` and
/// `…_module_buffer`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffer {
    start: *const u8,
    bytes: usize,
}

impl Buffer {
    pub(super) const NULL: Self = Self {
        start: ptr::null(),
        bytes: 0,
    };

    pub(super) fn of(bytes: &[u8]) -> Self {
        Self {
            start: bytes.as_ptr(),
            bytes: bytes.len(),
        }
    }

    /// # Safety
    ///
    /// It is from Envoy, or [`NULL`](Self::NULL), and what it points to stays as it is for `'a`.
    pub(super) unsafe fn bytes<'a>(&self) -> &'a [u8] {
        match self.start.is_null() || self.bytes == 0 {
            true => &[],
            // SAFETY: by the contract of this function.
            false => unsafe { slice::from_raw_parts(self.start, self.bytes) },
        }
    }
}

/// A header of Envoy's: `envoy_dynamic_module_type_envoy_http_header`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct EnvoyHeader {
    pub(super) name: Buffer,
    pub(super) value: Buffer,
}

impl EnvoyHeader {
    pub(super) const EMPTY: Self = Self {
        name: Buffer::NULL,
        value: Buffer::NULL,
    };
}

/// A header of ours: `envoy_dynamic_module_type_module_http_header`, which has the same fields.
pub(super) type Header = EnvoyHeader;

/// Defines a metric, and writes its number.
pub(super) type Define = unsafe extern "C" fn(
    config: *mut c_void,
    name: Buffer,
    labels: *mut Buffer,
    labels_count: usize,
    id: *mut usize,
) -> u32;

/// Changes a metric.
pub(super) type Change = unsafe extern "C" fn(
    config: *mut c_void,
    id: usize,
    labels: *mut Buffer,
    labels_count: usize,
    value: u64,
) -> u32;

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        /// The functions of this Envoy, without the beginning of their names.
        ///
        /// All with `filter` or `config` are for the hook that was given it, on its thread; those
        /// with a `scheduler` and `log` are for any thread.
        #[derive(Debug)]
        pub(super) struct Calls {
            $($(#[$doc])* pub(super) $name: $type,)*
        }

        impl Calls {
            /// # Errors
            ///
            /// The name of a function that this Envoy lacks.
            pub(super) fn find() -> Result<Self, &'static str> {
                Ok(Self {
                    $($name: {
                        let name = concat!(
                            "envoy_dynamic_module_callback_",
                            stringify!($name),
                            "\0"
                        );
                        let found = symbol(name).ok_or(stringify!($name))?;
                        // SAFETY: the function has this signature in Envoy's header of the
                        // versions that `version` lets in (`abi.h`), and a pointer to a function is
                        // as large as one to data on all of Envoy's platforms.
                        unsafe { mem::transmute::<*mut c_void, $type>(found) }
                    },)*
                })
            }
        }
    };
}

calls! {
    /// Whether the server only validates its configuration.
    is_validation_mode: unsafe extern "C" fn() -> bool;
    /// Logs a line, which Envoy copies.
    log: unsafe extern "C" fn(level: u32, line: Buffer);

    /// The number of headers in a map; 0 where there is no such map.
    http_get_headers_size: unsafe extern "C" fn(filter: *mut c_void, map: u32) -> usize;
    /// Writes as many headers; they stay until the hook ends or a header is set.
    http_get_headers: unsafe extern "C" fn(
        filter: *mut c_void, map: u32, found: *mut EnvoyHeader,
    ) -> bool;
    /// Replaces all headers of a name, or removes them if the value is null.
    http_set_header: unsafe extern "C" fn(
        filter: *mut c_void, map: u32, name: Buffer, value: Buffer,
    ) -> bool;

    /// The bytes of a body; 0 where there is none.
    http_get_body_size: unsafe extern "C" fn(filter: *mut c_void, body: u32) -> usize;
    /// The number of its pieces.
    http_get_body_chunks_size: unsafe extern "C" fn(filter: *mut c_void, body: u32) -> usize;
    /// Writes as many pieces; they stay until the hook ends.
    http_get_body_chunks: unsafe extern "C" fn(
        filter: *mut c_void, body: u32, found: *mut Buffer,
    ) -> bool;
    /// Whether the received body of a request is the buffered one.
    http_received_buffered_request_body: unsafe extern "C" fn(filter: *mut c_void) -> bool;
    /// How much of a body is held at most.
    http_get_buffer_limit: unsafe extern "C" fn(filter: *mut c_void) -> u64;
    /// Sets that.
    http_set_buffer_limit: unsafe extern "C" fn(filter: *mut c_void, bytes: u64);

    /// Writes the name of the cluster that the request is routed to.
    http_get_cluster_name: unsafe extern "C" fn(filter: *mut c_void, found: *mut Buffer) -> bool;
    /// Writes a text; an unknown number is false.
    http_filter_get_attribute_string: unsafe extern "C" fn(
        filter: *mut c_void, attribute: u32, found: *mut Buffer,
    ) -> bool;
    /// Writes a number.
    http_filter_get_attribute_int: unsafe extern "C" fn(
        filter: *mut c_void, attribute: u32, found: *mut u64,
    ) -> bool;

    /// Answers the request; copies everything. Runs other hooks before it returns.
    http_send_response: unsafe extern "C" fn(
        filter: *mut c_void,
        status: u32,
        headers: *mut Header,
        headers_count: usize,
        body: Buffer,
        details: Buffer,
    );
    /// Goes on with a stopped request. Runs other hooks before it returns.
    http_filter_continue_decoding: unsafe extern "C" fn(filter: *mut c_void);

    /// A scheduler, to be deleted by its owner.
    http_filter_scheduler_new: unsafe extern "C" fn(filter: *mut c_void) -> *mut c_void;
    /// Has `scheduled` called, unless the request has ended.
    http_filter_scheduler_commit: unsafe extern "C" fn(scheduler: *mut c_void, event: u64);
    /// Deletes it.
    http_filter_scheduler_delete: unsafe extern "C" fn(scheduler: *mut c_void);

    /// Defines a counter.
    http_filter_config_define_counter: Define;
    /// Defines a gauge.
    http_filter_config_define_gauge: Define;
    /// Adds to a counter.
    http_filter_config_increment_counter: Change;
    /// Sets a gauge.
    http_filter_config_set_gauge: Change;
    /// A scheduler, to be deleted by its owner.
    http_filter_config_scheduler_new: unsafe extern "C" fn(config: *mut c_void) -> *mut c_void;
    /// Has `config_scheduled` called, unless the configuration is gone.
    http_filter_config_scheduler_commit: unsafe extern "C" fn(scheduler: *mut c_void, event: u64);
    /// Deletes it.
    http_filter_config_scheduler_delete: unsafe extern "C" fn(scheduler: *mut c_void);
}

unsafe extern "C" {
    /// POSIX: the address of a symbol of the program or of what it has loaded.
    safe fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// Where the program has this symbol; the name ends in 0.
fn symbol(name: &'static str) -> Option<*mut c_void> {
    let name = CStr::from_bytes_with_nul(name.as_bytes()).ok()?;
    // Null is the program itself and all that it has loaded for everybody: RTLD_DEFAULT.
    let found = dlsym(ptr::null_mut(), name.as_ptr());
    (!found.is_null()).then_some(found)
}
