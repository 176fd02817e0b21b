//! The query of a request: all of it counts, except parameters whose meaning an API defines, and those
//! that the operator names.
//!
//! Google's APIs take credentials and the representation there, beside parameters that count.
//! Nothing is decoded: a request with a parameter in an unusual spelling bypasses, because the
//! parameter might be one of these.

use alloc::borrow::Cow;
use alloc::string::String;

use crate::api::Query;
use crate::rules::pattern::{is_like, is_like_in_any_case};
use crate::{Api, Bypass, Representation};

/// Credentials: the API key, and OAuth's token under Google's two names.
const CREDENTIALS: [&str; 3] = ["?access_token", "?key", "?oauth_token"];

/// Says how the answer is written.
const REPRESENTATION: [&str; 2] = ["alt", "$alt"];

/// Parameters of a query that identify the caller at gateways, in signed links and in other APIs.
/// Google's are in [`CREDENTIALS`].
const NAMES_OF_CALLERS: [&str; 13] = [
    "api-key",
    "api_key",
    "apikey",
    "auth",
    "auth_token",
    "authorization",
    "code",
    "sig",
    "signature",
    "subscription-key",
    "tenant",
    "token",
    "x-amz-Credential",
];

/// Parts a path as sent into path and query.
pub(crate) fn split(path: &str) -> (&str, Option<&str>) {
    // Paths are short and this is called often, so a plain loop is fastest.
    match path.bytes().position(|byte| byte == b'?') {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    }
}

/// The representation that a query asks for.
///
/// # Errors
///
/// [`Bypass::Query`]
pub(crate) fn representation(api: Api, path: &str) -> Result<Representation, Bypass> {
    let Query::Google { streams } = api.row().query else {
        return Ok(Representation::Json);
    };
    let mut chosen = None;
    for (name, value) in parameters(path) {
        // `;` parts parameters for some readers.
        if name.contains(['%', '+', ';']) || value.contains(';') {
            return Err(Bypass::Query);
        }
        if REPRESENTATION.contains(&name) {
            let representation = match value {
                "json" => Representation::Json,
                "sse" if streams => Representation::Sse,
                _ => return Err(Bypass::Query),
            };
            if chosen.replace(representation).is_some() {
                return Err(Bypass::Query);
            }
        }
    }
    Ok(chosen.unwrap_or(Representation::Json))
}

/// The credentials in a query, under their names with a question mark in front, sorted by name
/// and else in the order they came.
pub(crate) fn credentials(api: Api, path: &str) -> impl Iterator<Item = (&'static str, &[u8])> {
    let names: &'static [&'static str] = match api.row().query {
        Query::Counts => &[],
        Query::Google { .. } => &CREDENTIALS,
    };
    names.iter().flat_map(move |&marked| {
        let named = parameters(path).filter(move |&(name, _)| is_marked(marked, name));
        named.map(move |(_, value)| (marked, value.as_bytes()))
    })
}

/// The part of a query that counts: parameters as sent, in their order, but for those of which a
/// pattern in `ignored` matches the name. None without a query.
pub(crate) fn counting<'p>(api: Api, path: &'p str, ignored: &[String]) -> Option<Cow<'p, str>> {
    let (_, query) = split(path);
    let query = query?;
    let is_google = api.row().query != Query::Counts;
    let counts = |parameter: &&str| {
        let (name, _) = parameter.split_once('=').unwrap_or((parameter, ""));
        let is_known = || {
            let is_credential = CREDENTIALS.iter().any(|marked| is_marked(marked, name));
            parameter.is_empty() || is_credential || REPRESENTATION.contains(&name)
        };
        // To some readers a semicolon ends a parameter: another one may stand behind it.
        let is_ignored =
            || !parameter.contains(';') && ignored.iter().any(|pattern| is_like(pattern, name));
        !(is_google && is_known() || is_ignored())
    };
    if query.split('&').all(|parameter| counts(&parameter)) {
        return Some(Cow::Borrowed(query));
    }
    let mut kept = String::new();
    for parameter in query.split('&').filter(counts) {
        if !kept.is_empty() {
            kept.push('&');
        }
        kept.push_str(parameter);
    }
    (!kept.is_empty()).then_some(Cow::Owned(kept))
}

/// A parameter that may not be named in `ignored_query` although a pattern matches it, and why.
pub(crate) fn kept_by_all(pattern: &str) -> Option<(&'static str, &'static str)> {
    let credentials = CREDENTIALS.iter().filter_map(|it| it.strip_prefix('?'));
    let callers = credentials.chain(NAMES_OF_CALLERS);
    let callers = callers.map(|name| {
        (
            name,
            "it identifies the caller, and answers are never shared without it",
        )
    });
    let form = REPRESENTATION.map(|name| (name, "it says in which form the answer comes"));
    callers
        .chain(form)
        .find(|(name, _)| is_like_in_any_case(pattern, name))
}

fn parameters(path: &str) -> impl Iterator<Item = (&str, &str)> {
    let (_, query) = split(path);
    let parameters = query.unwrap_or_default().split('&');
    parameters.map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
}

fn is_marked(marked: &str, name: &str) -> bool {
    marked.strip_prefix('?') == Some(name)
}
