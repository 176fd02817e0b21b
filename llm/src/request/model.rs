//! The model of a request, for operators' rules about models. Keys cover it anyway, with path and
//! body.

use alloc::borrow::Cow;
use alloc::string::String;

use crate::json::Value;
use crate::rules::path::Readings;

/// The longest name that is reported. Providers' own stay below 100.
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

/// The name after `deployments`, as at Azure, or before a method, as at Google. All spellings of a
/// path give the same name.
pub(crate) fn in_path(path: &str) -> Option<String> {
    let readings = Readings::of(path)?;
    let mut segments = readings.segments();
    if segments.any(|segment| segment.eq_ignore_ascii_case("deployments")) {
        return segments.next().map(Cow::into_owned);
    }
    let last = readings.segments().next_back()?;
    last.split_once(':').map(|(name, _)| name.into())
}
