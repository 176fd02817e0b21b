//! A request between its head and its body: the key's parts of the head are saved, and the head
//! itself is not needed any more.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::api;
use crate::key::{read_fields, write_field};
use crate::request::body::Body;
use crate::request::fields::Field;
use crate::request::headers;
use crate::request::origin::Origin;
use crate::request::outline::Outline;
use crate::request::{asked, model, outside};
use crate::{
    Api, Bypass, Candidate, Classified, Control, Examined, Exchange, Key, KeyHasher,
    Representation, Rules, Shape, Tenant,
};

/// A [`Candidate`] that owns its data, for callers that have to wait for the body.
#[derive(Clone)]
pub struct Prepared {
    api: Api,
    /// As far as the query says; the body may say more.
    representation: Representation,
    tenant: Tenant,
    control: Control,
    temperature_max: Option<f64>,
    origin: Origin,
    rules: Option<Arc<Rules>>,
    /// The client accepts only events, whatever the body says.
    wants_events: bool,
    /// The path names it, whatever the body says.
    model: Option<String>,
    /// The fields of the key before the body's, without the shape.
    fields: Vec<u8>,
    /// Where among them the shape belongs.
    shape_at: usize,
}

/// The longest field for a shape, and the beginning of that for a body.
const SHAPE_BYTES: usize = 128;

/// Most requests' fields fit.
const FIELDS_BYTES: usize = 512;

impl Prepared {
    pub(crate) fn of(candidate: &Candidate<'_>) -> Self {
        let head = &candidate.head;
        let mut fields = Vec::with_capacity(FIELDS_BYTES);
        let mut shape_at = 0;
        candidate.fields(|field, value| {
            write_field(&mut fields, field.name(), value);
            if field == Field::Upstream {
                shape_at = fields.len();
            }
        });
        // What was recorded while a rule held must not answer requests after the rule is gone: the
        // part of the request that it ignored counts again. So each set of rules has keys of its own,
        // through restarts, reloads and edges with other rules.
        let rules = candidate.rules.as_deref();
        for (list, pattern) in rules.into_iter().flat_map(Rules::of_keys) {
            write_field(&mut fields, list, pattern.as_bytes());
        }
        Self {
            api: candidate.api,
            representation: candidate.representation,
            tenant: candidate.tenant,
            control: candidate.control,
            temperature_max: candidate.temperature_max,
            origin: Origin::of(candidate.head.upstream),
            rules: candidate.rules.clone(),
            wants_events: headers::wants_events_only(head.headers),
            model: model::in_path(head.path),
            fields,
            shape_at,
        }
    }

    /// The client's instructions to the cache.
    pub fn control(&self) -> Control {
        self.control
    }

    /// Reads the body and makes the key.
    ///
    /// A body over [`BODY_BYTES_MAX`](crate::BODY_BYTES_MAX) is a bypass; edges have tighter
    /// bounds of their own.
    pub fn classify(&self, body: &[u8]) -> Classified {
        match self.read(body) {
            Ok(body) => Classified::Cacheable(self.exchange(&body)),
            Err(bypass) => Classified::Bypass(bypass),
        }
    }

    /// The same for operators with rules about models.
    ///
    /// # Errors
    ///
    /// Why the request bypasses.
    pub fn examine(&self, body: &[u8]) -> Result<Examined, Bypass> {
        let body = self.read(body)?;
        Ok(self.examined(&body, KeyHasher::expecting).0)
    }

    /// What a body means, and the hasher that has made its key; `hasher` gets about how many bytes
    /// it will hash.
    pub(crate) fn examined(
        &self,
        body: &Body<'_>,
        hasher: impl FnOnce(usize) -> KeyHasher,
    ) -> (Examined, KeyHasher) {
        let (exchange, hasher) = self.hashed(body, hasher);
        let examined = Examined {
            exchange,
            model: model::named(self.model.as_deref(), body.root()),
        };
        (examined, hasher)
    }

    /// The first part of the head in which another request differs from this one, as far as keys
    /// cover it: both have the same key with the same body if there is none. The name of the part,
    /// never its value.
    pub fn differs_in(&self, other: &Self) -> Option<String> {
        let is_same = self.fields == other.fields
            && self.wants_events == other.wants_events
            && self.api == other.api;
        if is_same {
            return None;
        }
        let (own, others) = (parts(&self.fields), parts(&other.fields));
        let lacks = |of: &[(String, Vec<&[u8]>)], part: &(String, Vec<&[u8]>)| !of.contains(part);
        let only_own = own.iter().find(|part| lacks(&others, part));
        let differing = only_own.or_else(|| others.iter().find(|part| lacks(&own, part)));
        Some(differing.map_or_else(|| "header `accept`".into(), |(name, _)| name.clone()))
    }

