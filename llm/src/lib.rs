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
//! passes by (a merged key would serve a wrong answer).
//!
//! This crate knows no namespaces. The host that grants them mixes them into [`Key::digest`].

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

mod api;
mod asked;
mod body;
mod canonical;
mod control;
mod fields;
mod headers;
mod identity;
mod items;
mod json;
mod key;
mod model;
mod name_set;
mod origin;
mod outline;
mod outside;
mod prepared;
mod query;
mod reason;
mod revealed;
mod rules;
mod splits;
mod tenant;
mod tools;

mod answer;
mod answer_head;
mod date;
pub mod embeddings;
mod recorder;
mod sse;
mod stated;
mod usage;

mod group;
mod life;
mod path;
mod pattern;

mod error;
pub mod status;

#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;

pub use answer_head::{KEPT_BYTES_MAX, Part, is_kept};
pub use api::{Api, Representation, Shape};
pub use body::BODY_BYTES_MAX;
pub use control::{ClientControl, Control, Directive, X_REFLEX_TTL};
pub use error::{ERROR_HEADERS, VENDOR_HEADERS};
pub use group::Groups;
pub use key::{Key, KeyHasher};
pub use life::{Life, LifeRule, Lifetimes};
pub use model::MODEL_BYTES_MAX;
pub use path::{PathRule, check_path_pattern, normal_path};
pub use pattern::is_like;
pub use prepared::Prepared;
pub use reason::{Bypass, Dropped, Rejected};
pub use recorder::{Limits, Recorder, Storable, Validator, is_event_stream};
pub use revealed::{Revealed, Revelation};
pub use rules::{Rules, check_tenant_header};
pub use splits::{By, COMPARED_BYTES_MAX, Split, Splits, Traits};
pub use stated::{ProviderControl, Stated, Term};
pub use status::Status;
pub use tenant::Tenant;
pub use usage::Usage;

use origin::Origin;

/// A request without its body.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// The method as sent: methods are case-sensitive.
    pub method: &'a str,
    /// The provider that will really be asked, as `scheme://authority`. It is part of the key, so
    /// it must reflect everything else that selects the provider (a `Host` header that is passed
    /// on, a route).
    pub upstream: &'a str,
    /// Path with query, exactly as sent.
    pub path: &'a str,
    /// Every header in the order of arrival, names in lower case, values untouched.
    pub headers: &'a [(&'a str, &'a [u8])],
}

impl<'a> Head<'a> {
    /// The values of one header, in order: a repeated header counts each time.
    fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let all = self.headers.iter();
        all.filter(move |(other, _)| *other == name)
            .map(|(_, value)| *value)
    }
}

/// Without path and headers: credentials stand there, and do not belong in logs.
impl fmt::Debug for Head<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Head({} {})", self.method, self.upstream)
    }
}

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
    /// Which parts of a request are out of the key, in it, or a reason to pass by. Shared, because
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
    origin: Origin,
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

/// Classifies a request whose body is at hand.
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
/// Why the request passes by. Its body need not be buffered.
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
        origin: Origin::of(head.upstream),
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
    /// Why the request passes by.
    pub fn examine(&self, body: &[u8]) -> Result<Examined, Bypass> {
        self.prepare().examine(body)
    }
}
