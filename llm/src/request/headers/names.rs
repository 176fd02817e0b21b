//! The names of headers and cookies that cannot change an answer, by family.
//!
//! A name belongs here if its value is about the connection, the moment, the way here, the program
//! that asks, or how a request is measured. Most of these differ with each request, and a single
//! one in the key means no hit at all. The user, the country, and choices made for the request stay
//! in the key, whatever their names.

/// Headers, by name.
pub(super) static HEADERS: [&str; HEADERS_COUNT] = ordered([
    // The connection, the framing of the body, and what the edge sets itself.
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "upgrade-insecure-requests",
    // The client's instructions to caches, ours first. They are obeyed, not keyed.
    "cache-control",
    "pragma",
    // When, by which program, at which attempt.
    "date",
    "dnt",
    "idempotency-key",
    "priority",
    "sec-gpc",
    "user-agent",
    "x-goog-api-client",
    "x-idempotency-key",
    "x-ms-date",
    "x-ms-return-client-request-id",
    "x-ms-useragent",
    "x-retry-attempt",
    "x-retry-count",
    // Traces: W3C's, Zipkin's, OpenCensus's, Jaeger's.
    "b3",
    "baggage",
    "grpc-tags-bin",
    "grpc-timeout",
    "grpc-trace-bin",
    "jaeger-baggage",
    "jaeger-debug-id",
    "traceparent",
    "traceresponse",
    "tracestate",
    "uber-trace-id",
    // Of monitoring agents: Elastic, Sentry, New Relic, AppDynamics, Dynatrace,
    // SkyWalking, Honeycomb, Lightstep, SolarWinds, LangSmith, Braintrust, Weave, CAT.
    "adrum",
    "elastic-apm-traceparent",
    "langsmith-trace",
    "newrelic",
    "sentry-trace",
    "singularityheader",
    "sw3",
    "sw5",
    "sw6",
    "sw8",
    "sw8-correlation",
    "sw8-x",
    "weave-trace",
    "x-bt-parent",
    "x-cat-child-id",
    "x-cat-id",
    "x-cat-parent-id",
    "x-cat-root-id",
    "x-dtpc",
    "x-dtreferer",
    "x-dynatrace",
    "x-honeycomb-trace",
    "x-ot-span-context",
    "x-trace",
    "x-trace-options",
    "x-trace-options-signature",
    // Ids of requests, by any gateway.
    "ali-trace-id",
    "correlation-context",
    "correlation-id",
    "correlationid",
    "dapr-traceparent",
    "ecid-context",
    "opc-request-id",
    "request-context",
    "request-id",
    "request_id",
    "requestid",
    "sap-passport",
    "span-id",
    "trace-id",
    "trace_id",
    "traceid",
    "transaction-id",
    "unique-id",
    "x-amz-request-id",
    "x-amzn-request-id",
    "x-amzn-requestid",
    "x-amzn-trace-id",
    "x-api-gateway-request-id",
    "x-apigw-request-id",
    "x-ca-request-id",
    "x-client-request-id",
    "x-client-trace-id",
    "x-cloud-trace-context",
    "x-correlation-id",
    "x-correlationid",
    "x-global-transaction-id",
    "x-goog-request-id",
    "x-invocation-id",
    "x-kong-request-id",
    "x-ms-client-request-id",
    "x-ms-client-session-id",
    "x-ms-correlation-request-id",
    "x-ms-request-id",
    "x-ms-request-root-id",
    "x-ms-routing-request-id",
    "x-nginx-request-id",
    "x-oracle-dms-ecid",
    "x-oracle-dms-rid",
    "x-parent-span-id",
    "x-req-id",
    "x-reqid",
    "x-request-id",
    "x-request-uuid",
    "x-requestid",
    "x-span-id",
    "x-tc-requestid",
    "x-trace-id",
    "x-traceid",
    "x-transaction-id",
    "x-tt-logid",
    "x-tt-trace-id",
    "x-unique-id",
    "x-varnish",
    "x-vcap-request-id",
    "x-yandex-req-id",
    "kong-request-id",
    "apim-request-id",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    // Ids that LLM gateways and their observers give a request. Their headers about users and
    // prompts stay in the key.
    "cf-aig-event-id",
    "cf-aig-log-id",
    "helicone-request-id",
    "helicone-session-id",
    "helicone-session-name",
    "helicone-session-path",
    "langfuse_parent_observation_id",
    "langfuse_session_id",
    "langfuse_trace_id",
    "x-langfuse-trace-id",
    "x-litellm-call-id",
    "x-litellm-session-id",
    "x-litellm-trace-id",
    "x-portkey-parent-span-id",
    "x-portkey-span-id",
    "x-portkey-span-name",
    "x-portkey-trace-id",
    // Sessions, tasks and turns of coding agents, and the program they run in.
    "anthropic-dangerous-direct-browser-access",
    "editor-plugin-version",
    "editor-version",
    "originator",
    "vscode-machineid",
    "vscode-sessionid",
    "x-agent-task-id",
    "x-claude-code-agent-id",
    "x-claude-code-parent-agent-id",
    "x-claude-code-session-id",
    "x-claude-remote-container-id",
    "x-claude-remote-session-id",
    "x-cline-task-id",
    "x-cline-version",
    "x-codex-installation-id",
    "x-codex-parent-thread-id",
    "x-codex-turn-metadata",
    "x-codex-turn-state",
    "x-codex-window-id",
    "x-cursor-client-version",
    "x-cursor-session-id",
    "x-cursor-timezone",
    "x-gemini-cli-session-id",
    "x-goose-session-id",
    "x-initiator",
    "x-interaction-id",
    "x-interaction-type",
    "x-kilocode-editorname",
    "x-kilocode-projectid",
    "x-kilocode-taskid",
    "x-kilocode-version",
    "x-openai-subagent",
    "x-opencode-client",
    "x-opencode-project",
    "x-opencode-request",
    "x-opencode-session",
    "x-parent-session-id",
    "x-qwen-code-session-id",
    "x-roo-app-version",
    "x-roo-task-id",
    "x-session-affinity",
    "x-vscode-sessionid",
    "x-zed-thread-id",
    // The way here. Not all of `x-forwarded-`: some of those name the user.
    "akamai-grn",
    "akamai-origin-hop",
    "ali-cdn-real-ip",
    "cdn-loop",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-connecting-o2o",
    "cf-ew-via",
    "cf-pseudo-ipv4",
    "cf-ray",
    "cf-request-id",
    "cf-visitor",
    "cf-worker",
    "client-ip",
    "cloudfront-forwarded-proto",
    "cloudfront-viewer-address",
    "cloudfront-viewer-header-count",
    "cloudfront-viewer-header-order",
    "cloudfront-viewer-http-version",
    "cloudfront-viewer-ja3-fingerprint",
    "cloudfront-viewer-ja4-fingerprint",
    "cloudfront-viewer-tls",
    "connect-time",
    "do-connecting-ip",
    "fastly-client",
    "fastly-client-ip",
    "fastly-ff",
    "fastly-orig-accept-encoding",
    "fastly-soc-x-request-id",
    "fastly-ssl",
    "fastly-temp-xff",
    "fly-client-ip",
    "fly-forwarded-port",
    "fly-forwarded-proto",
    "fly-forwarded-ssl",
    "fly-request-id",
    "fly-traceparent",
    "fly-tracestate",
    "forwarded",
    "forwarded-for",
    "function-execution-id",
    "heroku-request-id",
    "incap-client-ip",
    "incap-proxy-id",
    "incap-tls-version",
    "k-proxy-request",
    "l5d-ctx-deadline",
    "l5d-ctx-trace",
    "l5d-remote-ip",
    "l5d-reqid",
    "l5d-sample",
    "l5d-server-id",
    "proxy-client-ip",
    "render-proxy-ttl",
    "rndr-id",
    "total-route-time",
    "true-client-ip",
    "via",
    "wl-proxy-client-ip",
    "x-akamai-config-log-detail",
    "x-akamai-grn",
    "x-akamai-pragma-client-ip",
    "x-akamai-request-id",
    "x-akamai-sr-hop",
    "x-amz-cf-id",
    "x-amzn-tls-cipher-suite",
    "x-amzn-tls-version",
    "x-appengine-https",
    "x-appengine-remote-addr",
    "x-appengine-request-id-hash",
    "x-appengine-request-log-id",
    "x-appengine-timeout-ms",
    "x-appengine-user-ip",
    "x-appservice-proto",
    "x-arr-log-id",
    "x-arr-ssl",
    "x-azure-clientip",
    "x-azure-fdid",
    "x-azure-ja4-fingerprint",
    "x-azure-ref",
    "x-azure-requestchain",
    "x-azure-socketip",
    "x-bb-client-request-uuid",
    "x-bb-ip",
    "x-bb-loop",
    "x-cdn",
    "x-cf-instanceid",
    "x-cf-instanceindex",
    "x-cf-true-client-ip",
    "x-client-data",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-external-address",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-is-timeout-retry",
    "x-envoy-max-retries",
    "x-envoy-peer-metadata",
    "x-envoy-peer-metadata-id",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-service-time",
    "x-forwarded",
    "x-forwarded-client-ip",
    "x-forwarded-for",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-hikari-trace",
    "x-iinfo",
    "x-istio-attributes",
    "x-kong-proxy-latency",
    "x-kong-upstream-latency",
    "x-nf-client-connection-ip",
    "x-nf-request-id",
    "x-nf-trace-span-id",
    "x-nws-log-uuid",
    "x-original-forwarded-for",
    "x-originating-ip",
    "x-queue-start",
    "x-railway-edge",
    "x-railway-request-id",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-request-start",
    "x-request-time",
    "x-scheme",
    "x-served-by",
    "x-sucuri-clientip",
    "x-sucuri-id",
    "x-timer",
    "x-url-scheme",
    "x-vercel-deployment-url",
    "x-vercel-forwarded-for",
    "x-vercel-id",
    "x-vercel-ja4-digest",
    "x-vercel-proxied-for",
    "x-vercel-proxy-signature",
    "x-vercel-proxy-signature-ts",
]);

