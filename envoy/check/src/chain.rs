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
        let who = named(filter);
        match behind(filter.kind) {
            Behind::Harmless => {}
            Behind::Access => report.error(
                place,
                format!(
                    "{who} stands behind the filter, so hits skip it and clients get answers \
                     that it would deny; put it before the filter"
                ),
            ),
            Behind::Limit => report.error(
                place,
                format!(
                    "{who} stands behind the filter, so hits skip it and are neither counted nor \
                     limited; put it before the filter"
                ),
            ),
            Behind::Transform => report.error(
                place,
                format!(
                    "{who} stands behind the filter: the key does not cover what it changes in a \
                     request, and a hit passes its response part a second time; put it before the \
                     filter, or into the cluster's upstream `http_filters`"
                ),
            ),
            Behind::Less(why) => {
                report.warning(place, format!("{who} stands behind the filter: {why}"))
            }
            Behind::Unknown => report.warning(
                place,
                format!(
                    "{who} stands behind the filter and is not known here: hits skip its request \
                     part and pass its response part a second time"
                ),
            ),
        }
    }
    for filter in before {
        let who = named(filter);
        if filter.clears_route() {
            report.warning(
                place,
                format!(
                    "{who} stands before the filter and may have Envoy choose the route anew: no \
                     route may depend on what it sets, unless each leads to a cluster of its own \
                     provider"
                ),
            );
        }
        if short(filter.kind) == "credential_injector" {
            report.error(
                place,
                format!(
                    "{who} stands before the filter, so all clients have one credential and share \
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
