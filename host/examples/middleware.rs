//! A middleware of your own, run by the host's pool of instances, in front of the target to which
//! the host sends requests.
//!
//! ```sh
//! cargo run --release -p reflex-host --example middleware -- COMPONENT PATH...
//! ```

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use reflex_host::Cache;
use reflex_host::component::{GuestLimits, Handler};
use reflex_host::exchange::{BoxBody, HttpPolicy, ResponseFuture, SendRequest};
use reflex_host::grant::Grant;
use std::sync::Arc;
use wasmtime::{Error, Result};

/// What is behind the middleware: here, one answer to everything.
struct Provider;

const ANSWER: &str = r#"{"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"42"},"finish_reason":"stop"}]}"#;

impl SendRequest for Provider {
    fn send(&self, request: http::Request<BoxBody>) -> ResponseFuture {
        println!("asked: {}", request.uri());
        let mut response = http::Response::new(body(ANSWER));
        let json = http::HeaderValue::from_static("application/json");
        response.headers_mut().insert("content-type", json);
        Box::pin(std::future::ready(Ok(response)))
    }
}

fn body(text: &'static str) -> BoxBody {
    let body = Full::new(Bytes::from_static(text.as_bytes()));
    body.map_err(|never| match never {}).boxed_unsync()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let component = arguments
        .next()
        .ok_or_else(|| Error::msg("middleware COMPONENT PATH..."))?;
    let component = std::fs::read(component)?;
    let cache = Cache::builder("").in_memory();
    let reflex = cache.granted(Grant::new("middleware"));
    let policy = HttpPolicy::new(&reflex.cache);
    let handler = Handler::new(
        &component,
        reflex,
        policy,
        Arc::new(Provider),
        GuestLimits {
            instances_max: 8,
            ..GuestLimits::default()
        },
    )?;

    for path in arguments {
        let request = http::Request::post(format!("http://provider.test{path}"))
            .header("authorization", "Bearer example")
            .header("content-type", "application/json")
            .body(body(r#"{"model":"m","messages":[]}"#))?;
        let response = handler
            .handle(request)
            .await
            .map_err(|failure| Error::msg(format!("{failure:?}")))?;
        let header = |name: &str| {
            let value = response.headers().get(name);
            value
                .and_then(|it| it.to_str().ok())
                .unwrap_or("-")
                .to_owned()
        };
        let (status, ours, own) = (
            response.status(),
            header("x-reflex-status"),
            header("x-own"),
        );
        let body = response.into_body().collect().await?.to_bytes();
        println!("{path}: {status}, {ours}, own {own}, {} bytes", body.len());
    }
    Ok(())
}
