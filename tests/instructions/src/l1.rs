//! A repeated request: from its head to what the L1 knows of it. The same head and body as those
//! whose keys are made.

use crate::Pass;
use crate::request::{bodies, with_candidate};
use reflex_host::cache::{L1, L1_BYTES_MAX};
use reflex_llm::{Key, Shape};
use std::hint::black_box;

/// So many requests take turns.
const REQUESTS: usize = 1000;

pub(crate) fn pass(bytes: usize) -> Pass {
    let l1 = L1::<(Key, Shape)>::new(L1_BYTES_MAX);
    let bodies = bodies(REQUESTS, bytes);
    for body in &bodies {
        with_candidate(|candidate| {
            let exchange = candidate.examine(body).expect("cacheable").exchange;
            let probe = l1.probe(|head| candidate.write_identity(head), body);
            let tenant = &exchange.key.tenant.0;
            l1.insert(&probe, body, tenant, (exchange.key, exchange.shape));
        });
    }
    let mut at = 0;
    Box::new(move || {
        at += 1;
        let body = &bodies[at % REQUESTS];
        with_candidate(|candidate| {
            let probe = l1.probe(|head| candidate.write_identity(head), black_box(body));
            let (key, _) = l1.get(&probe, body).expect("known");
            usize::from(black_box(key.digest[0]))
        })
    })
}
