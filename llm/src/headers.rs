//! Which request headers can change the answer: all but those known not to.
//!
//! The other way round, a list of headers that count, would be shorter and wrong. Nobody can
//! guess the names by which gateways choose a model, a provider, a user or a behaviour
//! (`azureml-model-deployment`, `extra-parameters`, `x-portkey-config`, `cookie`,
//! `x-forwarded-client-cert`); `openai-beta`, `anthropic-version`, `accept` and
//! `accept-language` count by the same rule. What is listed below is either about the
//! connection, differs with every request, or tells which SDK or proxy was on the way. A header
//! of that kind that we do not know costs misses until it is added here.

use alloc::vec::Vec;

use crate::tenant::CREDENTIALS;

/// Calls `add` for each header that counts: names in order, the values of a repeated one in the
/// order they came.
pub(crate) fn significant<'a>(
    headers: &[(&'a str, &'a [u8])],
    mut add: impl FnMut(&'a str, &'a [u8]),
) {
    let mut counting: Vec<(&str, &[u8])> = Vec::with_capacity(headers.len());
    counting.extend(headers.iter().copied().filter(counts));
    counting.sort_by_key(|&(name, _)| name);
    for (name, value) in counting {
        add(name, value);
    }
}

/// Out of the key, by name.
const IGNORED: [&str; 59] = by_length([
    // The connection, the framing of the body, and what the edge sets itself.
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    // What the client asks of caches, ours first. It is obeyed, not keyed.
    "cache-control",
    "pragma",
    // When, by which program, on what page's behalf.
    "date",
    "priority",
    "user-agent",
    "x-goog-api-client",
    // Traces.
    "b3",
    "baggage",
    "correlation-context",
    "elastic-apm-traceparent",
    "grpc-trace-bin",
    "newrelic",
    "request-id",
    "sentry-trace",
    "traceparent",
    "tracestate",
    "uber-trace-id",
    "x-amzn-trace-id",
    "x-client-request-id",
    "x-cloud-trace-context",
    "x-correlation-id",
    "x-ms-client-request-id",
    "x-request-id",
    "x-request-start",
    "x-trace-id",
    // The way here. Not all of `x-forwarded-`: some of those say who the user is.
    "cdn-loop",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-ew-via",
    "cf-ipcountry",
    "cf-ray",
    "cf-visitor",
    "fastly-client-ip",
    "fly-client-ip",
    "fly-request-id",
    "forwarded",
    "true-client-ip",
    "via",
    "x-amz-cf-id",
    "x-azure-clientip",
    "x-azure-ref",
    "x-forwarded-for",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-original-forwarded-for",
    "x-real-ip",
    "x-vercel-id",
]);

/// Out of the key, by how the name begins.
const IGNORED_PREFIXES: &[&str] = &[
    // HTTP/2's own fields; method, path and authority are keyed in their own right.
    ":",
    // Traces.
    "x-b3-",
    "x-datadog-",
    // Envoy's notes to itself.
    "x-envoy-",
    // The user's wishes for us.
    "x-reflex-",
    // What a browser adds by itself about the page.
    "sec-ch-",
    "sec-fetch-",
    // Which SDK, which version of it, on which system, at which attempt.
    "x-stainless-",
    "x-fern-",
];

fn counts(&(name, value): &(&str, &[u8])) -> bool {
    let ignored = is_ignored(name)
        // In the tenant. The organisation and project are there only when a credential is, so
        // they count here too.
        || CREDENTIALS.contains(&name)
        || (name == "cookie" && value.split(|&byte| byte == b';').all(bot_management));
    !ignored
}

/// Every request asks this of every header, so no name is compared with one of another length.
fn is_ignored(name: &str) -> bool {
    let first = IGNORED.partition_point(|other| other.len() < name.len());
    let same_length = IGNORED[first..].iter();
    let mut same_length = same_length.take_while(|other| other.len() == name.len());
    same_length.any(|other| *other == name)
        || IGNORED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// Sorts the names by their length, at compile time, so that the list can be read by subject.
const fn by_length<const N: usize>(mut names: [&str; N]) -> [&str; N] {
    let mut sorted = 1;
    while sorted < N {
        let mut at = sorted;
        while at > 0 && names[at - 1].len() > names[at].len() {
            names.swap(at - 1, at);
            at -= 1;
        }
        sorted += 1;
    }
    names
}

/// Cookies that a provider's front hands out to tell people from robots. They change every half
/// hour and with every client, and SDKs return them; any other cookie may be a session.
const BOT_MANAGEMENT: &[&[u8]] = &[b"__cf_bm", b"__cflb", b"_cfuvid", b"cf_clearance"];

fn bot_management(cookie: &[u8]) -> bool {
    let name = cookie.split(|&byte| byte == b'=').next();
    BOT_MANAGEMENT.contains(&name.unwrap_or_default().trim_ascii())
}
