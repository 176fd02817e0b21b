//! What the workers of an Envoy note of routes, in Envoy's shared data: see `routes`.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::hostcalls;

use reflex_envoy_core::routes::Route;
use reflex_envoy_core::worker::Worker;

/// Several workers may note something at once. Past it, the next request or tick tries again.
const TRIES_MAX: usize = 16;

/// No note: Envoy reports nothing about an empty place.
const EMPTY: &[u8] = b"0";

/// A request has come by this route.
pub(super) fn meet(worker: &RefCell<Worker>, route: &Rc<Route>) {
    let upstream = {
        let mut worker = worker.borrow_mut();
        if !worker.shared().routes.asks_others(route) {
            return;
        }
        let upstream = worker.config().upstreams.get(&route.cluster);
        upstream.map(|upstream| upstream.url())
    };
    if let Some(upstream) = upstream {
        note(worker, &upstream, route);
    }
}

/// Tells other workers of routes that were refused in this one.
pub(super) fn tell(worker: &RefCell<Worker>) {
    let news = worker.borrow_mut().shared().routes.take_news();
    for (upstream, route) in news {
        note(worker, &upstream, &route);
    }
}

/// Reads the notes of other workers.
pub(super) fn hear(worker: &RefCell<Worker>) {
    let upstreams: Vec<String> = {
        let mut worker = worker.borrow_mut();
        let upstreams = worker.shared().routes.upstreams();
        upstreams.map(str::to_owned).collect()
    };
    for upstream in upstreams {
        if let Ok((Some(noted), _)) = hostcalls::get_shared_data(&place(&upstream)) {
            worker.borrow_mut().shared().routes.heard(&upstream, &noted);
        }
    }
}

fn note(worker: &RefCell<Worker>, upstream: &str, route: &Route) {
    let place = place(upstream);
    for _ in 0..TRIES_MAX {
        let (noted, version) = hostcalls::get_shared_data(&place).unwrap_or_default();
        if noted.is_none() {
            // Without a version Envoy compares none, and two workers would not notice each other.
            let _ = hostcalls::set_shared_data(&place, Some(EMPTY), None);
            continue;
        }
        let noted = noted.unwrap_or_default();
        let more = worker
            .borrow_mut()
            .shared()
            .routes
            .meet(upstream, route, &noted);
        let Some(more) = more else { return };
        if hostcalls::set_shared_data(&place, Some(&more), version).is_ok() {
            return;
        }
    }
}

fn place(upstream: &str) -> String {
    format!("reflex-routes-{upstream}")
}