const HEADERS_COUNT: usize = 345;

/// The names of this length, sorted.
pub(super) fn of_length(length: usize) -> &'static [&'static str] {
    match STARTS.get(length..length + 2) {
        Some(&[start, end]) => &HEADERS[start..end],
        _ => &[],
    }
}

/// For each length, the number of names that are shorter. The last length has no name.
const STARTS: [usize; 64] = {
    let mut starts = [0; 64];
    let mut length = 0;
    while length < starts.len() {
        let mut shorter = 0;
        while shorter < HEADERS_COUNT && HEADERS[shorter].len() < length {
            shorter += 1;
        }
        starts[length] = shorter;
        length += 1;
    }
    assert!(
        starts[starts.len() - 1] == HEADERS_COUNT,
        "a name is too long"
    );
    starts
};

/// Headers, by how the name begins.
pub(super) const PREFIXES: &[&str] = &[
    // HTTP/2's own fields; method, path and authority are keyed in their own right.
    ":",
    // AppDynamics, Pinpoint, Alibaba's EagleEye, OpenTracing, Jaeger's baggage.
    "adrum_",
    "eagleeye-",
    "ot-tracer-",
    "pinpoint-",
    "uberctx-",
    // Headers that a browser adds by itself about the page.
    "sec-ch-",
    "sec-fetch-",
];

