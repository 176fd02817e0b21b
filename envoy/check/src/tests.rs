//! Configurations as text: the example as it stands is clean, and each change of it is named.

use serde_json::{Value, json};

use crate::{Report, check};

const EXAMPLE: &str = include_str!("../../envoy.yaml");

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

fn example() -> Value {
    serde_yaml_ng::from_str(EXAMPLE).expect("YAML")
}

fn of(config: &Value) -> Report {
    check(&config.to_string()).expect("JSON")
}

fn lines(report: &Report) -> Vec<String> {
    report.findings.iter().map(ToString::to_string).collect()
}

/// Checks that a change of the example has exactly one finding, which begins and goes on so.
fn finds(change: impl FnOnce(&mut Value), severity: &str, part: &str) {
    let mut config = example();
    let place = if part.starts_with("upstreams:") {
        ""
    } else {
        "llm: "
    };
    change(config.pointer_mut(MANAGER).expect("a manager"));
    let report = of(&config);
    let lines = lines(&report);
    let start = format!("{severity}: {place}");
    assert_eq!(lines.len(), 1, "{part}: {lines:#?}");
    assert!(lines[0].starts_with(&start), "{lines:?}");
    assert!(lines[0].contains(part), "{lines:?}");
    assert!(!lines[0].contains('\n'), "{lines:?}");
    assert_eq!(report.fails(), severity == "error", "{lines:?}");
}

fn filter(kind: &str) -> Value {
    json!({
        "name": format!("my-{kind}"),
        "typed_config": {
            "@type": format!("type.googleapis.com/envoy.extensions.filters.http.{kind}.v3.Some"),
        },
    })
}

/// Checks what is found of a filter behind ours, and before it.
fn placed(filter: &Value, behind: Option<(&str, &str)>, before: Option<(&str, &str)>) {
    for (at, found) in [(1, behind), (0, before)] {
        let change = |manager: &mut Value| {
            let filters = manager["http_filters"].as_array_mut();
            filters.expect("filters").insert(at, filter.clone());
        };
        match found {
            Some((severity, part)) => finds(change, severity, part),
            None => {
                let mut config = example();
                change(config.pointer_mut(MANAGER).expect("a manager"));
                assert_eq!(lines(&of(&config)), [""; 0], "{filter} at {at}");
            }
        }
    }
}

#[test]
fn the_example_is_clean() {
    for text in [EXAMPLE.to_owned(), example().to_string()] {
        let report = check(&text).expect("a configuration");
        assert_eq!(lines(&report), [""; 0]);
        assert_eq!(report.filters, 1);
        assert!(!report.fails());
    }
}

#[test]
fn filters_behind_that_a_hit_would_skip_are_named() {
    for kind in [
        "rbac",
        "ext_authz",
        "oauth2",
        "basic_auth",
        "api_key_auth",
        "csrf",
    ] {
        let what = format!("`my-{kind}` stands behind the filter, so hits skip it and clients");
        placed(&filter(kind), Some(("error", &what)), None);
    }
    for kind in [
        "ratelimit",
        "local_ratelimit",
        "rate_limit_quota",
        "bandwidth_limit",
    ] {
        let what = format!("`my-{kind}` stands behind the filter, so hits skip it and are neither");
        placed(&filter(kind), Some(("error", &what)), None);
    }
    for kind in ["custom_response", "grpc_json_transcoder", "header_mutation"] {
        placed(&filter(kind), Some(("error", "a second time")), None);
    }
    for kind in ["fault", "admission_control", "cors", "compressor", "own"] {
        let what = format!("`my-{kind}` stands behind the filter");
        placed(&filter(kind), Some(("warning", &what)), None);
    }
    for kind in ["buffer", "stateful_session", "dynamic_forward_proxy"] {
        placed(&filter(kind), None, None);
    }
}

