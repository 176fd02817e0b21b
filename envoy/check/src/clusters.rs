//! The clusters that the filter's settings name: whether they are there, and which filters of their
//! own they have.

use reflex_envoy_config::Config;
use serde_json::Value;

use crate::filters::{Behind, HttpFilter, behind};
use crate::tree::{at, field, list, text, typed};
use crate::{Report, chain};

/// Looks at the clusters of a text.
pub(crate) fn check(document: &Value, config: &Config, place: &str, report: &mut Report) {
    let clusters = all(document);
    if is_whole(document) {
        let is_known = |name: &str| clusters.iter().any(|cluster| text(cluster, "name") == name);
        for name in config.upstreams.keys().filter(|name| !is_known(name)) {
            report.warning(
                place,
                format!("`upstreams` names the cluster `{name}`, which is not in this text"),
            );
        }
        if let Some(name) = config
            .daemon_cluster
            .as_ref()
            .filter(|name| !is_known(name))
        {
            report.warning(
                place,
                format!(
                    "the daemon's cluster `{name}` is not in this text; `\"daemon_cluster\": \"\"` \
                     is for a filter without a daemon"
                ),
            );
        }
    }
    for cluster in clusters {
        let name = text(cluster, "name");
        if !config.upstreams.contains_key(name) {
            continue;
        }
        let options = field(cluster, "typed_extension_protocol_options").as_object();
        let options = options.into_iter().flat_map(|options| options.values());
        let filters = options.flat_map(|options| list(typed(options).1, "http_filters"));
        upstream(
            filters,
            &format!("{place}, cluster {name}"),
            document,
            report,
        );
    }
}

/// Looks at filters between the router and the provider. A hit passes none of them. What they
/// change in an answer is recorded, and so once in each hit too.
pub(crate) fn upstream<'v>(
    filters: impl Iterator<Item = &'v Value>,
    place: &str,
    document: &'v Value,
    report: &mut Report,
) {
    for filter in filters.flat_map(|element| HttpFilter::all(element, document)) {
        let title = chain::named(&filter);
        match behind(filter.kind) {
            Behind::Access => report.error(
                place,
                format!(
                    "the upstream filter {title} is behind the router, so hits skip it and clients \
                     get answers that it would deny; put it before the filter"
                ),
            ),
            Behind::Limit => report.warning(
                place,
                format!("the upstream filter {title} is behind the router and limits misses only"),
            ),
            _ => {}
        }
    }
}

/// Whether a text has all clusters: a bootstrap without a control plane, or a dump with clusters.
fn is_whole(document: &Value) -> bool {
    let is_bootstrap = field(document, "static_resources").is_object();
    let is_static = at(document, &["dynamic_resources", "cds_config"]).is_null();
    is_bootstrap && is_static || !is_bootstrap && !all(document).is_empty()
}

/// The clusters of a bootstrap or a dump.
fn all(document: &Value) -> Vec<&Value> {
    let own = list(field(document, "static_resources"), "clusters");
    let mut found: Vec<&Value> = own.iter().collect();
    for dump in list(document, "configs") {
        for kind in [
            "static_clusters",
            "dynamic_active_clusters",
            "dynamic_warming_clusters",
        ] {
            let clusters = list(dump, kind).iter();
            found.extend(clusters.map(|cluster| field(cluster, "cluster")));
        }
    }
    found
}
