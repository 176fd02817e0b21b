//! The query of a request: few names, whose values need no escapes.

use super::refusal::Refusal;
use axum::http::Uri;

/// Calls `take` with each name and its value.
///
/// # Errors
///
/// `take` knows no such name, or no such value of it.
pub(super) fn read(
    uri: &Uri,
    mut take: impl FnMut(&str, &str) -> Option<()>,
) -> Result<(), Refusal> {
    let pairs = uri.query().unwrap_or_default().split('&');
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
        let why = "the query has a name, or a value, that is none of this path";
        take(name, value).ok_or_else(|| Refusal::bad("query", why))?;
    }
    Ok(())
}

/// The value of a flag, if the name is its own.
pub(super) fn flag(is_its_name: bool, value: &str) -> Option<bool> {
    match value {
        "true" if is_its_name => Some(true),
        "false" if is_its_name => Some(false),
        _ => None,
    }
}
