//! The provider's answers: asked for, shared with the followers, and recorded on their way.

use crate::cache::Mark;
use crate::exchange::ask::SendRequest;
use crate::exchange::boxed::BoxBody;
use crate::exchange::error::Error;
use crate::exchange::fills::Lead;
use crate::exchange::hit::{Answers, response};
use crate::exchange::outliving::Outliving;
use crate::exchange::question::{Question, hide_tenant};
use crate::exchange::recording::Target;
use crate::exchange::reply::head::{status_headers, tell};
use crate::exchange::reply::rest::Rest;
use crate::exchange::watch::{Watch, fails, target, target_or_count};
use http::{Request, Response};
use reflex_llm::{Bypass, Flow, Status};
use std::sync::Arc;
use std::time::Duration;

/// What is left to do for a question without an answer in the cache.
#[derive(Debug)]
pub(crate) struct Miss {
    /// The duty to fetch the answer for followers, too.
    pub(crate) lead: Option<Lead>,
    /// The elements of a batch that the cache does not know, where it knows the others.
    pub(crate) missing: Option<Vec<u32>>,
    /// From before the cache was looked at: an answer that was purged since is not stored.
    pub(crate) since: Mark,
    /// In shadow mode: the status that the request would have had, and the time that it took to tell.
    pub(crate) would_be: Option<(Status, Duration)>,
}

/// How long the lookup of a response in shadow mode took: in the extensions of the response.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "serve"),
    allow(dead_code, reason = "for the daemon's metrics")
)]
pub(crate) struct Looked(pub(crate) Duration);

/// The way to the provider. A clone is the same.
#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) answers: Answers,
    pub(crate) sender: Arc<dyn SendRequest>,
}

impl Provider {
    /// Asks the provider. If the client leaves while followers wait, the call goes on until its
    /// response begins or the last of them is gone.
    pub(crate) async fn ask(
        &self,
        question: &Arc<Question>,
        miss: Miss,
    ) -> Result<Response<BoxBody>, Error> {
        let audience = miss.lead.as_ref().map(Lead::audience);
        let (this, question) = (self.clone(), Arc::clone(question));
        let work = async move { this.ask_now(&question, miss).await };
        Outliving::new(work, move || audience.clone()).await
    }

    async fn ask_now(&self, question: &Question, miss: Miss) -> Result<Response<BoxBody>, Error> {
        let Answers { ctx, policy, .. } = &self.answers;
        let Miss {
            lead,
            missing,
            since,
            would_be,
        } = miss;
        let wanted = question.wanted();
        let flow = question.flow(ctx);
        let part = match &missing {
            Some(missing) => {
                let target = target(ctx, policy, since, &wanted);
                self.complete(question, missing, flow, target).await
            }
            None => Ok(Part::Apart),
        };
        let asked = match part {
            // The followers find its parts in the cache.
            Ok(Part::Whole(response)) => return Ok(response),
            Ok(Part::Failed(response)) => Ok(response),
            Ok(Part::Apart) => {
                let request = question.for_provider(&ctx.grant, flow.edits(missing.is_some()));
                self.sender.send(request).await
            }
            Err(error) => Err(error),
        };
        let response = match asked {
            Ok(response) => response,
            Err(error) => {
                if let Some(lead) = lead {
                    lead.fail(error.clone());
                }
                let stale = self.answers.stale(question, flow, None).await;
                return stale.ok_or(error);
            }
        };

        let (parts, body) = response.into_parts();
        let texts = question.batch().map(|batch| batch.texts.clone());
        // What the cache has stays: it ages as it would, and its texts have been counted.
        let is_kept = would_be.is_none_or(|(status, _)| !matches!(status, Status::Hit { .. }));
        if let Some(texts) = texts.as_ref().filter(|_| is_kept) {
            policy.observer.batch(0, texts.count());
        }
        let target = match is_kept {
            true => target_or_count(ctx, policy, since, &wanted),
            false => None,
        };
        let target = target.map(|target| Target { texts, ..target });
        let watch = Watch::new(target, policy, (parts.status, &parts.headers), lead);
        let body = match watch {
            Some(watch) => watch.body(body),
            None => body,
        };
        // The followers get a failure as well, whatever this client gets.
        let fwd_status = Some(parts.status);
        let stale = self.answers.stale(question, flow, fwd_status).await;
        let status = would_be.map_or_else(|| flow.answered(), |(status, _)| status);
        let mut response = stale.unwrap_or_else(|| told(Response::from_parts(parts, body), status));
        if let Some((_, looked)) = would_be {
            response.extensions_mut().insert(Looked(looked));
        }
        Ok(response)
    }

    /// Asks the provider for these elements of a batch only.
    async fn complete(
        &self,
        question: &Question,
        missing: &[u32],
        flow: Flow,
        target: Option<Target>,
    ) -> Result<Part, Error> {
        let Answers { ctx, policy, .. } = &self.answers;
        let (grant, control) = (&ctx.grant, policy.client_control);
        let rest = question.for_provider_only(missing, grant, control, flow.edits(true));
        let (Some(rest), Some(batch)) = (rest, question.batch()) else {
            return Ok(Part::Apart);
        };
        let answer = self.sender.send(rest).await?;
        if fails(answer.status()) {
            return Ok(Part::Failed(answer));
        }
        let (head, body) = answer.into_parts();
        let seen = (head.status, &head.headers);
        let limits = policy.limits(&ctx.cache, true);
        let shape = question.shape();
        let rest = Rest::new(batch, missing, shape, seen, limits, target, &policy.budget);
        let made = match rest {
            Some(rest) => rest.read(body).await,
            None => None,
        };
        Ok(made.map_or(Part::Apart, |made| {
            let set = status_headers(Status::Partial, None);
            let head = (head.status, head.headers);
            Part::Whole(response(made.completed(head, &set, policy)))
        }))
    }

    /// Sends a request to the provider unchanged, and marks the response as a bypass.
    pub(crate) async fn pass(
        &self,
        mut request: Request<BoxBody>,
        why: Bypass,
    ) -> Result<Response<BoxBody>, Error> {
        hide_tenant(request.headers_mut(), &self.answers.ctx.grant);
        let response = self.sender.send(request).await?;
        Ok(told(response, Status::Bypass(why)))
    }
}

/// The provider's answer to the rest of a batch.
enum Part {
    /// It fits the cached part; this is the joined answer.
    Whole(Response<BoxBody>),
    /// It fails.
    Failed(Response<BoxBody>),
    /// It does not certainly fit: the whole batch must be asked for.
    Apart,
}

/// A response that says what the cache did.
pub(crate) fn told(mut response: Response<BoxBody>, status: Status) -> Response<BoxBody> {
    tell(response.headers_mut(), status, None);
    response
}
