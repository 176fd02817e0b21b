//! The grant of a component: which tenants' entries, under which rules, and how much.

#[cfg_attr(
    not(feature = "component"),
    allow(dead_code, reason = "the calls of guests")
)]
pub(crate) mod ctx;
pub(crate) mod guest_limits;

mod allowance;
#[cfg_attr(
    not(feature = "component"),
    allow(dead_code, reason = "the calls of guests")
)]
mod lookups;
mod refusal;

pub use allowance::Allowance;
pub use ctx::ReflexCtx;
pub use guest_limits::GuestLimits;
pub use lookups::Lookups;
pub use refusal::{Error, Refusal};

use reflex_llm::{Anonymous, Lifetimes, PathRule, Policy, Rules, Tenant};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

/// What the operator lets one component do; every call of the component is checked against it. A
/// clone is the same grant: all instances with it share its quota.
///
/// ```
/// use reflex_host::Tenant;
/// use reflex_host::grant::Grant;
/// use std::num::NonZeroU32;
///
/// let grant = Grant::new("summaries")
///     .for_tenant(Tenant::of_group("research"))
///     .bytes_max(64 << 20)
///     .inserts_per_second_max(NonZeroU32::new(100).expect("not 0"));
/// let looker_on = Grant::new("summaries").read_only();
/// # let _ = (grant, looker_on);
/// ```
#[derive(Debug, Clone)]
pub struct Grant {
    /// Mixed into every key, so that no component can name another's entries.
    pub namespace: String,
    /// Whose entries.
    pub tenants: Tenants,
    /// The access to these entries.
    pub access: Access,
    /// How much may be stored, and how fast.
    pub allowance: Arc<Allowance>,
    /// Whether requests without a credential share their answers.
    pub anonymous: Anonymous,
    /// A header that names the tenant and that clients cannot set themselves, in lower case.
    pub tenant_header: Option<String>,
    /// Longest request body or prompt that a key is made of, in bytes.
    pub request_bytes_max: u64,
    /// Requests that ask for a higher temperature are not cached.
    pub temperature_max: Option<f64>,
    /// Which API answers at paths whose end names none, or a wrong one: the first rule that applies
    /// counts.
    pub paths: Arc<[PathRule]>,
    /// Which parts of a request are out of the key, in it, or a reason to bypass.
    pub rules: Arc<Rules>,
    /// For each tenant of a group, the tenant under which its answers are kept.
    pub groups: Arc<HashMap<Tenant, Tenant>>,
    /// How long entries live.
    pub lifetimes: Arc<Lifetimes>,
    /// The misses of the instance with this grant. Each clone begins without any; hosts do not set
    /// this.
    pub lookups: Lookups,
}

/// Whose entries a component may name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tenants {
    /// The component names the tenant in each call. For components that serve many tenants, and are
    /// trusted not to confuse them.
    #[default]
    ChosenByGuest,
    /// This tenant, whatever credentials the requests have.
    Only(Tenant),
}

/// The access of a component to entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// Look up, insert, remove.
    #[default]
    ReadWrite,
    /// Look up.
    ReadOnly,
}

impl Default for Grant {
    /// Namespace `default`, and no limit but that of requests: 1 MiB.
    fn default() -> Self {
        Self {
            namespace: "default".into(),
            tenants: Tenants::default(),
            access: Access::default(),
            allowance: Arc::default(),
            anonymous: Anonymous::default(),
            tenant_header: None,
            request_bytes_max: 1 << 20,
            temperature_max: None,
            paths: Arc::default(),
            rules: Arc::default(),
            groups: Arc::default(),
            lifetimes: Arc::default(),
            lookups: Lookups::default(),
        }
    }
}

