//! The middleware in front of a service of WASI 0.2, which no component can stand in front of: the
//! host makes the requests for it.
//!
//! ```sh
//! cargo run --release -p reflex-host --example service02 -- MIDDLEWARE SERVICE PROMPT...
//! ```

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use reflex_host::Cache;
use reflex_host::component::{GuestLimits, Handler, Service02};
use reflex_host::exchange::{BoxBody, HttpPolicy, ResponseFuture, SendRequest};
use reflex_host::grant::Grant;
use std::sync::Arc;
use wasmtime::{Error, Result};

/// Where calls of the service go: here, every call is refused.
struct Refused;

impl SendRequest for Refused {
    fn send(&self, _: http::Request<BoxBody>) -> ResponseFuture {
        let denied = reflex_host::exchange::Error::HttpRequestDenied;
        Box::pin(std::future::ready(Err(denied)))
    }
}

fn chat(prompt: &str) -> Result<http::Request<BoxBody>> {
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{prompt}"}}]}}"#);
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
    let request = http::Request::post("http://service.test/v1/chat/completions")
        .header("authorization", "Bearer example")
        .header("content-type", "application/json")
        .body(body.boxed_unsync())?;
    Ok(request)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [middleware, service, prompts @ ..] = arguments.as_slice() else {
        return Err(Error::msg("service02 MIDDLEWARE SERVICE PROMPT..."));
    };
    let limits = GuestLimits {
        instances_max: 8,
        ..GuestLimits::default()
    };
    let service = Service02::new(&std::fs::read(service)?, Arc::new(Refused), limits.clone())?;
    let cache = Cache::builder("").in_memory();
    let reflex = cache.granted(Grant::new("service02"));
    let policy = HttpPolicy::new(&reflex.cache);
    let middleware = std::fs::read(middleware)?;
    let handler = Handler::new(&middleware, reflex, policy, Arc::new(service), limits)?;

    for prompt in prompts {
        let response = handler
            .handle(chat(prompt)?)
            .await
            .map_err(|failure| Error::msg(format!("{failure:?}")))?;
        let ours = response.headers().get("x-reflex-status").cloned();
        let ours = ours.as_ref().and_then(|it| it.to_str().ok()).unwrap_or("-");
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        println!("{prompt}: {status}, {ours}, {} bytes", body.len());
    }
    Ok(())
}
