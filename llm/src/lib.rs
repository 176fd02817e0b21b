//! What an LLM exchange is: which requests may be answered from a cache and under which key,
//! and which answers may be kept.
//!
//! Pure: no I/O, no clock, no allocation that a caller does not bound. Host, guest and Envoy filter
//! all call this crate, so that a request has the same key everywhere; no other code hashes
//! requests or judges answers.
//!
//! ```text
//! head ─► candidate ─► Candidate ─► Prepared ─► + body ─► Exchange { key, shape, control }
//!            └► Bypass     └► Bypass              answer ─► Recorder ─► Storable | Rejected
//! ```
//!
//! The rule behind every line here: two requests share a key only if their answers are
//! interchangeable. Unknown parts stay in the key (a split key costs a miss). In doubt, the request
//! bypasses (a merged key would serve a wrong answer).
//!
//! This crate knows no namespaces. The host that grants them mixes them into [`Key::digest`].

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::sync::Arc;

mod api;
mod request;

mod key;
mod tenant;

mod answer;
pub mod embeddings;

mod rules;

pub mod flow;
pub mod status;

mod json;
mod name_set;

#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;

pub use answer::head::{KEPT_BYTES_MAX, Part, is_kept};
pub use answer::recorder::{Limits, Recorder, Storable, Validator, is_event_stream};
pub use answer::revealed::{Revealed, Revelation};
pub use answer::stated::{ProviderControl, Stated, Term};
pub use answer::usage::Usage;
pub use api::{Api, Representation, Shape};
pub use flow::Flow;
pub use key::{Key, KeyHasher};
pub use request::body::BODY_BYTES_MAX;
pub use request::control::{ClientControl, Control, Directive, X_REFLEX_TTL};
pub use request::head::Head;
pub use request::keyed::{DIFFERENCES_MAX, Difference, Differences, Keyed, KeyedKind, KeyedPart};
pub use request::model::{MODEL_BYTES_MAX, model_in_path, model_of};
pub use request::prepared::Prepared;
pub use request::recorded::{body_differences, canonical_body, telling_headers};
pub use request::splits::{By, COMPARED_BYTES_MAX, Split, Splits, Traits};
pub use rules::life::{Life, LifeRule, Lifetimes};
pub use rules::path::{PathRule, check_path_pattern, is_below, normal_path};
pub use rules::pattern::{is_like, is_like_in_any_case};
pub use rules::renew::{RenewRule, Renewal, Renewals};
pub use rules::{Rules, check_tenant_header};
pub use status::Status;
pub use status::error::{ERROR_HEADERS, VENDOR_HEADERS};
pub use status::reason::{Bypass, Dropped, Rejected};
pub use tenant::Tenant;
pub use tenant::group::Groups;

use request::query;
use rules::path;

/// The operator's policy about sharing answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy<'a> {
    /// How to treat requests that name no tenant.
    pub anonymous: Anonymous,
    /// A header, in lower case, that a gateway in front of us sets after it has checked the
    /// caller: its value is the tenant. Never set this where clients can send the header
    /// themselves.
    pub tenant_header: Option<&'a str>,
    /// Requests that ask for a higher temperature are not cached; none is no limit. A request that
    /// does not name its temperature is never over it.
    pub temperature_max: Option<f64>,
    /// Which of the clients' instructions are obeyed.
    pub client_control: ClientControl,
    /// Which API answers at paths whose end names none, or a wrong one. The first rule that applies
    /// counts.
    pub paths: &'a [PathRule],
    /// Which parts of a request are out of the key, in it, or a reason to bypass. Shared, because
    /// requests that wait for their body hold it. None is the same as empty lists.
    pub rules: Option<&'a Arc<Rules>>,
}

/// How to treat a request without a credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// It goes to the provider: two such clients may not share an answer.
    #[default]
    Bypass,
    /// All such callers are one tenant.
    Share,
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Classified {
    /// Look it up; on a miss record the answer.
    Cacheable(Exchange),
    /// Pass it on untouched and keep nothing.
    Bypass(Bypass),
}

