//! Who is who: a tenant's name as operators write it, so that a configuration names tenants
//! without holding their credentials.

use reflex_llm::{Head, Policy, Tenant};

/// The tenant of requests with these headers, names in lower case; none if they name nobody.
pub fn of(headers: &[(&str, &[u8])], tenant_header: Option<&str>) -> Option<Tenant> {
    // Neither path nor provider is part of a tenant; there must only be some.
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
    let candidate = reflex_llm::candidate(&head, &policy).ok()?;
    Some(candidate.tenant())
}

/// The tenant that header lines name, such as `authorization: Bearer KEY`.
///
/// # Errors
///
/// One line that says what is wrong, without what was given.
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
    of(&headers, tenant_header).ok_or_else(|| "none of the headers names anybody".into())
}

/// 64 digits, 0 to 9 and a to f.
pub fn text(tenant: &Tenant) -> String {
    tenant.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The way back.
pub fn parse(text: &str) -> Option<Tenant> {
    bytes32(text).map(Tenant)
}

/// 32 bytes from 64 digits in lower case: one spelling for each.
pub(crate) fn bytes32(text: &str) -> Option<[u8; 32]> {
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
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_written_and_read() {
        let tenant = of_lines("Authorization: Bearer k\n\n", None).expect("somebody");
        assert_eq!(parse(&text(&tenant)), Some(tenant));
        assert_eq!(of(&[("authorization", b"Bearer k")], None), Some(tenant));
        let trusted = of_lines("x-team: red", Some("x-team")).expect("a team");
        assert_ne!(trusted, tenant);
        for wrong in ["", "sk-secret", "accept: */*", "authorization: Bearer"] {
            let error = of_lines(wrong, None).expect_err(wrong);
            assert!(!error.contains("secret"), "{error}");
        }
        for wrong in ["", "0", &"0".repeat(63), &"A".repeat(64), &"0".repeat(65)] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
