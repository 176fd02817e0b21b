//! A request's key: from its head to a candidate, prepared, and examined with its body.

use crate::Pass;
use crate::request::{body, with_candidate};
use std::hint::black_box;

pub(crate) fn pass(bytes: usize) -> Pass {
    let body = body(bytes);
    Box::new(move || {
        let examined = with_candidate(|candidate| candidate.prepare().examine(black_box(&body)));
        let key = examined.expect("cacheable").exchange.key;
        usize::from(black_box(key.digest[0]))
    })
}
