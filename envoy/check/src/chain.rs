//! The order of a filter chain: what stands behind the filter, and what stands before it.

use crate::Report;
use crate::filters::{Behind, HttpFilter, behind, short};

/// Names each filter behind ours that a hit must not skip or pass, and each before it that makes
/// the route uncertain.
pub(crate) fn check(
    before: &[HttpFilter<'_>],
    after: &[HttpFilter<'_>],
    place: &str,
    report: &mut Report,
) {
    for filter in after {
        let title = named(filter);
        match behind(filter.kind) {
            Behind::Harmless => {}
            Behind::Access => report.error(
                place,
                format!(
                    "{title} stands behind the filter, so hits skip it and clients get answers \
                     that it would deny; put it before the filter"
                ),
            ),
            Behind::Limit => report.error(
                place,
                format!(
                    "{title} stands behind the filter, so hits skip it and are neither counted nor \
                     limited; put it before the filter"
                ),
            ),
            Behind::Transform => report.error(
                place,
                format!(
                    "{title} stands behind the filter: the key does not cover what it changes in a \
                     request, and a hit passes its response part a second time; put it before the \
                     filter, or into the cluster's upstream `http_filters`"
                ),
            ),
            Behind::Less(why) => {
                report.warning(place, format!("{title} stands behind the filter: {why}"))
            }
            Behind::Unknown => report.warning(
                place,
                format!(
                    "{title} stands behind the filter and is not known here: hits skip its request \
                     part and pass its response part a second time"
                ),
            ),
        }
    }
    for (at, filter) in before.iter().enumerate() {
        let title = named(filter);
        // It asks Envoy for the route, which Envoy then chooses anew.
        let mut later = before[at + 1..].iter();
        let is_asked = later.any(|filter| short(filter.kind) == "header_mutation");
        if filter.clears_route() && !is_asked {
            report.warning(
                place,
                format!(
                    "{title} stands before the filter and may have Envoy choose the route anew, of \
                     which the filter sees the choice from before; put \
                     `envoy.filters.http.header_mutation` between them, without any mutation: it \
                     has Envoy choose first"
                ),
            );
        }
        if short(filter.kind) == "aws_request_signing" {
            report.warning(
                place,
                format!(
                    "{title} stands before the filter: each request has another signature, so none \
                     hits; put it behind the filter"
                ),
            );
        }
        if short(filter.kind) == "credential_injector" {
            report.error(
                place,
                format!(
                    "{title} stands before the filter, so all clients have one credential and share \
                     their answers; put it behind the filter"
                ),
            );
        }
    }
}

/// A filter as the operator knows it.
pub(crate) fn named(filter: &HttpFilter<'_>) -> String {
    let kind = short(filter.kind);
    match filter.name.contains(kind) || kind.is_empty() {
        true => format!("`{}`", filter.name),
        false => format!("`{}` ({kind})", filter.name),
    }
}