    /// Whose answer it is.
    pub(crate) fn tenant(&self) -> Tenant {
        self.tenant
    }

    pub(crate) fn api(&self) -> Api {
        self.api
    }

    pub(crate) fn representation(&self) -> Representation {
        self.representation
    }

    pub(crate) fn wants_events(&self) -> bool {
        self.wants_events
    }

    /// How a top-level field of the body is treated; none if it simply counts.
    pub(crate) fn field(&self, name: &str) -> Option<api::Field> {
        self.api.field(name.as_bytes())
    }

    /// Whether a top-level field of the body is out of the key, with any value.
    pub(crate) fn ignores_field(&self, name: &str) -> bool {
        let outline = Outline::of(self.api, self.origin, self.rules.as_deref());
        outline.omits_name(name.as_bytes())
    }

    /// The fields of the key that come from the head, by name, in their order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        read_fields(&self.fields)
    }

    pub(crate) fn read<'b>(&self, body: &'b [u8]) -> Result<Body<'b>, Bypass> {
        let in_path = self.model.as_deref().map(str::as_bytes);
        if let Some(bypass) = in_path.and_then(outside::model) {
            return Err(bypass);
        }
        let rules = self.rules.as_deref();
        let body = Body::read(self.api, self.representation, rules, body)?;
        if let Some(rules) = rules
            && self.models(&body).any(|model| rules.bypasses_model(&model))
        {
            return Err(Bypass::Rule);
        }
        if let Some(most) = self.temperature_max {
            body.check_temperature(most)?;
        }
        Ok(body)
    }

    /// Every name by which a request asks for a model.
    fn models<'b>(&self, body: &'b Body<'_>) -> impl Iterator<Item = Cow<'b, str>> {
        let fields = ["model", "models"].into_iter();
        let fields = fields.filter_map(|name| body.root().get(name));
        let values = fields.flat_map(|value| core::iter::once(value).chain(value.elements()));
        let named = values.filter_map(|value| match value.string()? {
            Cow::Borrowed(name) => core::str::from_utf8(name).ok().map(Cow::Borrowed),
            Cow::Owned(name) => String::from_utf8(name).ok().map(Cow::Owned),
        });
        named.chain(self.model.clone().map(Cow::Owned))
    }

    pub(crate) fn exchange(&self, body: &Body<'_>) -> Exchange {
        self.hashed(body, KeyHasher::expecting).0
    }

    /// The only place where a request is hashed.
    fn hashed(
        &self,
        body: &Body<'_>,
        hasher: impl FnOnce(usize) -> KeyHasher,
    ) -> (Exchange, KeyHasher) {
        let shape = Shape {
            api: self.api,
            representation: body.representation(),
            parts: asked::parts(self.api, body.root()),
        };
        let (before, after) = self.fields.split_at(self.shape_at);
        let expected = self.fields.len() + SHAPE_BYTES + body.expected_bytes();
        let mut hasher = hasher(expected);
        hasher.write(before);
        hasher.field("shape", shape.name().as_bytes());
        // Some servers answer such a client with events because of its `accept`.
        if self.wants_events && shape.representation == Representation::Json {
            hasher.field("accept", b"text/event-stream");
        }
        hasher.write(after);
        let rules = self.rules.as_deref();
        let digest = hasher.finish_with("body", |out| body.write(self.origin, rules, out));
        let exchange = Exchange {
            key: Key {
                tenant: self.tenant,
                digest,
            },
            shape,
            control: self.control,
        };
        (exchange, hasher)
    }
}

/// Hides the content: parts of it are as secret as a credential.
impl core::fmt::Debug for Prepared {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "Prepared({:?})", self.api)
    }
}

/// The parts of a head by the names that people know them by, in order, with their values.
fn parts(fields: &[u8]) -> Vec<(String, Vec<&[u8]>)> {
    let mut parts: Vec<(String, Vec<&[u8]>)> = Vec::new();
    for (name, value) in read_fields(fields) {
        match name {
            // It follows the name of its header.
            "value" => parts
                .last_mut()
                .into_iter()
                .for_each(|(_, all)| all.push(value)),
            "header" => parts.push((
                format!("header `{}`", String::from_utf8_lossy(value)),
                Vec::new(),
            )),
            "tenant" => parts.push(("the credential".into(), alloc::vec![value])),
            "upstream" => parts.push(("the host".into(), alloc::vec![value])),
            other => parts.push((format!("the {other}"), alloc::vec![value])),
        }
    }
    parts
}
