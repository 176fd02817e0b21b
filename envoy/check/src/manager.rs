//! HTTP connection managers, wherever a text has them: in the listeners of a bootstrap, in its
//! default chains, and in what a control plane has brought.

use serde_json::Value;

use crate::filters::HttpFilter;
use crate::tree::{field, flag, list, text, typed};
use crate::{Report, buffers, chain, clusters, local_reply, plugin};

/// A connection manager and where it stands.
struct Found<'v> {
    place: String,
    manager: &'v Value,
    listener: &'v Value,
}

/// Looks at each manager whose chain has the filter.
pub(crate) fn check(document: &Value, report: &mut Report) {
    let mut found = Vec::new();
    let dumps = list(document, "configs");
    let has_listeners = |dump: &Value| {
        !list(dump, "static_listeners").is_empty() || !list(dump, "dynamic_listeners").is_empty()
    };
    if dumps.iter().any(has_listeners) {
        // The bootstrap that a dump has as well says the same once more.
        for dump in dumps.iter().filter(|dump| has_listeners(dump)) {
            walk(dump, &mut Vec::new(), &Value::Null, &mut found);
        }
    } else {
        walk(document, &mut Vec::new(), &Value::Null, &mut found);
    }
    for found in &found {
        check_one(document, found, report);
    }
}

fn check_one(document: &Value, found: &Found<'_>, report: &mut Report) {
    let place = found.place.as_str();
    let elements = list(found.manager, "http_filters").iter();
    let filters: Vec<HttpFilter<'_>> = elements
        .flat_map(|element| HttpFilter::all(element, document))
        .collect();
    let Some(at) = filters.iter().position(HttpFilter::is_ours) else {
        for filter in filters.iter().filter(|filter| filter.is_unseen) {
            report.warning(
                place,
                format!(
                    "`{}` gets its configuration by discovery and is not seen here: check the \
                     output of `/config_dump` of Envoy's admin interface",
                    filter.name
                ),
            );
        }
        return;
    };
    report.filters += 1;
    chain::check(&filters[..at], &filters[at + 1..], place, report);
    for filter in &filters[at + 1..] {
        let upstream = list(filter.config, "upstream_http_filters").iter();
        clusters::upstream(upstream, place, document, report);
    }

    let config = plugin::check(field(filters[at].config, "config"), place, report);
    local_reply::check(field(found.manager, "local_reply_config"), place, report);
    if flag(found.manager, "proxy_100_continue") {
        report.warning(
            place,
            "`proxy_100_continue: true`: requests with `Expect: 100-continue` bypass, because \
             their bodies come only when the provider has asked for them",
        );
    }
    let mut upgrades = list(found.manager, "upgrade_configs").iter();
    if !upgrades.any(|upgrade| text(upgrade, "upgrade_type").eq_ignore_ascii_case("websocket")) {
        report.warning(
            place,
            "`upgrade_configs: [{ upgrade_type: websocket }]` is missing: Envoy answers WebSockets, \
             such as those of realtime APIs, with 403",
        );
    }
    if let Some(config) = config {
        let listener = found.listener;
        let ratio = buffers::ratio(&filters[..at]);
        buffers::check(
            document,
            listener,
            found.manager,
            &config,
            ratio,
            place,
            report,
        );
        clusters::check(document, &config, place, report);
    }
}

/// Collects the managers below a value.
fn walk<'v>(
    value: &'v Value,
    names: &mut Vec<&'v str>,
    listener: &'v Value,
    found: &mut Vec<Found<'v>>,
) {
    match value {
        Value::Array(elements) => {
            for element in elements {
                walk(element, names, listener, found);
            }
        }
        Value::Object(fields) => {
            let (kind, manager) = typed(value);
            if kind.ends_with(".HttpConnectionManager") {
                let place = names.join(", ");
                found.push(Found {
                    place,
                    manager,
                    listener,
                });
                return;
            }
            let has_chains = !field(value, "filter_chains").is_null()
                || !field(value, "default_filter_chain").is_null();
            let listener = if has_chains { value } else { listener };
            let is_chain = !list(value, "filters").is_empty();
            let name = text(value, "name");
            let is_named = (has_chains || is_chain) && !name.is_empty();
            if is_named {
                names.push(name);
            }
            for (name, field) in fields {
                // In a dump: listeners that Envoy has refused, and those that are draining.
                if ![
                    "error_state",
                    "draining_state",
                    "errorState",
                    "drainingState",
                ]
                .contains(&name.as_str())
                {
                    walk(field, names, listener, found);
                }
            }
            if is_named {
                names.pop();
            }
        }
        _ => {}
    }
}
