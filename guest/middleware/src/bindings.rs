//! The bindings that `wit-bindgen` generates from our WIT, with `unsafe` of their own and no docs.
#![allow(
    clippy::all,
    missing_docs,
    unsafe_code,
    unreachable_pub,
    reason = "generated code: which of these it breaks depends on the features"
)]

#[cfg(all(feature = "component", target_arch = "wasm32"))]
use super::Middleware;

wit_bindgen::generate!({
    path: "../../wit",
    world: "reflex:cache/middleware",
    generate_all,
    pub_export_macro: true,
});

// Native linkers take no symbol of such a name.
#[cfg(all(feature = "component", target_arch = "wasm32"))]
export!(Middleware with_types_in self);
