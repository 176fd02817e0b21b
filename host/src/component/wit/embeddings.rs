//! `reflex:cache/embeddings` for guests.

use crate::component::bindings::embeddings::{
    Completed, Element, Host, HostBatch, HostWithStore, Life, Overdue,
};
use crate::component::bindings::{cache, http as bindings};
use crate::component::border::{from_wasi, to_wasi};
use crate::component::progress::Progress;
use crate::component::wit::http::{ReflexHttp, ReflexHttpCtxView, ReflexHttpView, record, wanted};
use crate::exchange::boxed::{BoxBody, full};
use crate::exchange::fills::Lead;
use crate::exchange::reply::batch::{Batch, Texts};
use crate::exchange::reply::rest::Rest;
use crate::exchange::watch;
use crate::exchange::watch::fails;
use crate::grant::Grant;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use reflex_llm::Key;
use std::future::ready;
use std::sync::Arc;
use wasmtime::Result;
use wasmtime::component::{Access, Accessor, Resource};
use wasmtime_wasi_http::FieldMap;
use wasmtime_wasi_http::p3::{Request, Response};

impl HostBatch for ReflexHttpCtxView<'_> {
    fn new(
        &mut self,
        tenant: Vec<u8>,
        elements: Vec<Element>,
        places: Vec<u32>,
    ) -> Result<Resource<Batch>> {
        let elements = named(&self.ctx.grant, &tenant, elements).unwrap_or_default();
        let texts = Texts::new(elements, places);
        Ok(self.http.table.push(Batch::new(texts))?)
    }

    async fn find(&mut self, batch: Resource<Batch>) -> Result<Vec<Option<Life>>> {
        let batch = self.http.table.get_mut(&batch)?;
        let now_ms = self.ctx.clock.now_ms();
        let find = batch.find(self.ctx, &self.policy.budget);
        let found = self.progress.host(find).await.map(|entry| {
            let entry = entry?;
            Some(Life {
                age_seconds: entry.age_seconds(now_ms),
                ttl_seconds: entry.ttl_seconds(now_ms),
            })
        });
        Ok(found.collect())
    }

    async fn find_stale(&mut self, batch: Resource<Batch>) -> Result<Option<Overdue>> {
        let batch = self.http.table.get_mut(&batch)?;
        let most = self.policy.stale_if_error_max;
        let found = self.progress.host(batch.find_stale(self.ctx, most)).await;
        Ok(found.map(|found| Overdue {
            age_seconds: found.age_seconds,
            expired_seconds: found.expired_seconds,
        }))
    }

    fn drop(&mut self, batch: Resource<Batch>) -> Result<()> {
        self.http.table.delete(batch)?;
        Ok(())
    }
}

impl Host for ReflexHttpCtxView<'_> {
    fn replay_batch(
        &mut self,
        batch: Resource<Batch>,
        set: Vec<bindings::Header>,
    ) -> Result<Result<Resource<Response>, cache::Error>> {
        let Some(made) = self.http.table.get(&batch)?.replay() else {
            return Ok(Err(cache::Error::Invalid(
                "batch: not all of it was found".into(),
            )));
        };
        let (status, headers, body) = made.replayed(&set, self.policy);
        self.respond_with(status, headers, body).map(Ok)
    }

    fn with_body(
        &mut self,
        request: Resource<Request>,
        body: Vec<u8>,
    ) -> Result<Resource<Request>> {
        let like = self.http.table.get(&request)?;
        let mut headers = HeaderMap::clone(&like.headers);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        let body = to_wasi(full(body));
        let (request, _transmitted) = Request::new(
            like.method.clone(),
            like.scheme.clone(),
            like.authority.clone(),
            like.path_with_query.clone(),
            FieldMap::new_immutable(self.http.hooks, headers),
            like.options.clone(),
            body,
        );
        Ok(self.http.table.push(request)?)
    }
}

