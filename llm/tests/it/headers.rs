//! Which headers and cookies are in the key: all but those known not to change an answer.

use reflex_llm::{Rules, check_tenant_header};

use crate::embeddings::embedding;
use crate::gemini::generate;
use crate::messages::message;
use crate::request::{Request, chat, differ, same};

/// A server whose treatment of requests is not known.
fn gateway() -> Request {
    chat().upstream("https://gateway.internal:4000")
}

#[test]
fn headers_that_may_change_the_answer_are_in_the_key() {
    for name in [
        "accept-language",
        "anthropic-beta",
        "anthropic-version",
        "azureml-model-deployment",
        "cf-aig-metadata",
        "cf-ipcountry",
        "content-type",
        "extra-parameters",
        "l5d-dst-override",
        "openai-beta",
        "origin",
        "version",
        "x-appengine-country",
        "x-codex-beta-features",
        "x-consumer-username",
        "x-envoy-anything-else",
        "x-envoy-ip-tags",
        "x-envoy-original-dst-host",
        "x-forwarded-client-cert",
        "x-forwarded-host",
        "x-forwarded-user",
        "x-openclaw-session-key",
        "x-original-url",
        "x-portkey-config",
    ] {
        for request in [chat(), gateway()] {
            let with = |value: &str| request.clone().header(name, value);
            differ(&request, &with("a"));
            differ(&with("a"), &with("A"));
            differ(&with("a"), &with("a").header(name, "a"));
            let both = with("a").header(name, "b");
            differ(&both, &with("b").header(name, "a"));
        }
    }
    same(
        &chat().header("x-a", "a").header("openai-beta", "b"),
        &chat().header("openai-beta", "b").header("x-a", "a"),
    );
}

/// Behind a gateway, a tracing agent or a hosting platform, each request has its own: in the key,
/// such a header means no hit at all.
#[test]
fn headers_that_vary_with_each_request_are_not_in_the_key() {
    for name in [
        ":authority",
        "accept-encoding",
        "cache-control",
        "content-length",
        "host",
        "idempotency-key",
        "user-agent",
        "x-fern-sdk-version",
        "x-reflex-ttl",
        "x-stainless-retry-count",
        // Gateways and proxies.
        "x-amzn-trace-id",
        "x-correlation-id",
        "x-envoy-attempt-count",
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-external-address",
        "x-envoy-peer-metadata",
        "x-envoy-upstream-rq-timeout-ms",
        "x-forwarded-for",
        "x-forwarded-server",
        "x-kong-request-id",
        "x-real-ip",
        "x-request-id",
        "x-unique-id",
        "x-varnish",
        "l5d-ctx-trace",
        // Tracing.
        "adrum_1",
        "b3",
        "baggage",
        "elastic-apm-traceparent",
        "newrelic",
        "ot-tracer-traceid",
        "pinpoint-traceid",
        "sentry-trace",
        "singularityheader",
        "sw8",
        "traceparent",
        "tracestate",
        "uber-trace-id",
        "x-b3-traceid",
        "x-cloud-trace-context",
        "x-datadog-trace-id",
        "x-dynatrace",
        "x-instana-t",
        "x-newrelic-transaction",
        "x-ot-span-context",
        // Hosting platforms.
        "akamai-grn",
        "cf-ray",
        "cloudfront-viewer-address",
        "fastly-client-ip",
        "fly-request-id",
        "function-execution-id",
        "incap-client-ip",
        "rndr-id",
        "x-amz-cf-id",
        "x-appengine-request-log-id",
        "x-arr-log-id",
        "x-azure-ref",
        "x-heroku-queue-depth",
        "x-nf-request-id",
        "x-railway-request-id",
        "x-vcap-request-id",
        "x-vercel-id",
        // Coding agents.
        "x-claude-code-session-id",
        "x-codex-turn-metadata",
        "x-interaction-id",
        "x-opencode-request",
        "x-opencode-session",
        "x-session-affinity",
    ] {
        for request in [chat(), gateway()] {
            same(&request, &request.clone().header(name, "a"));
        }
    }
}

/// Codex names its session in headers that servers with a memory may use.
#[test]
fn a_session_counts_unless_the_provider_or_the_agent_is_known() {
    for name in ["session_id", "session-id", "conversation_id", "thread-id"] {
        let with = |request: &Request, value: &str| request.clone().header(name, value);
        same(&with(&chat(), "a"), &with(&chat(), "b"));
        differ(&with(&gateway(), "a"), &with(&gateway(), "b"));
        for (header, agent) in [
            ("user-agent", "codex_cli_rs/0.120.0 (Debian 13; x86_64)"),
            ("originator", "codex_vscode"),
            ("user-agent", "Cline/3.0"),
        ] {
            let agent = gateway().header(header, agent);
            same(&with(&agent, "a"), &with(&agent, "b"));
        }
        let other = gateway().header("user-agent", "my-codex");
        differ(&with(&other, "a"), &with(&other, "b"));
    }
}