/// A request that may be answered from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Under which the answer is stored.
    pub key: Key,
    /// The answer's API and representation, for the [`Recorder`].
    pub shape: Shape,
    /// The client's instructions to the cache.
    pub control: Control,
}

/// A request that may be answered from the cache, and what operators have rules about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// The request's key and what belongs to it.
    pub exchange: Exchange,
    /// The model of the request: the path's, where the path decides (Gemini, Azure's deployments),
    /// or else the body's. None without a name of at most [`MODEL_BYTES_MAX`].
    pub model: Option<String>,
}

/// A request whose head says that it may be cacheable. The body decides.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    head: Head<'a>,
    api: Api,
    /// As far as the query says; the body may say more.
    representation: Representation,
    tenant: Tenant,
    control: Control,
    temperature_max: Option<f64>,
    rules: Option<Arc<Rules>>,
    /// A header that is not in the key, because the tenant stands for it.
    named_by: Option<&'a str>,
}

/// Classifies a request with its body.
pub fn classify(head: &Head<'_>, policy: &Policy<'_>, body: &[u8]) -> Classified {
    match candidate(head, policy) {
        Ok(candidate) => candidate.classify(body),
        Err(bypass) => Classified::Bypass(bypass),
    }
}

/// The first stage: all that can be decided before the body is read.
///
/// # Errors
///
/// Why the request bypasses. Its body need not be buffered.
pub fn candidate<'a>(head: &Head<'a>, policy: &Policy<'_>) -> Result<Candidate<'a>, Bypass> {
    let api = path::api_at(head.path, policy.paths)?;
    if head.method != "POST" {
        return Err(Bypass::Method);
    }
    let identity = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"identity");
    if !head.values("content-encoding").all(identity) {
        return Err(Bypass::ContentEncoding);
    }
    let control = policy.client_control.obeyed(Control::of(head.headers));
    if control.no_store {
        return Err(Bypass::NoStore);
    }
    let representation = query::representation(api, head.path)?;
    let tenant = Tenant::of(head, policy, api).ok_or(Bypass::NoCredential)?;
    Ok(Candidate {
        head: *head,
        api,
        representation,
        tenant,
        control,
        temperature_max: policy.temperature_max,
        rules: policy.rules.filter(|rules| !rules.is_empty()).cloned(),
        named_by: None,
    })
}

impl<'a> Candidate<'a> {
    /// The client's instructions to the cache, known before the body is.
    pub fn control(&self) -> Control {
        self.control
    }

    /// The tenant whose answers this request may share.
    pub fn tenant(&self) -> Tenant {
        self.tenant
    }

    /// The same request under another tenant: that of a group, whose members share answers by the
    /// operator's choice. `named_by` is the [trusted header](Policy) that may have named the
    /// member: members differ in it, but their answers do not. Under its own tenant the request
    /// stays unchanged.
    pub fn as_tenant(self, tenant: Tenant, named_by: Option<&'a str>) -> Self {
        if tenant == self.tenant {
            return self;
        }
        Self {
            tenant,
            named_by,
            ..self
        }
    }

    /// The same with all that the key takes from the head, for callers that cannot keep the head
    /// until the body has come.
    pub fn prepare(&self) -> Prepared {
        Prepared::of(self)
    }

    /// The second stage: reads the body and makes the key.
    ///
    /// A body over [`BODY_BYTES_MAX`] is a bypass; edges have tighter bounds of their own.
    pub fn classify(&self, body: &[u8]) -> Classified {
        self.prepare().classify(body)
    }

    /// The same for operators with rules about models.
    ///
    /// # Errors
    ///
    /// Why the request bypasses.
    pub fn examine(&self, body: &[u8]) -> Result<Examined, Bypass> {
        self.prepare().examine(body)
    }
}