impl<T: ReflexHttpView + 'static> HostWithStore<T> for ReflexHttp {
    async fn complete_batch(
        store: &Accessor<T, Self>,
        batch: Resource<Batch>,
        asked: Vec<u32>,
        response: Resource<Response>,
        recording: bindings::Recording,
        set: Vec<bindings::Header>,
    ) -> Result<Completed> {
        let begun =
            store.with(|mut store| begin(&mut store, &batch, &asked, response, recording))?;
        let (rest, head, body, progress) = match begun {
            Begun::Reads {
                rest,
                head,
                body,
                progress,
            } => (rest, head, body, progress),
            Begun::Over(completed) => return Ok(completed),
        };

        let made = progress.host(rest.read(body)).await;
        let Some(made) = made else {
            return Ok(Completed::Apart);
        };

        store.with(|mut store| {
            let mut view = store.get();
            let (status, headers, body) = made.completed(head, &set, view.policy);
            let response = view.respond_with(status, headers, body)?;
            Ok(Completed::Whole(response))
        })
    }

    fn record_batch(
        mut store: Access<'_, T, Self>,
        batch: Resource<Batch>,
        response: Resource<Response>,
        recording: bindings::Recording,
        fill: Option<Resource<Lead>>,
    ) -> Result<Resource<Response>> {
        let view = store.get();
        let texts = view.http.table.get(&batch)?.texts.clone();
        view.policy.observer.batch(0, texts.count());
        record(store, response, recording, fill, Some(texts))
    }
}

/// The keys of texts with their weights, if the grant allows the tenant: another tenant counts as
/// malformed.
fn named(grant: &Grant, tenant: &[u8], elements: Vec<Element>) -> Option<Vec<(Key, u64)>> {
    let tenant = grant.tenant(tenant).ok()?;
    let element = |Element { digest, weight }| {
        let digest = digest.try_into().ok()?;
        Some((Key { tenant, digest }, weight))
    };
    elements.into_iter().map(element).collect()
}

/// How the completion of a batch begins.
enum Begun {
    Over(Completed),
    Reads {
        rest: Box<Rest>,
        head: (StatusCode, HeaderMap),
        body: BoxBody,
        progress: Arc<Progress>,
    },
}

fn begin<T: ReflexHttpView + 'static>(
    store: &mut Access<'_, T, ReflexHttp>,
    batch: &Resource<Batch>,
    asked: &[u32],
    response: Resource<Response>,
    recording: bindings::Recording,
) -> Result<Begun> {
    let view = store.get();
    let batch = view.http.table.get(batch)?;
    let answer = view.http.table.get(&response)?;
    if fails(answer.status) {
        return Ok(Begun::Over(Completed::Failed(response)));
    }
    let head = (answer.status, &*answer.headers);
    let since = view.progress.since(&view.ctx.cache);
    let wanted = wanted(recording);
    let target = wanted
        .as_ref()
        .and_then(|wanted| watch::target(view.ctx, view.policy, since, wanted));
    let limits = view.policy.limits(&view.ctx.cache, true);
    let rest = wanted.and_then(|wanted| {
        Rest::new(
            batch,
            asked,
            wanted.shape,
            head,
            limits,
            target,
            &view.policy.budget,
        )
    });
    let progress = Arc::clone(&view.progress);
    let response = view.http.table.delete(response)?;
    let Some(rest) = rest else {
        return Ok(Begun::Over(Completed::Apart));
    };
    let (head, body) = response.into_http(store, ready(Ok(())))?.into_parts();
    Ok(Begun::Reads {
        rest: Box::new(rest),
        head: (head.status, head.headers),
        body: from_wasi(body),
        progress,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use reflex_llm::Tenant;

    const ALICE: Tenant = Tenant([1; 32]);
    const BOB: Tenant = Tenant([2; 32]);

    fn texts(grant: &Grant, tenant: &[u8]) -> Option<Vec<Tenant>> {
        let element = || Element {
            digest: vec![7; 32],
            weight: 1,
        };
        let named = named(grant, tenant, vec![element(), element()])?;
        Some(named.into_iter().map(|(key, _)| key.tenant).collect())
    }

    #[test]
    fn a_component_of_one_tenant_names_no_texts_of_another() {
        let alices = Grant::new("n").for_tenant(ALICE);
        assert_eq!(texts(&alices, &BOB.0), None);
        assert_eq!(texts(&alices, &ALICE.0), Some(vec![ALICE; 2]));
        assert_eq!(texts(&alices, &[]), Some(vec![ALICE; 2]));
        // A component that serves many says whose.
        let trusted = Grant::new("n");
        assert_eq!(texts(&trusted, &BOB.0), Some(vec![BOB; 2]));
        assert_eq!(texts(&trusted, &[]), None);
        assert_eq!(texts(&trusted, &[2; 31]), None);
    }
}
