//! A tenant's name as operators write it, so that a configuration names tenants without holding
//! their credentials.

use reflex_llm::Tenant;

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