#[test]
fn filters_before_that_make_the_route_uncertain_are_named() {
    let route = Some(("warning", "may have Envoy choose the route anew"));
    let behind = Some(("error", "stands behind the filter"));
    let with = |kind: &str, field: &str, value: Value| {
        let mut filter = filter(kind);
        filter["typed_config"][field] = value;
        filter
    };
    let source = |code: &str| json!({"inline_string": code});
    let clears = "function envoy_on_request(handle) handle:clearRouteCache() end";
    placed(
        &with("lua", "default_source_code", source(clears)),
        behind,
        route,
    );
    placed(
        &with("lua", "default_source_code", source("--")),
        behind,
        None,
    );
    placed(
        &with("ext_authz", "clear_route_cache", json!(true)),
        behind,
        route,
    );
    placed(
        &with("ext_authz", "clearRouteCache", json!(true)),
        behind,
        route,
    );
    placed(&filter("ext_proc"), behind, route);
    placed(
        &with("ext_proc", "route_cache_action", json!("RETAIN")),
        behind,
        None,
    );
    let provider = json!({"idp": {"clear_route_cache": true}});
    placed(&with("jwt_authn", "providers", provider), behind, route);
    let tags = Some(("warning", "is not in the key"));
    placed(&filter("ip_tagging"), tags, route);
    let mut asked = example();
    let filters = asked.pointer_mut(&format!("{MANAGER}/http_filters"));
    let filters = filters.and_then(Value::as_array_mut).expect("filters");
    filters.insert(0, filter("header_mutation"));
    filters.insert(0, filter("ip_tagging"));
    assert_eq!(lines(&of(&asked)), [""; 0]);
    let signed = Some(("warning", "another signature"));
    placed(&filter("aws_request_signing"), None, signed);
    let compressed = Some(("warning", "compressed requests bypass"));
    let limit = Some(("error", "a decompressor before the filter"));
    placed(&filter("decompressor"), compressed, limit);
    let shared = Some(("error", "all clients have one credential"));
    placed(&filter("credential_injector"), None, shared);
}

/// Filters between the router and the provider: of a cluster, and of the router for all.
#[test]
fn upstream_filters_that_a_hit_would_skip_are_named() {
    let check = |filters: &[Value], expected: &[&str]| {
        let mut config = example();
        let options = "/static_resources/clusters/0/typed_extension_protocol_options\
                       /envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        config.pointer_mut(options).expect("options")["http_filters"] = json!(filters);
        let found = lines(&of(&config));
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    };
    let codec = filter("upstream_codec");
    check(
        &[filter("lua"), filter("header_mutation"), codec.clone()],
        &[],
    );
    let limits = "warning: llm, cluster provider: the upstream filter `my-local_ratelimit`";
    check(&[filter("local_ratelimit"), codec.clone()], &[limits]);
    let denies = "error: llm, cluster provider: the upstream filter `my-rbac`";
    check(&[filter("rbac"), codec], &[denies]);

    let router = |manager: &mut Value| {
        manager["http_filters"][1]["typed_config"]["upstream_http_filters"] =
            json!([filter("rbac"), filter("upstream_codec")]);
    };
    finds(
        router,
        "error",
        "the upstream filter `my-rbac` is behind the router",
    );
}

/// Filters that a matcher chooses, or whose configuration has another spelling, are seen too.
#[test]
fn filters_in_disguise_are_named() {
    let denies = Some(("error", "so hits skip it and clients"));
    let rbac = filter("rbac")["typed_config"].clone();
    let matched = json!({"name": "some", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher",
        "extension_config": {"name": "rbac", "typed_config": rbac},
    }});
    placed(&matched, denies, None);
    let composite = json!({"name": "some", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher",
        "extension_config": {"name": "composite", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.composite.v3.Composite",
        }},
        "xds_matcher": {"on_no_match": {"action": {"name": "act", "typed_config": {
            "@type": "type.googleapis.com/\
                      envoy.extensions.filters.http.composite.v3.ExecuteFilterAction",
            "typed_config": {"name": "rbac", "typed_config": rbac},
        }}}},
    }});
    placed(&composite, denies, None);
    let structured = json!({"name": "some", "typed_config": {
        "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
        "type_url": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "value": {"rules": {}},
    }});
    placed(&structured, denies, None);
    let discovered = json!({"name": "envoy.filters.http.rbac", "config_discovery": {}});
    placed(&discovered, denies, None);
}

