//! The module's own answers, and its status in the provider's.

use crate::abi::{Envoy, Map};
use crate::lookup::Hit;
use reflex_host::kept_head::KeptHead;
use reflex_llm::{ERROR_HEADERS, Shape, Status, status};

/// An answer of the module.
#[derive(Debug)]
pub(crate) enum Reply {
    /// From the cache.
    Hit(Hit),
    /// A 504: nothing is cached, and the client does not want the provider asked.
    Absent(Shape),
}

impl Hit {
    /// What the client is told.
    fn status(&self) -> Status {
        match self.is_fetched {
            true => Status::Collapsed,
            false => Status::Hit {
                ttl_seconds: self.ttl_seconds,
            },
        }
    }
}

impl Reply {
    /// Sends it. Envoy copies it.
    pub(crate) fn send(self, envoy: Envoy<'_>) {
        match self {
            Self::Hit(hit) => send_hit(&hit, envoy),
            Self::Absent(shape) => {
                let body = shape.not_cached_body();
                let told: Vec<_> = Status::Absent.headers(None).collect();
                let told = told.iter().map(|(name, value)| (*name, value.as_ref()));
                let headers: Vec<(&[u8], &[u8])> = ERROR_HEADERS
                    .into_iter()
                    .chain(told)
                    .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
                    .collect();
                envoy.answer(status::NOT_CACHED_STATUS, &headers, body.as_bytes());
            }
        }
    }
}

fn send_hit(hit: &Hit, envoy: Envoy<'_>) {
    // It was read when it was found; without a head, the request would hang.
    let head = KeptHead::read(hit.entry.metadata());
    let age_seconds = (!hit.is_fetched).then_some(hit.age_seconds);
    let told: Vec<_> = hit.status().headers(age_seconds).collect();
    let usage = head.as_ref().and_then(|head| head.usage);
    let saved = usage.map(|usage| usage.total_tokens.to_string());
    let mut headers: Vec<(&[u8], &[u8])> = Vec::with_capacity(8);
    headers.extend(head.iter().flat_map(KeptHead::headers));
    headers.extend(
        told.iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
    );
    if let Some(saved) = &saved {
        headers.push((status::X_REFLEX_SAVED_TOKENS.as_bytes(), saved.as_bytes()));
    }
    envoy.answer(200, &headers, hit.entry.as_ref());
}

/// Sets the status headers of the provider's answer. Ours comes last in the list of those that other
/// caches have set.
pub(crate) fn mark(envoy: &mut Envoy<'_>, status: Status) {
    let own = status.cache_status();
    let list = {
        let headers = envoy.headers(Map::Response);
        let mut others = headers
            .iter()
            .filter(|(name, _)| *name == status::CACHE_STATUS.as_bytes())
            .map(|(_, value)| *value)
            .peekable();
        match others.peek() {
            None => own,
            Some(_) => status::cache_status_after(others, &own).into(),
        }
    };
    for (name, value) in [
        (status::X_REFLEX_STATUS, status.x_reflex_status()),
        (status::CACHE_STATUS, &list),
    ] {
        envoy.set_header(Map::Response, name, Some(value.as_bytes()));
    }
}