/// Headers, by how the name goes on after `x-`.
pub(super) const X_PREFIXES: &[&str] = &[
    // Traces: Zipkin, Datadog, Dynatrace, Instana, New Relic, Ruxit.
    "b3-",
    "datadog-",
    "dynatrace-",
    "instana-",
    "newrelic-",
    "ruxit-",
    // Which SDK, which version of it, on which system, at which attempt.
    "fern-",
    "stainless-",
    // The load of a dyno.
    "heroku-",
    // Settings of our own, per request.
    "reflex-",
];

/// Headers of coding agents that name a session, in words that servers with a memory use as well.
/// Out of the key where the provider is known to have none, and where the agent is known.
pub(super) const SESSIONS: &[&str] = &[
    "conversation-id",
    "conversation_id",
    "session-id",
    "session_id",
    "thread-id",
    "thread_id",
    "x-conversation-id",
    "x-session-id",
    "x-task-id",
    "x-thread-id",
];

/// How the names of coding agents begin, in `originator` or `user-agent`, small letters.
pub(super) const AGENTS: &[&str] = &[
    "aider",
    "claude-cli",
    "claude-code",
    "cline",
    "codex",
    "crush",
    "cursor",
    "gemini-cli",
    "geminicli",
    "goose",
    "kilo",
    "opencode",
    "qwencode",
    "qwen-code",
    "roo",
    "zed",
];

