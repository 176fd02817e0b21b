//! The integration tests, one binary: everything here runs against the real `reflex-edge`, from
//! the outside. Logic without a process around it is tested beside its code.

mod apis;
mod batches;
mod browser;
mod cases;
mod cassettes;
mod coalescing;
mod control;
mod explain;
mod explained;
mod flow;
mod meaning;
mod memory;
mod not_stored;
mod own_errors;
mod passing;
mod provider;
mod renewal;
mod same_head;
mod websocket;

mod admin;
mod backpressure;
mod connections;
mod tls;
mod upstreams;

mod config;
mod daemon;
mod encryption;
mod fleet;
mod guest;
mod handover;
mod hostile;
mod inherited;
mod limits;
mod logs;
mod native;
mod otlp;
mod refusals;
mod samples;
mod savings;
mod shadow;
mod soak;
mod stale;
mod stated;
mod store_cli;

mod cold;
mod compose;
mod edge_api;
mod embedding;
mod one_cache;
mod transparent;
mod wasi02;

mod envoy;
mod envoy_native;

mod demo;
mod deploy;
mod envoy_check;
mod envoy_deploy;
mod sdk;
mod sdk_js;

mod page;

mod smuggling;
mod threats;

mod imports;
mod metrics;
mod proxy_wasm;
mod reasons;
mod same_keys;
mod tidy;
mod vectors;