impl Grant {
    /// Everything in this namespace.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            ..Self::default()
        }
    }

    /// Only the entries of this tenant.
    #[must_use]
    pub fn for_tenant(self, tenant: Tenant) -> Self {
        Self {
            tenants: Tenants::Only(tenant),
            ..self
        }
    }

    /// Only lookups.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self {
            access: Access::ReadOnly,
            ..self
        }
    }

    /// Upper bound of the bytes of live entries: see [`Allowance`].
    #[must_use]
    pub fn bytes_max(self, bytes: u64) -> Self {
        let allowance = Allowance::new(Some(bytes), self.allowance.inserts_per_second_max());
        Self {
            allowance: Arc::new(allowance),
            ..self
        }
    }

    /// Upper bound of inserts per second: see [`Allowance`].
    #[must_use]
    pub fn inserts_per_second_max(self, inserts: NonZeroU32) -> Self {
        let allowance = Allowance::new(self.allowance.bytes_max(), Some(inserts));
        Self {
            allowance: Arc::new(allowance),
            ..self
        }
    }

    /// The rules of this grant in the words of `reflex-llm`.
    pub(crate) fn policy(&self) -> Policy<'_> {
        Policy {
            anonymous: self.anonymous(),
            tenant_header: self.tenant_header.as_deref(),
            temperature_max: self.temperature_max,
            paths: &self.paths,
            rules: Some(&self.rules),
            ..Policy::default()
        }
    }

    /// If the grant fixes the tenant, requests need no credential.
    pub(crate) fn anonymous(&self) -> Anonymous {
        match self.tenants {
            Tenants::ChosenByGuest => self.anonymous,
            Tenants::Only(_) => Anonymous::Share,
        }
    }

    /// The tenant under which a tenant's answers are kept: the grant's only one, its group's, or
    /// itself.
    pub(crate) fn group_of(&self, tenant: Tenant) -> Tenant {
        match self.tenants {
            Tenants::ChosenByGuest => self.groups.get(&tenant).copied().unwrap_or(tenant),
            Tenants::Only(only) => only,
        }
    }

    /// Whether [`group_of`](Self::group_of) ever says another.
    #[cfg(feature = "http")]
    pub(crate) fn has_groups(&self) -> bool {
        self.tenants != Tenants::ChosenByGuest || !self.groups.is_empty()
    }

    /// The tenant that a guest names.
    pub(crate) fn tenant(&self, named: &[u8]) -> Result<Tenant, Error> {
        if let Tenants::Only(only) = self.tenants
            && named.is_empty()
        {
            return Ok(only);
        }
        let tenant = Tenant(bytes32(named, "tenant")?);
        match self.tenants {
            Tenants::Only(only) if tenant != only => Err(self.refuse(Refusal::Tenant)),
            _ => Ok(tenant),
        }
    }

    /// Whether something may be stored or removed.
    pub(crate) fn check_write(&self) -> Result<(), Error> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(self.refuse(Refusal::ReadOnly)),
        }
    }

    /// Counts and logs a refusal, and returns the guest's error.
    pub(crate) fn refuse(&self, refusal: Refusal) -> Error {
        self.note(refusal);
        let reason = refusal.reason();
        match refusal {
            Refusal::ReadOnly | Refusal::Tenant => Error::Denied(reason.into()),
            Refusal::Bytes | Refusal::Entries | Refusal::Inserts => {
                Error::QuotaExceeded(reason.into())
            }
            Refusal::Open => Error::Unavailable("too many open entries: drop some".into()),
            // Only the cache knows the allowed size.
            Refusal::Size => Error::Invalid(reason.into()),
        }
    }

    /// Counts and logs that something was refused.
    pub(crate) fn note(&self, refusal: Refusal) {
        self.allowance.count(refusal);
        let (namespace, reason) = (&self.namespace, refusal.reason());
        tracing::debug!(namespace, reason, "refused to a component");
    }
}

pub(crate) fn bytes32(bytes: &[u8], what: &str) -> Result<[u8; 32], Error> {
    <[u8; 32]>::try_from(bytes).map_err(|_| {
        Error::Invalid(format!(
            "{what}: {} bytes, exactly 32 are needed",
            bytes.len()
        ))
    })
}
