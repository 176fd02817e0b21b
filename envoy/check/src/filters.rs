//! Which HTTP filters there are, and what it means for a hit that one stands behind ours.

use serde_json::Value;

use crate::tree::{at, field, flag, list, objects, text, typed};

/// What a filter behind ours means for a hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// A hit may do without it.
    Harmless,
    /// It decides which clients may ask.
    Access,
    /// It counts or limits requests.
    Limit,
    /// It may change requests or responses.
    Transform,
    /// It works less well there, for this reason.
    Less(&'static str),
    /// It is not known here.
    Unknown,
}

/// What a filter of this kind is, by the part of its type or name after `filters.http.`.
pub(crate) fn behind(kind: &str) -> Behind {
    match short(kind) {
        "router"
        | "upstream_codec"
        | "buffer"
        | "file_system_buffer"
        | "health_check"
        | "grpc_stats"
        | "on_demand"
        | "dynamic_forward_proxy"
        | "original_src"
        | "stateful_session"
        | "aws_request_signing"
        | "gcp_authn"
        | "credential_injector"
        | "adaptive_concurrency"
        | "header_to_metadata"
        | "json_to_metadata"
        | "set_metadata"
        | "set_filter_state"
        | "tap"
        | "alternate_protocols_cache"
        | "stats.PluginConfig"
        | "istio.stats"
        | "peer_metadata"
        | "istio.metadata_exchange"
        | "alpn"
        | "istio.alpn" => Behind::Harmless,
        "rbac" | "ext_authz" | "jwt_authn" | "oauth2" | "basic_auth" | "api_key_auth" | "csrf"
        | "istio_authn" | "authn" => Behind::Access,
        "ratelimit" | "local_ratelimit" | "rate_limit_quota" | "bandwidth_limit" => Behind::Limit,
        "lua"
        | "ext_proc"
        | "wasm"
        | "dynamic_modules"
        | "golang"
        | "transform"
        | "grpc_json_transcoder"
        | "grpc_json_reverse_transcoder"
        | "grpc_http1_bridge"
        | "grpc_http1_reverse_bridge"
        | "grpc_web"
        | "connect_grpc_bridge"
        | "proto_message_extraction"
        | "proto_api_scrubber"
        | "custom_response"
        | "aws_lambda"
        | "header_mutation"
        | "composite" => Behind::Transform,
        "compressor" => Behind::Less(
            "it compresses no hit there, and an answer that it compresses is not kept; put it \
             before the filter",
        ),
        "decompressor" => Behind::Less(
            "compressed requests bypass, because the filter sees them first; put it before the \
             filter",
        ),
        "cors" => Behind::Less(
            "hits carry the CORS headers of their miss; put it before the filter, and they are \
             those of the client's origin",
        ),
        "fault" => Behind::Less("hits have no faults"),
        "admission_control" => Behind::Less("hits are always admitted and do not count"),
        "cache" | "cache_v2" => Behind::Less("a second cache keeps what this one was to refresh"),
        "ip_tagging" | "geoip" => {
            Behind::Less("what it adds to the request is not in the key; put it before the filter")
        }
        _ => Behind::Unknown,
    }
}

/// `rbac` of `envoy.extensions.filters.http.rbac.v3.RBAC` and of `envoy.filters.http.rbac/policy`.
pub(crate) fn short(kind: &str) -> &str {
    let known = [
        ("stats.PluginConfig", "istio.stats"),
        ("peer_metadata", "istio.metadata_exchange"),
        ("http.alpn", "istio.alpn"),
    ];
    if let Some((_, name)) = known.iter().find(|(part, _)| kind.contains(part)) {
        return name;
    }
    let Some(at) = kind.find("filters.http.") else {
        return kind;
    };
    let rest = &kind[at + "filters.http.".len()..];
    rest.split(['.', '/']).next().unwrap_or_default()
}

/// One element of `http_filters`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HttpFilter<'v> {
    pub(crate) name: &'v str,
    /// The type of its configuration, or its name where there is no configuration to be seen.
    pub(crate) kind: &'v str,
    pub(crate) config: &'v Value,
    /// Its configuration comes by a way of its own, and is not in the text.
    pub(crate) is_unseen: bool,
}

impl<'v> HttpFilter<'v> {
    /// The filters that may stand where this element is: several, if a matcher chooses.
    pub(crate) fn all(element: &'v Value, document: &'v Value) -> Vec<Self> {
        let name = text(element, "name");
        let any = match field(element, "typed_config") {
            Value::Null => discovered(name, element, document),
            any => any,
        };
        let mut found = Vec::new();
        objects(any, &mut |object| {
            let (kind, config) = typed(object);
            let chooses = kind.ends_with(".ExtensionWithMatcher") || short(kind) == "composite";
            if chooses || !kind.contains("filters.http.") && !std::ptr::eq(object, any) {
                return true;
            }
            found.push(Self {
                name,
                kind: if kind.is_empty() { name } else { kind },
                config,
                is_unseen: false,
            });
            false
        });
        if found.is_empty() {
            found.push(Self {
                name,
                kind: name,
                config: &Value::Null,
                is_unseen: field(element, "config_discovery").is_object(),
            });
        }
        found
    }

    /// Whether it is ours: by what only its settings have, or by its names.
    pub(crate) fn is_ours(&self) -> bool {
        if short(self.kind) != "wasm" {
            return false;
        }
        let plugin = field(self.config, "config");
        let code = at(plugin, &["vm_config", "code"]);
        settings(plugin).contains("\"upstreams\"")
            || [self.name, text(plugin, "name")].contains(&"reflex")
            || code.to_string().contains("reflex-envoy")
    }

    /// Whether it may have Envoy choose the route anew.
    pub(crate) fn clears_route(&self) -> bool {
        match short(self.kind) {
            "ip_tagging" | "wasm" | "dynamic_modules" | "golang" => true,
            "lua" => self.config.to_string().contains("clearRouteCache"),
            "ext_proc" => {
                text(self.config, "route_cache_action") != "RETAIN"
                    && !flag(self.config, "disable_clear_route_cache")
            }
            _ => {
                let mut clears = false;
                objects(self.config, &mut |object| {
                    clears |= flag(object, "clear_route_cache");
                    true
                });
                clears
            }
        }
    }
}

/// The plugin's own configuration as JSON; empty without one.
pub(crate) fn settings(plugin: &Value) -> String {
    let (kind, configuration) = typed(field(plugin, "configuration"));
    let value = match kind {
        "google.protobuf.StringValue" | "google.protobuf.Struct" => field(configuration, "value"),
        _ => configuration,
    };
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// The configuration that came by discovery, where a dump shows it, or the default.
fn discovered<'v>(name: &str, element: &'v Value, document: &'v Value) -> &'v Value {
    let discovery = field(element, "config_discovery");
    let mut found = &Value::Null;
    if discovery.is_object() {
        for dump in list(document, "configs") {
            for ecds in list(dump, "ecds_filters") {
                let filter = field(ecds, "ecds_filter");
                if text(filter, "name") == name {
                    found = field(filter, "typed_config");
                }
            }
        }
        if found.is_null() {
            found = field(discovery, "default_config");
        }
    }
    found
}
