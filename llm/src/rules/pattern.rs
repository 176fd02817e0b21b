//! The patterns of the operator's rules: text in which each `*` stands for any text.

use alloc::vec::Vec;

/// Whether a text matches a pattern, in which each `*` stands for any text.
pub fn is_like(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    // The first match is enough for each part except the last: it leaves the most text for the
    // rest.
    for part in parts {
        match text.split_once(part) {
            Some((_, after)) => text = after,
            None => return false,
        }
    }
    text.ends_with(last)
}

/// The same without regard to the case of ASCII letters, for rules that decide whether a request is
/// cached: some servers ignore the case in paths (`/Private`) and in model names.
pub fn is_like_in_any_case(pattern: &str, text: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let [pattern, text] = [pattern, text].map(str::to_ascii_lowercase);
    is_like(&pattern, &text)
}

/// Whether a request of this path and model is one of those that a rule with these patterns is for.
/// A pattern that is not there is for all.
pub(crate) fn is_for(
    (path_pattern, model_pattern): (Option<&str>, Option<&str>),
    path: &str,
    model: Option<&str>,
) -> bool {
    path_pattern.is_none_or(|it| is_like_in_any_case(it, path))
        && model_pattern.is_none_or(|it| model.is_some_and(|model| is_like_in_any_case(it, model)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_stars_and_nothing_else() {
        let check = |pattern: &str, text: &str, like: bool| {
            assert_eq!(is_like(pattern, text), like, "{pattern} {text}");
        };
        check("gpt-5", "gpt-5", true);
        check("gpt-5", "gpt-5-mini", false);
        check("gpt-5*", "gpt-5-mini", true);
        check("*mini", "gpt-5-mini", true);
        check("*mini", "gpt-5-mini-2", false);
        check("*", "", true);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "a-c-b", false);
        check("a*a", "a", false);
        check("*/embeddings", "/v1/embeddings", true);
        check("g?t", "gpt", false);
        check("/Private/*", "/private/a", false);
        assert!(is_like_in_any_case("/Private/*", "/pRIVATE/a"));
    }
}
