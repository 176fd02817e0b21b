//! Tenants that share their answers because the operator names them as one group.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::Tenant;

/// More groups than are written by hand are a mistake.
const GROUPS_MAX: usize = 1000;
const MEMBERS_MAX: usize = 10_000;

/// The groups of tenants that share answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    names: Vec<String>,
    /// Each member, and the tenant that its group is.
    members: BTreeMap<Tenant, Tenant>,
}

impl Groups {
    /// Adds a group: tenants written as [`Tenant::parse`] reads them, and tenants that a gateway
    /// names by these values of the trusted header.
    ///
    /// # Errors
    ///
    /// One line that says what is wrong, without the tenants as written: a credential may stand
    /// there by mistake.
    pub fn add(
        &mut self,
        name: &str,
        tenants: &[String],
        trusted: &[String],
        tenant_header: Option<&str>,
    ) -> Result<(), String> {
        if self.names.len() == GROUPS_MAX {
            return Err(format!("group `{name}`: more than {GROUPS_MAX} groups"));
        }
        if name.is_empty() || self.names.iter().any(|other| other == name) {
            return Err(format!("group: `{name}` is no name, or that of two groups"));
        }
        self.names.push(name.into());
        if tenants.len().saturating_add(trusted.len()) > MEMBERS_MAX {
            return Err(format!("group `{name}`: more than {MEMBERS_MAX} tenants"));
        }
        let mut members = Vec::new();
        for digits in tenants {
            members.push(Tenant::parse(digits).ok_or_else(|| {
                format!(
                    "group `{name}`: tenants are 64 digits each, as `reflex-edge tenant` prints"
                )
            })?);
        }
        for value in trusted {
            let header = tenant_header
                .ok_or_else(|| format!("group `{name}`: trusted needs a tenant_header"))?;
            let tenant = Tenant::named_by(&[(header, value.as_bytes())], Some(header));
            members.push(
                tenant.ok_or_else(|| format!("group `{name}`: trusted: `{value}` is no tenant"))?,
            );
        }
        for tenant in members {
            if self
                .members
                .insert(tenant, Tenant::of_group(name))
                .is_some()
            {
                return Err(format!(
                    "group `{name}`: one of its tenants is named twice, or in two groups"
                ));
            }
        }
        Ok(())
    }

    /// Whether no tenants share answers.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The tenant under which a tenant's answers are kept: its group's, or itself.
    pub fn of(&self, tenant: Tenant) -> Tenant {
        self.members.get(&tenant).copied().unwrap_or(tenant)
    }

    /// Each member, and the tenant that its group is.
    pub fn into_members(self) -> impl Iterator<Item = (Tenant, Tenant)> {
        self.members.into_iter()
    }
}
