//! Whether a request's path stays below the path of the provider.

/// Whether no reading of the path climbs above its start. Servers differ in what they decode before
/// they resolve `..`, so everything that any server may read as a dot or a slash counts as one.
pub(super) fn stays_below(path: &str) -> bool {
    // The star of OPTIONS cannot be appended to a path.
    if !path.starts_with('/') {
        return false;
    }
    let mut path = path.to_ascii_lowercase();
    // Encoded twice and more. Each round makes it shorter.
    while path.contains("%25") {
        path = path.replace("%25", "%");
    }
    let path = path
        .replace("%2e", ".")
        .replace("%2f", "/")
        .replace("%5c", "/")
        .replace('\\', "/");
    let mut depth = 0_u32;
    for segment in path.split('/') {
        // Some servers read the text after a semicolon as parameters of the segment.
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return false,
            },
            _ => depth += 1,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::stays_below;

    #[test]
    fn no_path_climbs_above_its_start() {
        for path in [
            "/../admin",
            "/..",
            "/v1/../../admin",
            "/v1//../../admin",
            "/./../admin",
            "/%2e%2e/admin",
            "/.%2E/admin",
            "/%252e%252e/admin",
            "/%25252e./admin",
            "/..%2fadmin",
            "/v1%2f..%2f..%2fadmin",
            "/..%5cadmin",
            "/..\\admin",
            "/..;a=1/admin",
            "*",
            "",
        ] {
            assert!(!stays_below(path), "{path}");
        }
        for path in [
            "/",
            "/v1/chat/completions",
            "/v1/../v2",
            "/v1/./models",
            "/a..b/..c/...",
            "/v1/files/%2E%2Ex",
            "/v1/models/50%25",
        ] {
            assert!(stays_below(path), "{path}");
        }
    }
}