/// Cookies that load balancers, bot managers and monitoring agents set; clients return them. `*`
/// stands for any text. Any other cookie may be a session.
pub(super) const COOKIES: &[&str] = &[
    // Load balancers: AWS, Azure, Google, F5, HAProxy, nginx, Traefik, Alibaba, Oracle, DigitalOcean.
    "AWSALB",
    "AWSALBAPP-*",
    "AWSALBCORS",
    "AWSALBTG",
    "AWSALBTGCORS",
    "AWSELB",
    "AWSELBCORS",
    "ARRAffinity",
    "ARRAffinitySameSite",
    "ASLBSA",
    "ASLBSACORS",
    "ApplicationGatewayAffinity",
    "ApplicationGatewayAffinityCORS",
    "BIGipServer*",
    "DO-LB",
    "GCLB",
    "INGRESSCOOKIE",
    "SERVERID",
    "X-Oracle-BMC-LBS-Route",
    "__cflb",
    "akaalb_*",
    "citrix_ns_id",
    "nlbi_*",
    "srv_id",
    // Bot managers: Cloudflare, Akamai, Imperva, Alibaba, DataDome, HUMAN, AWS.
    "__cf_bm",
    "__cfduid",
    "__cfruid",
    "__cfseq",
    "_cfuvid",
    "cf_chl_*",
    "cf_clearance",
    "_abck",
    "ak_bmsc",
    "bm_lso",
    "bm_mi",
    "bm_s",
    "bm_so",
    "bm_ss",
    "bm_sv",
    "bm_sz",
    "___utmv*",
    "incap_ses_*",
    "visid_incap_*",
    "acw_sc__v2",
    "acw_tc",
    "aliyungf_tc",
    "datadome",
    "_px",
    "_px2",
    "_px3",
    "_pxde",
    "_pxhd",
    "_pxvid",
    "aws-waf-token",
    // Monitoring: Dynatrace, AppDynamics, Datadog, Google, Microsoft.
    "dtCookie",
    "dtLatC",
    "dtPC",
    "dtSa",
    "rxVisitor",
    "rxvt",
    "ADRUM_*",
    "_dd_s",
    "_ga",
    "_ga_*",
    "_gid",
    "_gcl_au",
    "_clck",
    "_clsk",
];

/// Sorts names by length and then by their bytes, at compile time, so that the list can be read by
/// family and searched in a few steps.
const fn ordered<const N: usize>(mut names: [&str; N]) -> [&str; N] {
    let mut sorted = 1;
    while sorted < N {
        let mut at = sorted;
        while at > 0 && is_before(names[at], names[at - 1]) {
            names.swap(at - 1, at);
            at -= 1;
        }
        sorted += 1;
    }
    names
}

const fn is_before(a: &str, b: &str) -> bool {
    if a.len() != b.len() {
        return a.len() < b.len();
    }
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return a[at] < b[at];
        }
        at += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_stands_here_once_and_in_lower_case() {
        assert!(HEADERS.is_sorted_by(|a, b| is_before(a, b)));
        for name in HEADERS.iter().chain(SESSIONS) {
            assert_eq!(*name, name.to_ascii_lowercase());
        }
        for length in 0..100 {
            let names = HEADERS.iter().filter(|name| name.len() == length);
            assert!(names.eq(of_length(length)), "{length}");
        }
    }
}
