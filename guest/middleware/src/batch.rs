//! A batch of embeddings, of which the cache may have all, a part or nothing.

use crate::bindings::reflex::cache::embeddings::{self, Completed, Element, Life, Overdue};
use crate::bindings::reflex::cache::http::{Header, Recording};
use crate::bindings::wasi::http::handler;
use crate::bindings::wasi::http::types::{ErrorCode, Request, Response};
use crate::headers;
use reflex_llm::embeddings::{self as llm, Found};
use reflex_llm::{Candidate, Control, Status};

/// The texts of a request, here and with the host.
pub(crate) struct Batch<'b> {
    request: llm::Batch<'b>,
    host: embeddings::Batch,
}

/// The cache's part of a batch.
pub(crate) enum Look {
    All(Response),
    /// All but these elements, by number.
    AllBut(Vec<u32>),
    Nothing,
}

impl<'b> Batch<'b> {
    /// None if the request is not one for texts that can be asked for one by one.
    pub(crate) fn of(candidate: &Candidate<'_>, body: &'b [u8]) -> Option<Self> {
        let request = candidate.batch(body)?;
        let element = |element: &llm::Element| Element {
            digest: element.key.digest.to_vec(),
            weight: element.bytes.into(),
        };
        let elements: Vec<_> = request.elements().iter().map(element).collect();
        let tenant = candidate.tenant().0;
        let host = embeddings::Batch::new(&tenant, &elements, request.places());
        Some(Self { request, host })
    }

    /// The host's side of it.
    pub(crate) fn host(&self) -> &embeddings::Batch {
        &self.host
    }

    pub(crate) fn look_up(&self, control: &Control) -> Look {
        let life = |life: Life| (life.age_seconds, life.ttl_seconds);
        let answers = self.host.find().into_iter();
        let (age, ttl) = match Found::of(control, answers.map(|found| found.map(life))) {
            Found::All {
                age_seconds,
                ttl_seconds,
            } => (age_seconds, ttl_seconds),
            Found::AllBut(missing) => return Look::AllBut(missing),
            Found::Nothing => return Look::Nothing,
        };
        let hit = Status::Hit { ttl_seconds: ttl };
        match embeddings::replay_batch(&self.host, &headers(hit, Some(age))) {
            Ok(response) => Look::All(response),
            // An error of the cache is a miss: the provider can still answer.
            Err(_) => Look::Nothing,
        }
    }

    /// The answer made of the cached parts, expired or not, for a client whose request the provider
    /// has failed. `headers` gets the seconds since its expiry, and its age.
    pub(crate) fn stale(&self, headers: impl FnOnce(u64, u64) -> Vec<Header>) -> Option<Response> {
        let Overdue {
            age_seconds,
            expired_seconds,
        } = self.host.find_stale()?;
        embeddings::replay_batch(&self.host, &headers(expired_seconds, age_seconds)).ok()
    }

    /// Asks the provider for these elements only, with the head of a request for all.
    pub(crate) async fn complete(
        &self,
        request: &Request,
        missing: &[u32],
        recording: &Recording,
    ) -> Result<Completed, ErrorCode> {
        let rest = embeddings::with_body(request, &self.request.asking(missing));
        let response = handler::handle(rest).await?;
        let set = headers(Status::Partial, None);
        let completed = embeddings::complete_batch(
            &self.host,
            missing.to_vec(),
            response,
            recording.clone(),
            set,
        );
        Ok(completed.await)
    }
}
