//! Whether Envoy can hold a request's body for as long as the filter reads it. If it cannot, it
//! answers with 413.

use reflex_envoy_config::Config;
use serde_json::Value;

use crate::Report;
use crate::filters::{HttpFilter, short};
use crate::tree::{at, field, list, number, objects, text};

/// Envoy's default for a connection.
const CONNECTION_BYTES: u64 = 1 << 20;

/// What one read from a socket may bring beyond the connection's limit.
const READ_BYTES_MAX: u64 = 128 << 10;

/// How many times as long Envoy's decompressor lets a body become, if not told otherwise.
const INFLATE_RATIO: u64 = 100;

/// What a virtual host must let Envoy hold: what the filter reads, and what may come at once on
/// top of it. A read becomes so many times as long before it reaches the filter.
pub(crate) fn needed(config: &Config, connection_bytes: u64, ratio: u64) -> u64 {
    let at_once = connection_bytes.saturating_add(READ_BYTES_MAX);
    let at_once = at_once.saturating_mul(ratio);
    at_once.saturating_add(config.request_bytes_max as u64)
}

/// How many times as long the filters before ours may make what is read.
pub(crate) fn ratio(before: &[HttpFilter<'_>]) -> u64 {
    let decompressors = before
        .iter()
        .filter(|filter| short(filter.kind) == "decompressor");
    let ratios = decompressors.map(|filter| {
        let library = at(filter.config, &["decompressor_library", "typed_config"]);
        number(library, "max_inflate_ratio").unwrap_or(INFLATE_RATIO)
    });
    ratios.max().unwrap_or(1)
}

/// Looks at the virtual hosts of a connection manager.
pub(crate) fn check(
    document: &Value,
    listener: &Value,
    manager: &Value,
    config: &Config,
    ratio: u64,
    place: &str,
    report: &mut Report,
) {
    let connection =
        number(listener, "per_connection_buffer_limit_bytes").unwrap_or(CONNECTION_BYTES);
    let needed = needed(config, connection, ratio);
    let hosts = virtual_hosts(document, manager);
    if hosts.is_empty() {
        report.warning(
            place,
            format!(
                "the routes are not in this text: their virtual hosts must have \
                 `request_body_buffer_limit: {needed}` or more, or Envoy answers long requests \
                 with 413; the output of `/config_dump` has them"
            ),
        );
    }
    for host in hosts {
        let of_host = limit(host);
        let of_routes = list(host, "routes").iter().filter_map(limit);
        let least = of_routes.chain(of_host).min();
        let least = least.unwrap_or(connection);
        if least < needed {
            let name = text(host, "name");
            report.error(
                place,
                format!(
                    "the virtual host `{name}` lets Envoy hold {least} bytes of a request; with \
                     `request_bytes_max` {}{} and `per_connection_buffer_limit_bytes` {connection} \
                     its `request_body_buffer_limit` must be {needed} or more, or Envoy answers \
                     some requests with 413",
                    config.request_bytes_max,
                    if ratio > 1 {
                        ", a decompressor before the filter"
                    } else {
                        ""
                    }
                ),
            );
        }
    }
}

fn limit(message: &Value) -> Option<u64> {
    number(message, "request_body_buffer_limit")
}

/// The virtual hosts in the manager, or in a dump under the name that the manager asks for.
fn virtual_hosts<'v>(document: &'v Value, manager: &'v Value) -> Vec<&'v Value> {
    let own = list(field(manager, "route_config"), "virtual_hosts");
    if !own.is_empty() {
        return own.iter().collect();
    }
    let name = text(at(manager, &["rds"]), "route_config_name");
    let mut found = Vec::new();
    if name.is_empty() {
        return found;
    }
    objects(document, &mut |object| {
        if text(object, "name") == name && !list(object, "virtual_hosts").is_empty() {
            found.extend(list(object, "virtual_hosts"));
        }
        true
    });
    found
}