#[test]
fn cookies_of_load_balancers_and_bot_managers_do_not_count_one_by_one() {
    let with = |value: &str| gateway().header("cookie", value);
    for cookie in [
        "AWSALB=x",
        "AWSALBCORS=x",
        "AWSALBAPP-0=x",
        "AWSELB=x",
        "ARRAffinity=x",
        "ARRAffinitySameSite=x",
        "BIGipServerpool_443=x",
        "SERVERID=a|b|c",
        "GCLB=\"x\"",
        "ApplicationGatewayAffinity=x",
        "__cf_bm=a.b-c; _cfuvid=d",
        "__cf_bm=a;AWSALB=b ; ;",
        "visid_incap_1=x; incap_ses_1_2=y; nlbi_3=z",
        "bm_sz=a; ak_bmsc=b; _abck=c",
        "acw_tc=x",
        "",
    ] {
        same(&gateway(), &with(cookie));
        let beside = format!("{cookie}; session=s");
        same(&with("session=s"), &with(&beside));
        let around = format!("theme=t; {cookie};session=s");
        same(&with("theme=t; session=s"), &with(&around));
    }
    for cookie in [
        "session=s",
        "awsalb=x",
        "SERVERIDX=x",
        "XAWSALB=x",
        "route=a",
    ] {
        differ(&gateway(), &with(cookie));
    }
    differ(&with("session=s"), &with("session=t"));
    differ(&with("a=1; b=2"), &with("b=2; a=1"));
    differ(&with("a=1; b=2"), &with("a=1,b=2"));
}

/// RFC 9113, section 8.2.3.
#[test]
fn cookies_split_by_http2_are_those_of_http1() {
    let whole = chat().header("cookie", "a=1; b=2; c=3");
    same(
        &whole,
        &chat().header("cookie", "a=1").header("cookie", "b=2; c=3"),
    );
    let split = chat().header("cookie", "a=1");
    let split = split.header("x-between", "x").header("cookie", "b=2");
    let split = split.header("cookie", "__cf_bm=z").header("cookie", "c=3");
    same(&whole.clone().header("x-between", "x"), &split);
    differ(
        &whole,
        &chat().header("cookie", "a=1").header("cookie", "c=3; b=2"),
    );
}

