//! The cost of the guest: one hit through the middleware component, without any network.

use crate::clock::thread_nanoseconds;
use crate::{ROUNDS, median, report};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use reflex_host::cache::{Cache, CacheOptions};
use reflex_host::clock::Clock;
use reflex_host::component::{GuestLimits, Handler};
use reflex_host::exchange::{
    BoxBody, Budget, ClientControl, Fills, HttpPolicy, NoObserver, ProviderControl, Replay,
    ResponseFuture, Samples, SendRequest,
};
use reflex_host::grant::{Grant, ReflexCtx};
use reflex_llm::Anonymous;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const HITS: usize = 5000;

/// Answers every request with a completion of one size.
struct Provider(usize);

impl SendRequest for Provider {
    fn send(&self, _: http::Request<BoxBody>) -> ResponseFuture {
        let content = "x".repeat(self.0);
        let body = format!(
            r#"{{"id":"1","object":"chat.completion","choices":[{{"index":0,"message":{{"role":"assistant","content":"{content}"}},"finish_reason":"stop"}}]}}"#
        );
        let response = http::Response::builder()
            .header("content-type", "application/json")
            .body(
                Full::new(Bytes::from(body))
                    .map_err(|never| match never {})
                    .boxed_unsync(),
            );
        Box::pin(std::future::ready(Ok(response.expect("valid"))))
    }
}

pub(crate) fn run() -> ExitCode {
    println!("guest: CPU of a hit from request to response body, in process, 1 KiB prompt");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut figures = Vec::new();
    for (name, bytes) in [("4 KiB", 4 << 10), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20)] {
        let handler = handler(bytes);
        // The first is the miss that fills the cache; a few more warm the instance.
        for _ in 0..10 {
            runtime.block_on(one(&handler));
        }
        let rounds = (0..ROUNDS).map(|_| {
            let began = thread_nanoseconds();
            for _ in 0..HITS {
                runtime.block_on(one(&handler));
            }
            (thread_nanoseconds() - began) / 1e3 / HITS as f64
        });
        let figure = median(rounds.collect());
        report(&format!("hit, answer of {name}"), figure, "µs");
        figures.push(figure);
    }
    report("1 MiB / 4 KiB", figures[2] / figures[0], "x");
    println!();
    ExitCode::SUCCESS
}

async fn one(handler: &Handler) {
    let prompt = "p".repeat(1024);
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{prompt}"}}]}}"#);
    let request = http::Request::builder()
        .method("POST")
        .uri("http://provider.test/v1/chat/completions")
        .header("authorization", "Bearer bench")
        .header("content-type", "application/json")
        .body(
            Full::new(Bytes::from(body))
                .map_err(|never| match never {})
                .boxed_unsync(),
        )
        .expect("valid");
    let response = handler.handle(request).await.expect("handled");
    response.into_body().collect().await.expect("whole");
}

fn handler(answer_bytes: usize) -> Handler {
    let cache = Cache::in_memory(&CacheOptions::default());
    let fills = Fills::new(&cache);
    let reflex = ReflexCtx {
        cache,
        grant: Grant {
            namespace: "bench".into(),
            anonymous: Anonymous::Bypass,
            tenant_header: None,
            request_bytes_max: 1 << 20,
            temperature_max: None,
            groups: Arc::default(),
            lifetimes: Arc::default(),
            ..Grant::default()
        },
        clock: Clock::system(),
    };
    let policy = HttpPolicy {
        allow_length: false,
        client_control: ClientControl::Obey,
        provider_control: ProviderControl::Ignore,
        replay: Replay::Instant,
        samples: Samples::default(),
        renewals: Arc::default(),
        fill_wait_max: Duration::from_secs(60),
        stale_if_error_max: Duration::ZERO,
        fills,
        budget: Budget::new(1 << 30),
        l1_bytes_max: 0,
        is_shadow: false,
        verify_fraction: 0.0,
        observer: Arc::new(NoObserver),
    };
    let limits = GuestLimits {
        instances_max: 8,
        ..GuestLimits::default()
    };
    Handler::new(
        reflex_host::serve::MIDDLEWARE,
        reflex,
        policy,
        Arc::new(Provider(answer_bytes)),
        limits,
    )
    .expect("the built-in component fits")
}
