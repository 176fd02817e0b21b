//! On which thread vectors are read.

use super::*;
use crate::cache::{Cache, NewEntry};
use crate::clock::Clock;
use crate::grant::Grant;
use reflex_llm::Tenant;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;

const TENANT: Tenant = Tenant([1; 32]);

/// So many texts, whose vectors are in a cache in memory.
fn cached(texts: u32, numbers: usize) -> (ReflexCtx, Batch) {
    let ctx = ReflexCtx {
        cache: Cache::in_memory(&Default::default()),
        grant: Grant::new("n").for_tenant(TENANT),
        clock: Clock::from_fn(|| 1000),
    };
    let vector = vec!["0.015625"; numbers].join(",");
    let payload = format!(
        r#"{{"object":"list","data":[{{"object":"embedding","index":0,"embedding":[{vector}]}}],"model":"m","usage":{{"prompt_tokens":1,"total_tokens":1}}}}"#
    );
    let metadata = AnswerHead::encode_noting(200, &[], &Notes::default());
    let keys = (0..texts).map(|number| Key::for_prompt(&TENANT, &number.to_string()));
    let elements: Vec<_> = keys.map(|key| (key, 1)).collect();
    for (key, _) in &elements {
        let new = NewEntry {
            key: &ctx.key(key),
            tenant: &TENANT.0,
            metadata: &metadata,
            payload: payload.as_bytes(),
            now_ms: 1000,
            ttl_ms: None,
        };
        ctx.cache.insert(new).expect("stored");
    }
    let batch = Batch::new(Texts::new(elements, (0..texts).collect()));
    (ctx, batch)
}

/// A full batch takes tenths of a second to read, too long for a thread that serves other requests.
#[test]
fn a_full_batch_is_read_where_it_holds_up_nothing() {
    // The only thread that may block does, until the other work has been done.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime");
    let budget = Budget::new(u64::MAX);
    let (ctx, mut full) = cached(2048, 400);
    let (few_ctx, mut few) = cached(3, 400);
    runtime.block_on(async {
        let (let_go, held) = channel::<()>();
        let holding = tokio::task::spawn_blocking(move || held.recv());
        let is_over = AtomicBool::new(false);
        let reading = async {
            let found = full.find(&ctx, &budget).await.flatten().count();
            is_over.store(true, Relaxed);
            found
        };
        let other = async {
            assert!(!is_over.load(Relaxed), "read on the thread of all others");
            // Few are read at once.
            let found = few.find(&few_ctx, &budget).await.flatten().count();
            assert_eq!(found, 3);
            assert!(!is_over.load(Relaxed), "read on the thread of all others");
            let_go.send(()).expect("it is held");
        };
        let (found, ()) = tokio::join!(biased; reading, other);
        assert_eq!(found, 2048);
        holding.await.expect("no panic").expect("let go");
    });
}