#[test]
fn missing_and_bad_settings_are_named() {
    let change = |pointer: &'static str, value: Value| {
        move |manager: &mut Value| {
            let own = "/http_filters/0/typed_config/config";
            let pointer = match pointer.strip_prefix('+') {
                Some(pointer) => pointer.into(),
                None => format!("{own}{pointer}"),
            };
            *manager.pointer_mut(&pointer).expect("a setting") = value;
        }
    };
    let stop = "/allow_on_headers_stop_iteration";
    finds(change(stop, Value::Null), "error", "requests hang");
    finds(
        change("/failure_policy", json!("FAIL_OPEN")),
        "warning",
        "FAIL_RELOAD",
    );
    finds(
        change("/reload_config", Value::Null),
        "warning",
        "reload_config.backoff",
    );
    let base = "/reload_config/backoff/base_interval";
    finds(change(base, json!("0.001s")), "error", "crashes");
    let own = "/configuration/value";
    finds(
        change(own, json!("{}")),
        "error",
        "missing field `upstreams`",
    );
    let unknown = r#"{"upstreams": {"provider": "https://a"}, "ttl_secnds": 1}"#;
    finds(change(own, json!(unknown)), "error", "`ttl_secnds`");
    let other = r#"{"upstreams": {"openai": "https://api.openai.com"}}"#;
    finds(
        change(own, json!(other)),
        "warning",
        "`openai`, which is not",
    );
    let other = r#"{"upstreams": {"provider": "https://a"}, "daemon_cluster": "cache"}"#;
    finds(
        change(own, json!(other)),
        "warning",
        "daemon's cluster `cache`",
    );
    finds(
        change("+/upgrade_configs", json!([])),
        "warning",
        "websocket",
    );
    let expects = |manager: &mut Value| manager["proxy_100_continue"] = json!(true);
    finds(expects, "warning", "Expect: 100-continue");
}

#[test]
fn buffers_that_are_too_small_are_named() {
    let limit = "request_body_buffer_limit";
    let host = |value: Value| {
        move |manager: &mut Value| manager["route_config"]["virtual_hosts"][0][limit] = value
    };
    finds(host(Value::Null), "error", "lets Envoy hold 1048576 bytes");
    finds(host(json!(2_228_223)), "error", "must be 2228224 or more");
    finds(
        host(json!("2097152")),
        "error",
        "lets Envoy hold 2097152 bytes",
    );
    let route = |manager: &mut Value| {
        manager["route_config"]["virtual_hosts"][0]["routes"][0][limit] = json!(65536);
    };
    finds(route, "error", "lets Envoy hold 65536 bytes");
    // A read becomes longer on its way to the filter.
    let inflated = |ratio: Value, limit: u64| {
        move |manager: &mut Value| {
            let mut decompressor = filter("decompressor");
            decompressor["typed_config"]["decompressor_library"] =
                json!({"typed_config": {"max_inflate_ratio": ratio}});
            let filters = manager["http_filters"].as_array_mut();
            filters.expect("filters").insert(0, decompressor);
            host(json!(limit))(manager);
        }
    };
    finds(
        inflated(Value::Null, 119_013_375),
        "error",
        "must be 119013376 or more",
    );
    finds(
        inflated(json!(10), 12_845_055),
        "error",
        "must be 12845056 or more",
    );
    let mut enough = example();
    inflated(Value::Null, 119_013_376)(enough.pointer_mut(MANAGER).expect("a manager"));
    assert_eq!(lines(&of(&enough)), [""; 0]);
    let unseen = |manager: &mut Value| {
        manager["route_config"] = Value::Null;
        manager["rds"] = json!({"route_config_name": "elsewhere"});
    };
    finds(unseen, "warning", "the routes are not in this text");
}

