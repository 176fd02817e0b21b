//! Which of several providers a request is for: pure, and the same for the proxy and for `explain`.

use super::{NoTarget, target};
use crate::serve::config::{Provider, Takes, Upstream};
use http::header::{self, HeaderMap};
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri};
use reflex_llm::{is_below, is_like_in_any_case, model_in_path};

/// What decides about the provider of a request.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    host: Host<'a>,
    path: &'a str,
    model: Model,
}

/// The name that the client asks for.
#[derive(Clone, Copy, Debug)]
enum Host<'a> {
    /// Without a port; empty if the client names none.
    Named(&'a str),
    /// Several headers name one.
    Several,
}

/// The model that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// The body names it, and is not read yet.
    InBody,
    /// The request names none.
    None,
    Named(String),
}

/// Why a request has no provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoProvider {
    /// The model decides, and is in the body.
    NeedsModel,
    /// The path decides, and servers read it in different ways.
    Path,
    /// The host decides, and several headers name it.
    Hosts,
    /// No provider takes it.
    Untaken,
}

impl NoProvider {
    /// What the client is told.
    pub(crate) fn told(self) -> (StatusCode, &'static str) {
        match self {
            Self::NeedsModel => (
                StatusCode::BAD_REQUEST,
                "the request's model, which decides about its provider, cannot be read",
            ),
            Self::Path => (
                StatusCode::BAD_REQUEST,
                "the request's path can be read in several ways, and decides about its provider",
            ),
            Self::Hosts => (
                StatusCode::BAD_REQUEST,
                "the request has several Host headers, and the host decides about its provider",
            ),
            Self::Untaken => (
                StatusCode::NOT_FOUND,
                "no provider is configured for the host, path and model of this request",
            ),
        }
    }
}

impl<'a> Wanted<'a> {
    /// Of a request as it came.
    pub(crate) fn of(method: &Method, uri: &'a Uri, headers: &'a HeaderMap) -> Self {
        let mut named = headers.get_all(header::HOST).iter();
        let host = match (uri.authority(), named.next()) {
            // It counts before the header, in each version of HTTP.
            (Some(authority), _) => Host::Named(authority.host()),
            (None, Some(_)) if named.next().is_some() => Host::Several,
            (None, host) => {
                let host = host.and_then(|host| host.to_str().ok());
                Host::Named(host.map_or("", without_port))
            }
        };
        let model = match model_in_path(uri.path()) {
            Some(model) => Model::Named(model),
            None if may_name_model(method, headers) => Model::InBody,
            None => Model::None,
        };
        Self {
            host,
            path: uri.path(),
            model,
        }
    }

    /// The same once the body is read.
    pub(crate) fn with_model(self, model: Option<String>) -> Self {
        let model = model.map_or(Model::None, Model::Named);
        Self { model, ..self }
    }
}

/// A name, or an address of IPv6 in brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether the body of a request may be JSON that names a model.
fn may_name_model(method: &Method, headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.map(|value| value.as_bytes().to_ascii_lowercase());
    let is_json = content_type
        .is_none_or(|it| it.starts_with(b"text/") || it.windows(4).any(|part| part == b"json"));
    *method == Method::POST && is_json
}

/// The place of the provider that a request is for: the first that takes it. One that names no model is for
/// the first that takes it whatever its model, or else for the first that takes its host and path.
///
/// # Errors
///
/// No provider takes it for certain.
pub(crate) fn chosen<'t>(
    all: impl IntoIterator<Item = &'t Takes>,
    wanted: &Wanted<'_>,
) -> Result<usize, NoProvider> {
    let mut without_model = None;
    for (place, takes) in all.into_iter().enumerate() {
        if !takes_host(takes, wanted.host)? || !takes_path(takes, wanted.path)? {
            continue;
        }
        let Model::Named(model) = &wanted.model else {
            match wanted.model {
                _ if takes.models.is_empty() => return Ok(place),
                Model::InBody => return Err(NoProvider::NeedsModel),
                _ => without_model = without_model.or(Some(place)),
            }
            continue;
        };
        if is_like_any(&takes.models, model) {
            return Ok(place);
        }
    }
    without_model.ok_or(NoProvider::Untaken)
}

fn takes_host(takes: &Takes, host: Host<'_>) -> Result<bool, NoProvider> {
    match host {
        _ if takes.hosts.is_empty() => Ok(true),
        Host::Several => Err(NoProvider::Hosts),
        // A dot at the end says only that the name is whole.
        Host::Named(host) => Ok(is_like_any(&takes.hosts, host.trim_end_matches('.'))),
    }
}

fn takes_path(takes: &Takes, path: &str) -> Result<bool, NoProvider> {
    match &takes.path_prefix {
        None => Ok(true),
        Some(prefix) => is_below(path, prefix).ok_or(NoProvider::Path),
    }
}

/// Whether a text matches one of the patterns, if there are any.
fn is_like_any(patterns: &[String], text: &str) -> bool {
    let mut each = patterns.iter();
    patterns.is_empty()
        || !text.is_empty() && each.any(|pattern| is_like_in_any_case(pattern, text))
}

/// Where a request for this path goes at the provider.
///
/// # Errors
///
/// It leads nowhere below the provider's path; or the prefix to leave out is spelled in another way.
pub(crate) fn aimed(provider: &Provider, path: Option<&PathAndQuery>) -> Result<Uri, NoTarget> {
    let prefix = provider.takes.path_prefix.as_deref();
    let prefix = prefix.filter(|_| provider.takes.strips_prefix);
    let Some((path, prefix)) = path.zip(prefix) else {
        return target(&provider.url, path);
    };
    let parts = path.as_str().split_at_checked(prefix.len());
    let (start, rest) = parts.ok_or(NoTarget)?;
    if !start.eq_ignore_ascii_case(prefix) {
        return Err(NoTarget);
    }
    let rest = match rest.as_bytes().first() {
        Some(b'/') => rest.to_owned(),
        None | Some(b'?') => format!("/{rest}"),
        Some(_) => return Err(NoTarget),
    };
    target(&provider.url, Some(&rest.parse().map_err(|_| NoTarget)?))
}

/// The same request as one for another provider with the same answers.
///
/// # Errors
///
/// It is not below the first one's path.
pub(super) fn turned(uri: &Uri, from: &Provider, to: &Provider) -> Result<Uri, NoTarget> {
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let rest = path
        .strip_prefix(from.url.prefix.as_str())
        .ok_or(NoTarget)?;
    if !rest.starts_with('/') {
        return Err(NoTarget);
    }
    let Upstream {
        scheme,
        authority,
        prefix,
    } = &to.url;
    let uri = Uri::builder()
        .scheme(scheme.clone())
        .authority(authority.clone());
    let uri = uri.path_and_query(format!("{prefix}{rest}")).build();
    uri.map_err(|_| NoTarget)
}

#[cfg(test)]
mod tests;
