//! The bindings that `bindgen!` generates from our WIT. Nothing is written by hand here.

/// `reflex:cache/cache`.
#[expect(missing_docs, reason = "generated code")]
mod cache_world {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "reflex:cache/guest",
        with: { "reflex:cache/cache.entry": crate::cache::Entry },
        imports: { default: trappable },
    });
}

/// `reflex:cache/request`, and the exports of a policy component.
mod policy_world {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "reflex:cache/policy",
        with: {
            "reflex:cache/cache": super::cache_world::reflex::cache::cache,
        },
        imports: { default: trappable },
    });
}

/// `wasi:keyvalue/store`.
mod keyvalue_world {
    wasmtime::component::bindgen!({
        inline: "
            package reflex:host;

            world keyvalue {
                import wasi:keyvalue/store@0.2.0-draft;
            }
        ",
        path: "wit",
        world: "reflex:host/keyvalue",
        with: { "wasi:keyvalue/store.bucket": crate::component::wit::keyvalue::Bucket },
        imports: { default: trappable },
    });
}

/// `reflex:cache/http` and the import of the next `wasi:http` handler.
#[cfg(feature = "http")]
#[expect(missing_docs, reason = "generated code")]
mod http_world {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "reflex:cache/middleware",
        with: {
            "reflex:cache/http.fill": crate::exchange::fills::Lead,
            "reflex:cache/embeddings.batch": crate::exchange::reply::batch::Batch,
            "reflex:cache/cache": super::cache_world::reflex::cache::cache,
            "wasi:http/types": wasmtime_wasi_http::p3::bindings::http::types,
            "wasi:clocks/types": wasmtime_wasi::p3::bindings::clocks::types,
        },
        imports: {
            "reflex:cache/http.lookup-fresh": async | trappable,
            "reflex:cache/http.lookup-stale": async | trappable,
            "reflex:cache/http.peek": store | trappable,
            "reflex:cache/http.join": store | trappable,
            "reflex:cache/http.record-response": store | trappable,
            "reflex:cache/embeddings.[method]batch.find": async | trappable,
            "reflex:cache/embeddings.[method]batch.find-stale": async | trappable,
            "reflex:cache/embeddings.complete-batch": store | trappable,
            "reflex:cache/embeddings.record-batch": store | trappable,
            "wasi:http/handler.handle": store | trappable,
            default: trappable,
        },
        exports: { default: async | store },
    });
}

pub use cache_world::reflex::cache::cache;
#[cfg(feature = "http")]
pub use http_world::reflex::cache::{embeddings, http};
#[cfg(feature = "http")]
pub(crate) use http_world::wasi::http::handler;
pub(crate) use keyvalue_world::wasi::keyvalue::store as keyvalue;
pub(crate) use policy_world::exports::reflex::cache::decider;
pub(crate) use policy_world::reflex::cache::request;
pub(crate) use policy_world::{Policy as PolicyInstance, PolicyPre};
