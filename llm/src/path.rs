//! The operator's rules for APIs at paths that do not show which one it is.

use alloc::format;
use alloc::string::String;

use crate::{Api, is_like, query};

/// One rule of the operator's: the first that applies counts, and where none does the end of the
/// path tells the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    /// The path that it is for, without query; `*` stands for any text.
    pub path: String,
    /// Which API answers there. `None`: requests pass by.
    pub api: Option<Api>,
}

/// What operators write for no API.
const NONE: &str = "none";

impl PathRule {
    /// Reads a rule as operators write it: a pattern, and an [API's name](Api::name) or `none`.
    ///
    /// # Errors
    ///
    /// One line that says what is wrong with it.
    pub fn parse(path: &str, api: &str) -> Result<Self, String> {
        // A query is not looked at, and a rule that can never apply is a mistake.
        if !path.starts_with(['/', '*']) || path.contains(['?', '#']) {
            return Err(format!(
                "path: `{path}` is not a path without query that begins with a slash or a star"
            ));
        }
        let api = match api {
            NONE => None,
            name => match Api::from_name(name) {
                None => return Err(format!("path: `{path}`: `{name}` is no API, nor `none`")),
                // The model and what is asked of it stand in such a path.
                Some(api) if api.is_in_path() => {
                    return Err(format!(
                        "path: `{path}`: {name} is only at paths that name the model"
                    ));
                }
                Some(api) => Some(api),
            },
        };
        Ok(Self {
            path: path.into(),
            api,
        })
    }
}

/// The API that answers at a path (with or without query), if any does.
pub(crate) fn api_at(path: &str, rules: &[PathRule]) -> Option<Api> {
    let (bare, _) = query::split(path);
    let rule = rules.iter().find(|rule| is_like(&rule.path, bare));
    match rule {
        // As everywhere, what is no path passes by.
        Some(rule) => rule.api.filter(|_| bare.starts_with('/')),
        None => Api::of_path(path),
    }
}