#[test]
fn clients_that_take_json_share_whatever_they_say() {
    let with = |value: &str| gateway().header("accept", value);
    let stream = gateway().fields(r#""stream":true"#);
    for value in [
        "application/json",
        "*/*",
        "",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/*",
        "application/json, text/plain, */*",
        "application/json, text/event-stream",
        "text/event-stream, application/json;q=0.5",
        "application/json;q=0.9, */*;q=0.8",
    ] {
        same(&gateway(), &with(value));
        same(&stream, &stream.clone().header("accept", value));
    }
    same(
        &gateway(),
        &with("application/json").header("accept", "text/event-stream"),
    );
}

#[test]
fn what_a_client_takes_counts_where_it_can_change_the_answer() {
    let with = |value: &str| gateway().header("accept", value);
    for value in [
        "text/plain",
        "text/html",
        "application/xml, */*",
        "application/x-ndjson",
        "application/json;version=2",
        "application/json;q=0",
        "application/vnd.api+json",
        "audio/wav",
    ] {
        differ(&gateway(), &with(value));
    }
    // A server may stream because the client takes nothing else, unless the body says so anyway.
    differ(&gateway(), &with("text/event-stream"));
    differ(&gateway(), &with("text/event-stream, text/plain;q=0.1"));
    let stream = |request: Request| request.fields(r#""stream":true"#);
    same(&stream(gateway()), &stream(with("text/event-stream")));
    differ(&stream(gateway()), &stream(with("text/html")));
}

#[test]
fn operators_name_what_else_does_not_count() {
    let list = |patterns: &[&str]| patterns.iter().map(|&it| it.to_owned()).collect();
    let rules = Rules {
        ignored_headers: list(&["x-my-id", "x-trace-*"]),
        ignored_cookies: list(&["mine_*"]),
        ..Rules::default()
    };
    assert_eq!(rules.check(Some("x-team")), Ok(()));
    let request = gateway().rules(rules);
    same(&request, &request.clone().header("x-my-id", "a"));
    same(&request, &request.clone().header("x-trace-of-mine", "a"));
    differ(&request, &request.clone().header("x-my-id2", "a"));
    same(
        &request,
        &request.clone().header("cookie", "mine_1=a; __cf_bm=b"),
    );
    differ(
        &request,
        &request.clone().header("cookie", "mine_1=a; yours=b"),
    );
    // Without the lists, they count; with them, the key is that of a request without them.
    differ(&gateway(), &gateway().header("x-my-id", "a"));
    same(&gateway(), &request);
}

/// A proxy that adds a parameter to each request made every request a miss, with no setting to help.
#[test]
fn operators_name_parameters_of_the_query_that_do_not_count() {
    let rules = Rules {
        ignored_query: ["request_id", "trace_*"].map(str::to_owned).to_vec(),
        ..Rules::default()
    };
    assert_eq!(rules.check(None), Ok(()));
    for request in [gateway(), message(), generate(), embedding()] {
        let request = request.rules(rules.clone());
        let path = request.path.clone();
        let at = |query: &str| match path.split_once('?') {
            Some((path, google)) => request.clone().path(&format!("{path}?{google}&{query}")),
            None => request.clone().path(&format!("{path}?{query}")),
        };
        for query in [
            "request_id=1",
            "request_id",
            "request_id=",
            "request_id=1&request_id=2",
            "trace_a=1&request_id=2&trace_b",
        ] {
            same(&request, &at(query));
        }
        // What is left keeps its order, and counts.
        let one = at("api-version=1&b=2");
        same(&one, &at("request_id=7&api-version=1&trace_x=1&b=2"));
        differ(&one, &at("b=2&request_id=7&api-version=1"));
        for query in [
            "request_id2=1",
            "Request_id=1",
            "other=request_id",
            "a=1&request_id=2",
        ] {
            differ(&request, &at(query));
        }
        // Without the list it counts; with it, the unnamed ones have the key that they had.
        let plain = |request: Request| request.rules(Rules::default());
        differ(&plain(request.clone()), &plain(at("request_id=1")));
        same(&plain(one.clone()), &one);
    }
    // Where a semicolon or an escape may hide another parameter, all of it counts.
    for query in ["request_id=1;model=b", "request%5Fid=1", "request_id;a=1"] {
        let request = gateway().rules(rules.clone());
        let path = format!("{}?{query}", request.path);
        differ(&request, &request.clone().path(&path));
    }
}

#[test]
fn patterns_that_would_hide_the_caller_in_a_query_are_refused() {
    for (pattern, name) in [
        ("*", "`access_token`"),
        ("key", "`key`"),
        ("k*", "`key`"),
        ("api*", "`api-key`"),
        ("API_KEY", "`api_key`"),
        ("*token", "`access_token`"),
        ("subscription-*", "`subscription-key`"),
        ("sig", "`sig`"),
        ("alt", "`alt`"),
        ("$alt", "`$alt`"),
        ("a=b", "no parameter's name"),
        ("a&b", "no parameter's name"),
        ("?a", "no parameter's name"),
        ("", "1 to 256"),
    ] {
        let rules = Rules {
            ignored_query: vec![pattern.to_owned()],
            ..Rules::default()
        };
        let error = rules.check(None).expect_err(pattern);
        assert!(error.starts_with("ignored_query: "), "{error}");
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn patterns_that_would_hide_the_caller_are_refused() {
    let headers = |pattern: &str| {
        let rules = Rules {
            ignored_headers: vec![pattern.to_owned()],
            ..Rules::default()
        };
        rules.check(Some("x-team")).expect_err(pattern)
    };
    for (pattern, name) in [
        ("*", "`x-team`"),
        ("x-*", "`x-team`"),
        ("x-team", "`x-team`"),
        ("authorization", "`authorization`"),
        ("auth*", "`authorization`"),
        ("*-key", "`x-api-key`"),
        ("api-key", "`api-key`"),
        ("openai-*", "`openai-organization`"),
        ("cookie", "ignored_cookies"),
        ("X-My-Id", "lower case"),
        ("x my id", "lower case"),
        ("", "1 to 256"),
    ] {
        let error = headers(pattern);
        assert!(error.contains(name), "{error}");
        assert!(error.starts_with("ignored_headers: "), "{error}");
    }
    for cookie in ["*", "a=b", "a; b", ""] {
        let rules = Rules {
            ignored_cookies: vec![cookie.to_owned()],
            ..Rules::default()
        };
        let error = rules.check(None).expect_err(cookie);
        assert!(error.starts_with("ignored_cookies: "), "{error}");
    }
    let rules = Rules {
        ignored_headers: vec!["x-a".to_owned(); 1001],
        ..Rules::default()
    };
    assert!(rules.check(None).is_err(), "the list has a bound");
}

#[test]
fn a_header_that_never_arrives_names_no_tenant() {
    for name in [
        "host",
        "connection",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "transfer-encoding",
        "content-length",
        "content-type",
        "content-encoding",
        "accept-encoding",
        "via",
        "cookie",
        "cache-control",
        "x-reflex-ttl",
        ":authority",
        ":path",
        "X-Team",
        "x team",
        "x-*",
        "",
    ] {
        let error = check_tenant_header(name).expect_err(name);
        assert!(error.starts_with("tenant_header: "), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    for name in [
        "x-team",
        "x-forwarded-user",
        "authorization",
        "x-consumer-id",
    ] {
        assert_eq!(check_tenant_header(name), Ok(()));
    }
}
