//! Which model a request asks for, for operators' rules about models. Keys have it anyway: path
//! and body are in them.

use alloc::string::String;

use crate::json::Value;
use crate::query;

/// The longest name that is told. Providers' own stay below 100.
pub const MODEL_BYTES_MAX: usize = 256;

/// The model's name, by the path or else by the body.
pub(crate) fn named(in_path: Option<&str>, body: Value<'_>) -> Option<String> {
    let name = match in_path {
        Some(name) => name.into(),
        None => {
            let name = body.get("model")?.string()?.into_owned();
            String::from_utf8(name).ok()?
        }
    };
    (!name.is_empty() && name.len() <= MODEL_BYTES_MAX).then_some(name)
}

/// What follows `deployments`, as at Azure, or stands before a method, as at Google.
pub(crate) fn in_path(path: &str) -> Option<&str> {
    let (path, _) = query::split(path);
    let mut segments = path.split('/');
    if segments.any(|segment| segment == "deployments") {
        return segments.next();
    }
    let last = path.rsplit('/').next()?;
    last.split_once(':').map(|(name, _)| name)
}