#[test]
fn local_replies_that_would_rewrite_hits_are_named() {
    let json_format = json!({"json_format": {"error": "%LOCAL_REPLY_BODY%"}});
    let with = |config: Value| move |manager: &mut Value| manager["local_reply_config"] = config;
    let rewrites = |config: Value| finds(with(config), "error", "rewrites hits");
    let leaves = |config: Value| {
        let mut example = example();
        with(config)(example.pointer_mut(MANAGER).expect("a manager"));
        assert_eq!(lines(&of(&example)), [""; 0]);
    };
    let status = |op: &str, value: u32| json!({"status_code_filter": {"comparison": {"op": op, "value": {"default_value": value}}}});
    let cel = |expression: &str| json!({"extension_filter": {"name": "cel", "typed_config": {"expression": expression}}});
    let mapper = |filter: Value| json!({"filter": filter, "body_format_override": json_format});
    let keep = json!({
        "filter": cel("'x-reflex-status' in response.headers"),
        "body_format_override": {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}},
    });

    rewrites(json!({"body_format": json_format}));
    rewrites(json!({"mappers": [mapper(status("EQ", 200))]}));
    rewrites(json!({"mappers": [mapper(status("LE", 404))]}));
    rewrites(json!({"mappers": [mapper(json!({"header_filter": {"header": {"name": "x"}}}))]}));
    rewrites(json!({"mappers": [{"filter": status("GE", 100), "status_code": 500}]}));
    let any = json!({"or_filter": {"filters": [status("GE", 500), status("LE", 299)]}});
    rewrites(json!({"mappers": [mapper(any)]}));
    // The mapper takes hits, and has no format of its own.
    let bare = json!({"filter": cel("'x-reflex-status' in response.headers")});
    rewrites(json!({"mappers": [bare], "body_format": json_format}));

    leaves(json!({"mappers": [mapper(status("GE", 400))]}));
    let both = json!({"and_filter": {"filters": [
        {"header_filter": {"header": {"name": "x"}}}, status("GE", 400),
    ]}});
    leaves(json!({"mappers": [mapper(both)]}));
    leaves(json!({"mappers": [mapper(json!({"response_flag_filter": {"flags": ["UH"]}}))]}));
    let not_ours = "!('x-reflex-status' in response.headers)";
    leaves(json!({"mappers": [mapper(cel(not_ours))]}));
    leaves(json!({"mappers": [keep], "body_format": json_format}));
    leaves(json!({"body_format": {"text_format": "%LOCAL_REPLY_BODY%"}}));
}

/// What Istio's and Envoy Gateway's users have: the admin interface's view, with routes, clusters
/// and filters that were discovered, and protobuf's other spelling.
#[test]
fn a_dump_is_read_like_a_bootstrap() {
    let bootstrap = example();
    let mut listener = bootstrap["static_resources"]["listeners"][0].clone();
    let manager = MANAGER.trim_start_matches("/static_resources/listeners/0");
    let manager = listener.pointer_mut(manager).expect("a manager");
    let mut routes = manager["route_config"].take();
    manager["rds"] = json!({"routeConfigName": "llm"});
    let mut filters = manager["http_filters"].take();
    let ours = filters[0]["typed_config"].take();
    filters[0]["config_discovery"] = json!({"config_source": {"ads": {}}});
    manager["httpFilters"] = filters;
    let clusters = bootstrap["static_resources"]["clusters"].as_array();
    let clusters: Vec<Value> = clusters
        .expect("clusters")
        .iter()
        .map(|cluster| json!({"cluster": cluster}))
        .collect();
    let dump = |routes: &Value, ours: &Value| {
        json!({"configs": [
            {"dynamic_active_clusters": clusters},
            {"dynamic_listeners": [{
                "name": "llm",
                "active_state": {"listener": listener},
                "draining_state": {"listener": {"name": "old", "filter_chains": listener}},
            }]},
            {"dynamic_route_configs": [{"route_config": routes}]},
            {"ecds_filters": [{"ecds_filter": {"name": "reflex", "typed_config": ours}}]},
        ]})
    };
    let report = of(&dump(&routes, &ours));
    assert_eq!((lines(&report), report.filters), (vec![], 1));

    let mut refused = ours.clone();
    refused["config"]["configuration"] =
        json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"upstreams": {}}});
    let found = lines(&of(&dump(&routes, &refused)));
    assert!(found[0].contains("refuses its configuration"), "{found:?}");

    routes["virtual_hosts"][0]["requestBodyBufferLimit"] =
        routes["virtual_hosts"][0]["request_body_buffer_limit"].take();
    routes["virtual_hosts"][0]
        .as_object_mut()
        .expect("a host")
        .remove("request_body_buffer_limit");
    assert_eq!(lines(&of(&dump(&routes, &ours))), [""; 0]);

    let found = of(&json!({"configs": [{"dynamic_listeners": [{
        "active_state": {"listener": listener},
    }]}]}));
    assert!(found.fails());
    let found = lines(&found);
    assert!(found[0].contains("is not seen here"), "{found:?}");
}

