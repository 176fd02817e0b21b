//! The tenant of a request: its credential, or the name from a trusted gateway.

pub(crate) mod group;

use core::fmt;

use crate::key::{Context, KeyHasher};
use crate::request::query;
use crate::{Anonymous, Api, Head, Policy};

/// The owner of answers, as a hash, so that credentials are neither stored nor logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(pub [u8; 32]);

/// Headers that carry credentials. If a request has several, the tenant is all of them together.
pub(crate) const CREDENTIALS: &[&str] =
    &["authorization", "x-api-key", "api-key", "x-goog-api-key"];

/// Headers that choose among the accounts of a credential.
pub(crate) const SCOPES: &[&str] = &["openai-organization", "openai-project"];

impl Tenant {
    /// The tenant that the members of a group are together.
    pub fn of_group(name: &str) -> Self {
        let mut hasher = KeyHasher::for_few(&Context::TENANT);
        hasher
            .field("kind", b"group")
            .field("name", name.as_bytes());
        Self(hasher.finish())
    }

    /// The tenant of requests with these headers, names in lower case; none if they name none.
    pub fn named_by(headers: &[(&str, &[u8])], tenant_header: Option<&str>) -> Option<Self> {
        // Neither path nor provider is part of a tenant; any values do.
        let head = Head {
            method: "POST",
            upstream: "",
            path: "/v1/chat/completions",
            headers,
        };
        let policy = Policy {
            tenant_header,
            ..Policy::default()
        };
        Self::of(&head, &policy, Api::ChatCompletions)
    }

    /// Reads a tenant as operators write it: 64 digits, 0 to 9 and a to f, so that each tenant has
    /// one spelling. None for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return None;
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(bytes))
    }

    /// The tenant of a request; none if it names none and anonymous requests may not share.
    ///
    /// The trusted header, if configured, names the tenant in place of the credential, so that a
    /// team may rotate its keys. A request without it belongs to its credential.
    pub(crate) fn of(head: &Head<'_>, policy: &Policy<'_>, api: Api) -> Option<Self> {
        if let Some(trusted) = policy.tenant_header
            && head.values(trusted).any(names_a_tenant)
        {
            return Some(Self::made_of("trusted", head, &[trusted], None));
        }
        let mut headers = CREDENTIALS.iter().flat_map(|name| head.values(name));
        let mut parameters = query::credentials(api, head.path);
        if headers.any(names_a_tenant) || parameters.any(|(_, value)| names_a_tenant(value)) {
            let api = Some(api);
            return Some(Self::made_of("credential", head, CREDENTIALS, api));
        }
        match policy.anonymous {
            Anonymous::Bypass => None,
            Anonymous::Share => Some(Self::made_of("anonymous", head, &[], None)),
        }
    }

    /// Values go in as sent, repeated ones each, under the names they came by: the same secret
    /// in two headers is two tenants, and no kind of tenant can pose as another.
    ///
    /// With an API, the credentials that it takes in the query count, too. Their names begin with
    /// a question mark here, as no header's does.
    fn made_of(kind: &str, head: &Head<'_>, names: &[&str], api: Option<Api>) -> Self {
        let mut hasher = KeyHasher::for_few(&Context::TENANT);
        hasher.field("kind", kind.as_bytes());
        let scopes = if kind == "credential" { SCOPES } else { &[] };
        for name in names.iter().chain(scopes) {
            for value in head.values(name).filter(|value| names_a_tenant(value)) {
                hasher.field(name, value);
            }
        }
        let parameters = api.map(|api| query::credentials(api, head.path));
        for (name, value) in parameters.into_iter().flatten() {
            if names_a_tenant(value) {
                hasher.field(name, value);
            }
        }
        Self(hasher.finish())
    }
}

/// An empty credential is none, and so is the word `Bearer` alone: a client with an empty API key
/// sends that.
fn names_a_tenant(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    !value.is_empty() && !value.eq_ignore_ascii_case(b"bearer")
}

/// Shows nothing, like keys.
impl fmt::Debug for Tenant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Tenant(..)")
    }
}
