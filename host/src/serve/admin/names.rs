//! Tenants and routes by the names that operators use.

use crate::exchange::answer::StoredHead;
use crate::serve::tenants::bytes32;
use reflex_llm::{Api, Tenant};
use std::collections::HashMap;

use super::audit::short;

/// The groups of tenants by the names that the configuration gives them.
#[derive(Debug, Default)]
pub(crate) struct Names {
    groups: HashMap<[u8; 32], String>,
}

impl Names {
    pub(crate) fn new(groups: &[String]) -> Self {
        let group = |name: &String| (Tenant::of_group(name).0, name.clone());
        Self {
            groups: groups.iter().map(group).collect(),
        }
    }

    /// The tenant of 64 digits, or of a group's name.
    pub(super) fn tenant(&self, text: &str) -> Option<[u8; 32]> {
        let is_it = |(_, name): &(_, &String)| *name == text;
        let group = self.groups.iter().find(is_it);
        group.map(|(tenant, _)| *tenant).or_else(|| bytes32(text))
    }

    /// A group's name, or the beginning of the tenant's hash.
    pub(super) fn of_tenant(&self, tenant: &[u8; 32]) -> String {
        let group = self.groups.get(tenant);
        group.cloned().unwrap_or_else(|| short(tenant))
    }
}

/// The API that an answer is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Route {
    Api(Api),
    /// The answer was stored without a shape, or by a release that did not note it.
    Unknown,
}

const UNKNOWN: &str = "unknown";

impl Route {
    pub(super) fn of(stored: Option<&StoredHead<'_>>) -> Self {
        let shape = stored.and_then(StoredHead::shape);
        shape.map_or(Self::Unknown, |shape| Self::Api(shape.api))
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            UNKNOWN => Some(Self::Unknown),
            name => Api::from_name(name).map(Self::Api),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Api(api) => api.name(),
            Self::Unknown => UNKNOWN,
        }
    }
}

/// All names of routes, for people.
pub(super) fn routes() -> String {
    let names = Api::ALL.iter().map(|api| api.name());
    let names: Vec<_> = names.chain([UNKNOWN]).collect();
    names.join(", ")
}
