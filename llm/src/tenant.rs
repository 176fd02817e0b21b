//! Whose answer it is: the request's credential, or what a trusted gateway says.

use core::fmt;

use crate::{Anonymous, Head, KeyHasher, Policy};

/// Who may see an answer: a hash, so that credentials are neither stored nor logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(pub [u8; 32]);

/// Headers that say who asks. A request may carry several; then it is all of them together.
pub(crate) const CREDENTIALS: &[&str] =
    &["authorization", "x-api-key", "api-key", "x-goog-api-key"];

/// Headers that choose among what a credential gives access to.
const SCOPES: &[&str] = &["openai-organization", "openai-project"];

impl Tenant {
    /// The tenant of a request; none if nobody is named and nobody may share.
    ///
    /// The trusted header, where there is one, stands for the caller in place of the credential,
    /// so that a team may rotate its keys. A request that came without it is the credential's.
    pub(crate) fn of(head: &Head<'_>, policy: &Policy<'_>) -> Option<Self> {
        if let Some(trusted) = policy.tenant_header
            && head.values(trusted).any(names_somebody)
        {
            return Some(Self::from_headers("trusted", head, &[trusted]));
        }
        let mut credentials = CREDENTIALS.iter().flat_map(|name| head.values(name));
        if credentials.any(names_somebody) {
            return Some(Self::from_headers("credential", head, CREDENTIALS));
        }
        match policy.anonymous {
            Anonymous::Bypass => None,
            Anonymous::Share => Some(Self::from_headers("anonymous", head, &[])),
        }
    }

    /// Values go in as sent, repeated ones each, under the names they came by: the same secret
    /// in two headers is two tenants, and no kind of tenant can pose as another.
    fn from_headers(kind: &str, head: &Head<'_>, names: &[&str]) -> Self {
        let mut hasher = KeyHasher::derive("reflex-edge tenant v1");
        hasher.field("kind", kind.as_bytes());
        let scopes = if kind == "credential" { SCOPES } else { &[] };
        for name in names.iter().chain(scopes) {
            for value in head.values(name).filter(|value| names_somebody(value)) {
                hasher.field(name, value);
            }
        }
        Self(hasher.finish())
    }
}

/// An empty credential is none, and so is the word `Bearer` alone, which is what a client sends
/// whose API key is the empty string.
fn names_somebody(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    !value.is_empty() && !value.eq_ignore_ascii_case(b"bearer")
}

/// Says nothing, as keys do.
impl fmt::Debug for Tenant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Tenant(..)")
    }
}
