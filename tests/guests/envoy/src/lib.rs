//! The Envoy filter with a switch: the header `x-test-panic` makes it panic, at the stage that its
//! value names; without it, it behaves.

// Native linkers find no Envoy to link with.
#![cfg(target_arch = "wasm32")]

use proxy_wasm::hostcalls::get_map_value;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, MapType};
use reflex_envoy::filter::{Http, Root};

/// What Envoy calls first.
mod module {
    proxy_wasm::main! {{
        proxy_wasm::set_root_context(|id| Box::new(super::Switched(super::Root::new(id))));
    }}
}

struct Switched(Root);

impl Context for Switched {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body: usize, trailers: usize) {
        self.0.on_http_call_response(token, headers, body, trailers);
    }
}

impl RootContext for Switched {
    fn on_configure(&mut self, size: usize) -> bool {
        self.0.on_configure(size)
    }

    fn on_queue_ready(&mut self, queue: u32) {
        self.0.on_queue_ready(queue);
    }

    fn on_tick(&mut self) {
        self.0.on_tick();
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Panicking {
            inner: self.0.http(id),
            at: String::new(),
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Panicking {
    inner: Http,
    at: String,
}

impl Panicking {
    fn check(&self, stage: &str) {
        assert!(self.at != stage, "told to");
    }
}

impl Context for Panicking {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body: usize, trailers: usize) {
        self.check("reply");
        self.inner
            .on_http_call_response(token, headers, body, trailers);
    }
}

impl HttpContext for Panicking {
    fn on_http_request_headers(&mut self, count: usize, end: bool) -> Action {
        let at = get_map_value(MapType::HttpRequestHeaders, "x-test-panic");
        self.at = at.ok().flatten().unwrap_or_default();
        self.check("headers");
        self.inner.on_http_request_headers(count, end)
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        self.check("body");
        self.inner.on_http_request_body(size, end)
    }

    fn on_http_request_trailers(&mut self, count: usize) -> Action {
        self.inner.on_http_request_trailers(count)
    }

    fn on_http_response_headers(&mut self, count: usize, end: bool) -> Action {
        self.check("response");
        self.inner.on_http_response_headers(count, end)
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        self.inner.on_http_response_body(size, end)
    }

    fn on_http_response_trailers(&mut self, count: usize) -> Action {
        self.inner.on_http_response_trailers(count)
    }

    fn on_log(&mut self) {
        self.inner.on_log();
    }
}
