//! By what a repeated request is recognised before its body is read again.
//!
//! Under one [`Policy`](crate::Policy), what [`Candidate::examine`] makes of a body depends on the
//! fields that the key takes from the head, and on three decisions that the head has led to. The
//! client's instructions to the cache are in neither: [`Candidate::control`] has them for each
//! request.
//!
//! Credentials never stand in an identity. The tenant's hash stands for those that name the tenant.
//! Any other header or query may be one as well, and cookies are, so only the values of parts that
//! are known to be none go in as they are; of others, a hash.

use alloc::vec::Vec;

use crate::key::Context;
use crate::request::fields::Field;
use crate::request::headers;
use crate::{Candidate, KeyHasher, Prepared, Representation, Shape};

/// Headers whose values do not identify the caller.
const TOLD_HEADERS: [&str; 7] = [
    "accept",
    "accept-language",
    "anthropic-beta",
    "anthropic-version",
    "content-language",
    "content-type",
    "openai-beta",
];

/// Parameters of a query whose values do not identify the caller.
const TOLD_PARAMETERS: [&str; 3] = ["api-version", "api_version", "beta"];

impl Candidate<'_> {
    /// Writes what of the head decides how a body is [examined](Self::examine): two candidates under
    /// one [`Policy`](crate::Policy) that write the same bytes give equal bodies the same key, shape
    /// and model, or the same bypass. Meant for a memo in this process; the bytes have no stable
    /// form, and take some 150 bytes plus the headers that count.
    pub fn write_identity(&self, out: &mut Vec<u8>) {
        let shape = Shape::new(self.api, self.representation);
        let wants_events = headers::wants_events_only(self.head.headers);
        let mut identity = Identity::begin(out, shape, wants_events);
        self.fields(|field, value| identity.add(field, value));
    }
}

impl Prepared {
    /// The same of a head that was saved.
    pub fn write_identity(&self, out: &mut Vec<u8>) {
        let shape = Shape::new(self.api(), self.representation());
        let mut identity = Identity::begin(out, shape, self.wants_events());
        // The rules stand behind the fields, and are the same under one policy.
        let fields = self
            .fields()
            .map_while(|(name, value)| Some((Field::of(name)?, value)));
        fields.for_each(|(field, value)| identity.add(field, value));
    }
}

/// An identity that is being written.
struct Identity<'o> {
    out: &'o mut Vec<u8>,
    /// Whether the value that follows identifies no caller.
    is_told: bool,
}

impl<'o> Identity<'o> {
    fn begin(out: &'o mut Vec<u8>, shape: Shape, wants_events: bool) -> Self {
        write(out, shape.name().as_bytes());
        // The name says both only for APIs that stream.
        let is_stream = shape.representation == Representation::Sse;
        out.extend_from_slice(&[u8::from(is_stream), u8::from(wants_events)]);
        Self { out, is_told: true }
    }

    fn add(&mut self, field: Field, value: &[u8]) {
        self.is_told = match field {
            Field::Query => names_no_caller(value),
            Field::Header => is_told_header(value),
            Field::Value => self.is_told,
            Field::Tenant | Field::Upstream | Field::Method | Field::Path => true,
        };
        // The name of a header is told whatever its value.
        match self.is_told || field == Field::Header {
            true => {
                self.out.push(field as u8);
                write(self.out, value);
            }
            false => {
                self.out.push(UNTOLD | field as u8);
                self.out.extend_from_slice(&untold(value));
            }
        }
    }
}

/// Set in the tag of a field of which the hash follows.
const UNTOLD: u8 = 0x80;

fn write(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    out.extend_from_slice(value);
}

fn is_told_header(name: &[u8]) -> bool {
    TOLD_HEADERS.iter().any(|told| told.as_bytes() == name)
}

/// Whether a query has only parameters that do not identify the caller.
fn names_no_caller(query: &[u8]) -> bool {
    let mut parameters = query.split(|&byte| byte == b'&');
    parameters.all(|parameter| {
        let name = parameter.split(|&byte| byte == b'=').next();
        let is_told = |told: &&str| name == Some(told.as_bytes());
        // To some readers a semicolon ends a parameter: another one may stand behind it.
        !parameter.contains(&b';') && TOLD_PARAMETERS.iter().any(is_told)
    })
}

fn untold(value: &[u8]) -> [u8; 32] {
    let mut hasher = KeyHasher::for_few(&Context::UNTOLD);
    hasher.field("value", value);
    hasher.finish()
}
