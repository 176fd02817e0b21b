//! A tenant's name as operators write it, so that a configuration names tenants without holding
//! their credentials.

use reflex_llm::Tenant;
use std::collections::HashMap;

/// Bytes of a hash that are shown where it is shortened: enough to tell tenants apart, and the beginning
/// of what `reflex-edge tenant` prints.
const SHORT_BYTES: usize = 6;

/// The groups of tenants by the names that a configuration gives them.
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
    pub(crate) fn tenant(&self, text: &str) -> Option<[u8; 32]> {
        let is_it = |(_, name): &(_, &String)| *name == text;
        let group = self.groups.iter().find(is_it);
        group.map(|(tenant, _)| *tenant).or_else(|| bytes32(text))
    }

    /// A group's name, or the beginning of the tenant's hash.
    pub(crate) fn of_tenant(&self, tenant: &[u8; 32]) -> String {
        let group = self.groups.get(tenant);
        group.cloned().unwrap_or_else(|| short(tenant))
    }
}

/// A hash as the log and lists show it: 12 of its 64 digits.
pub(crate) fn short(bytes: &[u8; 32]) -> String {
    let short = bytes.iter().take(SHORT_BYTES);
    short.map(|byte| format!("{byte:02x}")).collect()
}

/// The tenant that header lines name, such as `authorization: Bearer KEY`.
///
/// # Errors
///
/// One line that says what is wrong, without the input.
pub fn of_lines(text: &str, tenant_header: Option<&str>) -> Result<Tenant, String> {
    let mut headers = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (name, value) = line
            .split_once(':')
            .ok_or("each line is a header, such as `authorization: Bearer KEY`")?;
        headers.push((name.trim().to_ascii_lowercase(), value.trim()));
    }
    let headers: Vec<(&str, &[u8])> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    Tenant::named_by(&headers, tenant_header)
        .ok_or_else(|| "none of the headers names a tenant".into())
}

/// 64 digits, 0 to 9 and a to f.
pub fn text(tenant: &Tenant) -> String {
    tenant.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 32 bytes from 64 digits in lower case: one spelling for each.
pub(crate) fn bytes32(text: &str) -> Option<[u8; 32]> {
    Tenant::parse(text).map(|Tenant(bytes)| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_shown_by_its_group_or_the_beginning_of_its_hash() {
        let names = Names::new(&["research".into()]);
        let group = Tenant::of_group("research").0;
        assert_eq!(names.of_tenant(&group), "research");
        assert_eq!(names.of_tenant(&[0xab; 32]), "abababababab");
        assert_eq!(names.tenant("research"), Some(group));
        assert_eq!(names.tenant(&"ab".repeat(32)), Some([0xab; 32]));
        assert_eq!(names.tenant("abababababab"), None);
    }

    #[test]
    fn a_tenant_is_written_and_read() {
        let tenant = of_lines("Authorization: Bearer k\n\n", None).expect("a tenant");
        assert_eq!(Tenant::parse(&text(&tenant)), Some(tenant));
        let named = Tenant::named_by(&[("authorization", b"Bearer k")], None);
        assert_eq!(named, Some(tenant));
        let trusted = of_lines("x-team: red", Some("x-team")).expect("a team");
        assert_ne!(trusted, tenant);
        for wrong in ["", "sk-secret", "accept: */*", "authorization: Bearer"] {
            let error = of_lines(wrong, None).expect_err(wrong);
            assert!(!error.contains("secret"), "{error}");
        }
        for wrong in ["", "0", &"0".repeat(63), &"A".repeat(64), &"0".repeat(65)] {
            assert_eq!(Tenant::parse(wrong), None, "{wrong}");
        }
    }
}