#[test]
fn each_chain_of_each_listener_is_read() {
    let mut config = example();
    let listener = config
        .pointer_mut("/static_resources/listeners/0")
        .expect("one");
    let mut chain = listener["filter_chains"][0].clone();
    chain["name"] = json!("other");
    let filters = &mut chain["filters"][0]["typed_config"]["http_filters"];
    filters
        .as_array_mut()
        .expect("filters")
        .insert(1, filter("rbac"));
    listener["default_filter_chain"] = chain;
    let report = of(&config);
    assert_eq!(report.filters, 2);
    let found = lines(&report);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("error: llm, other: `my-rbac`"),
        "{found:?}"
    );
}

#[test]
fn no_filter_and_no_configuration_are_told_apart() {
    let mut config = example();
    config["static_resources"]["listeners"] = json!([]);
    assert!(of(&config).fails());
    assert!(check("a: [").is_err());
    assert!(check("").expect("YAML").fails());
}

const GATEWAY: &str = include_str!("../../deploy/envoy-gateway.yaml");
const ISTIO: &str = include_str!("../../deploy/istio-envoyfilter.yaml");
const WASM_PLUGIN: &str = include_str!("../../deploy/istio-wasmplugin.yaml");

/// Checks that a sample with a change has exactly one finding, with this in it.
fn sample(text: &str, from: &str, to: &str, part: &str) {
    assert!(text.contains(from), "no `{from}`");
    let found = lines(&check(&text.replace(from, to)).expect("YAML"));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains(part), "{found:?}");
}

#[test]
fn the_samples_of_istio_and_envoy_gateway_are_checked() {
    for text in [GATEWAY, ISTIO] {
        let report = check(text).expect("YAML");
        assert_eq!((lines(&report), report.filters), (vec![], 1));
    }
    let order = "  - { name: envoy.filters.http.wasm, after: envoy.filters.http.rbac }\n";
    sample(
        GATEWAY,
        order,
        "",
        "puts `envoy.filters.http.rbac` behind wasm",
    );
    let stop = "path: allow_on_headers_stop_iteration";
    sample(GATEWAY, stop, "path: other", "requests hang");
    sample(GATEWAY, "bufferLimit: 1Mi", "bufferLimit: 2Mi", "413");
    sample(GATEWAY, "value: 2228224", "value: 1048576", "413");
    sample(
        ISTIO,
        "request_body_buffer_limit: 2228224",
        "name: any",
        "413",
    );
    sample(
        ISTIO,
        "INSERT_BEFORE",
        "INSERT_FIRST",
        "right before the router",
    );
    sample(ISTIO, "FAIL_RELOAD", "FAIL_CLOSED", "FAIL_RELOAD");

    let report = check(WASM_PLUGIN).expect("YAML");
    assert!(!report.fails());
    assert!(lines(&report)[0].starts_with("warning: WasmPlugin reflex: a WasmPlugin cannot"));
    let early = WASM_PLUGIN.replace("priority: -100", "phase: AUTHZ");
    let report = check(&early).expect("YAML");
    assert!(report.fails());
    assert!(lines(&report)[0].contains("before authorization"));
}
