//! Gemini's requests: their paths, the meaning of their query, which parts count.

use reflex_llm::{Anonymous, Bypass, Head, Policy, Representation, candidate};

use crate::request::{Request, chat, counts, differ, ignored, same};

const GENERATE: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const STREAM: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent";
const EMBED: &str = "/v1beta/models/gemini-embedding-001:embedContent";
const BATCH: &str = "/v1beta/models/gemini-embedding-001:batchEmbedContents";

pub(crate) fn generate() -> Request {
    chat()
        .upstream("https://generativelanguage.googleapis.com")
        .path(GENERATE)
        .without_headers()
        .header("x-goog-api-key", "AIza-one")
        .body(r#"{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#)
}

fn anonymous() -> Request {
    generate().without_headers()
}

fn at(request: &Request, path: &str) -> Request {
    request.clone().path(path)
}

#[test]
fn gemini_answers_under_its_versions_and_any_prefix() {
    for (path, shape) in [
        (GENERATE, "gemini-generate-content"),
        (STREAM, "gemini-stream-generate-content"),
        (EMBED, "gemini-embed-content"),
        (BATCH, "gemini-batch-embed-contents"),
        (
            "/v1/models/gemini-2.5-pro:generateContent",
            "gemini-generate-content",
        ),
        (
            "/v1alpha/models/gemini-2.5-pro:generateContent",
            "gemini-generate-content",
        ),
        (
            "/gateway/google/v1beta/models/m:generateContent?$alt=json",
            "gemini-generate-content",
        ),
        (
            "/v1beta/tunedModels/mine:generateContent",
            "gemini-generate-content",
        ),
        (
            "/v1beta1/projects/p/locations/l/publishers/google/models/m:streamGenerateContent?alt=sse",
            "gemini-stream-generate-content+sse",
        ),
    ] {
        assert_eq!(
            at(&generate(), path).exchange().shape.name(),
            shape,
            "{path}"
        );
    }
    for path in [
        "/v1beta/models/m:countTokens",
        "/v1beta/models/m:batchGenerateContent",
        "/v1beta/models/m:generateAnswer",
        "/v1beta/models/m:predict",
        "/v1beta/models/:generateContent",
        "/v1beta/models/a:b:generateContent",
        "/v1beta/models/m%2Fn:generateContent",
        "/v1beta/models/m%3AgenerateContent",
        "/v1beta/models/m:GenerateContent",
        "/v1beta/models/m:generateContent/",
        "/v1beta/models/m/generateContent",
        "/v2/models/m:generateContent",
        "/models/m:generateContent",
        "/v1beta/other/m:generateContent",
        "/v1beta/models",
    ] {
        assert_eq!(at(&generate(), path).bypass(), Bypass::Path, "{path}");
    }
}

#[test]
fn model_version_and_method_are_in_the_key() {
    let paths = [
        GENERATE,
        STREAM,
        "/v1/models/gemini-2.5-flash:generateContent",
        "/v1beta/models/gemini-2.5-pro:generateContent",
        "/v1beta/tunedModels/gemini-2.5-flash:generateContent",
        "/x/v1beta/models/gemini-2.5-flash:generateContent",
    ];
    for (nth, path) in paths.iter().enumerate() {
        for other in &paths[nth + 1..] {
            differ(&at(&generate(), path), &at(&generate(), other));
        }
    }
}

#[test]
fn a_key_in_the_query_is_the_tenant_and_not_the_question() {
    let with = |query: &str| at(&anonymous(), &format!("{GENERATE}?{query}"));
    assert_eq!(anonymous().bypass(), Bypass::NoCredential);
    for name in ["key", "access_token", "oauth_token"] {
        let one = with(&format!("{name}=one"));
        let two = with(&format!("{name}=two"));
        differ(&one, &two);
        assert_ne!(one.exchange().key.tenant, two.exchange().key.tenant);
        assert_eq!(with(&format!("{name}=")).bypass(), Bypass::NoCredential);
        assert_eq!(with(name).bypass(), Bypass::NoCredential);
        // The same secret by another way is another caller, as with headers.
        let header = anonymous().header("x-goog-api-key", "one");
        assert_ne!(one.exchange().key.tenant, header.exchange().key.tenant);
    }
    differ(&with("key=one"), &with("access_token=one"));
    // Its place has no meaning, and is not part of the question.
    same(&with("key=one&x=1"), &with("x=1&key=one"));
    same(&with("key=one"), &with("&key=one&"));
    same(&with("key=one"), &with("key=one&key="));
    // Each counts.
    differ(&with("key=one"), &with("key=one&key=two"));
    differ(
        &with("key=one"),
        &with("key=one").header("x-goog-api-key", "k"),
    );
    // A trusted name stands for it, and anonymous callers have none.
    let trusted = |query: &str| Request {
        tenant_header: Some("x-team".into()),
        ..with(query).header("x-team", "a")
    };
    same(&trusted("key=one"), &trusted("key=two"));
    same(&trusted("key=one"), &trusted(""));
    let shared = |query: &str| Request {
        anonymous: Anonymous::Share,
        ..with(query)
    };
    differ(&shared("key=one"), &shared(""));
    same(&shared("key="), &shared(""));
}

#[test]
fn a_key_in_the_query_is_a_credential_of_google_only() {
    let chat = |query: &str| chat().path(&format!("/v1/chat/completions?{query}"));
    differ(&chat("key=one"), &chat("key=two"));
    assert_eq!(
        chat("key=one").exchange().key.tenant,
        chat("key=two").exchange().key.tenant
    );
    let anonymous = chat("key=one").without_headers();
    assert_eq!(anonymous.bypass(), Bypass::NoCredential);
}

#[test]
fn a_key_in_the_query_is_never_shown() {
    let path = format!("{GENERATE}?key=secret");
    let head = Head {
        method: "POST",
        upstream: "https://generativelanguage.googleapis.com",
        path: &path,
        headers: &[],
    };
    let candidate = candidate(&head, &Policy::default()).unwrap();
    assert!(!format!("{head:?} {candidate:?}").contains("secret"));
}

#[test]
fn alt_is_the_representation() {
    let stream = |query: &str| at(&generate(), &format!("{STREAM}{query}"));
    let representation = |query: &str| stream(query).exchange().shape.representation;
    assert_eq!(representation("?alt=sse"), Representation::Sse);
    assert_eq!(representation("?$alt=sse"), Representation::Sse);
    for query in ["", "?", "?alt=json", "?$alt=json"] {
        assert_eq!(representation(query), Representation::Json, "{query}");
        same(&stream(""), &stream(query));
    }
    differ(&stream(""), &stream("?alt=sse"));
    same(&stream("?alt=sse"), &stream("?$alt=sse"));
    let generate = |query: &str| at(&generate(), &format!("{GENERATE}?{query}"));
    same(&generate(""), &generate("alt=json"));
    for request in [
        generate("alt=sse"),
        generate("alt=proto"),
        generate("alt="),
        generate("alt"),
        generate("alt=JSON"),
        generate("alt=json&alt=json"),
        generate("alt=json&$alt=json"),
        stream("?alt=media"),
        stream("?alt=%73se"),
        stream("?%61lt=sse"),
        stream("?a+b=c"),
        stream("?x=1;alt=sse"),
        stream("?x;alt=sse"),
    ] {
        assert_eq!(request.bypass(), Bypass::Query, "{}", request.path);
    }
    // The body does not matter here.
    counts(&generate(""), r#""stream":true"#);
}

#[test]
fn other_parameters_count() {
    let with = |query: &str| at(&generate(), &format!("{GENERATE}{query}"));
    differ(&with(""), &with("?fields=candidates"));
    differ(&with("?fields=a"), &with("?fields=b"));
    differ(&with("?a=1&b=2"), &with("?b=2&a=1"));
    differ(&with("?a=1"), &with("?a=1&a=1"));
    differ(&with("?prettyPrint=false"), &with(""));
    differ(&with("?a"), &with("?a="));
    same(&with("?a=1&alt=json&b=2"), &with("?a=1&b=2"));
}

#[test]
fn the_short_list_of_gemini() {
    for path in [GENERATE, STREAM, EMBED, BATCH] {
        let request = at(&generate(), path);
        ignored(&request, r#""labels":{"team":"a"}"#);
        for fields in [
            r#""user":"u""#,
            r#""metadata":{}"#,
            r#""systemInstruction":{"parts":[{"text":"Be brief."}]}"#,
            r#""generationConfig":{"temperature":0}"#,
            r#""safetySettings":[]"#,
            r#""toolConfig":{"functionCallingConfig":{"mode":"NONE"}}"#,
            r#""taskType":"RETRIEVAL_QUERY""#,
            r#""outputDimensionality":256"#,
            r#""requests":[]"#,
        ] {
            counts(&request, fields);
        }
        counts(&request, r#""x":{"labels":{}}"#);
    }
}

#[test]
fn what_google_looks_up_or_runs_passes_by() {
    let check = |fields: &str, expected| {
        assert_eq!(generate().fields(fields).bypass(), expected, "{fields}");
    };
    check(
        r#""cachedContent":"cachedContents/c""#,
        Bypass::ProviderState,
    );
    check(
        r#""cached_content":"cachedContents/c""#,
        Bypass::ProviderState,
    );
    check(r#""store":true"#, Bypass::Store);
    for kind in [
        "googleSearch",
        "google_search",
        "googleSearchRetrieval",
        "codeExecution",
        "code_execution",
        "urlContext",
        "googleMaps",
        "fileSearch",
        "computerUse",
        "retrieval",
        "mcpServers",
        "somethingNew",
    ] {
        let declared = r#""functionDeclarations":[{"name":"f"}]"#;
        check(
            &format!(r#""tools":[{{"{kind}":{{}}}}]"#),
            Bypass::HostedTool,
        );
        check(
            &format!(r#""tools":[{{{declared}}},{{{declared},"{kind}":{{}}}}]"#),
            Bypass::HostedTool,
        );
    }
    check(r#""tools":[[]]"#, Bypass::HostedTool);
    check(r#""tools":{}"#, Bypass::HostedTool);
    for fields in [
        r#""cachedContent":null"#,
        r#""store":false"#,
        r#""tools":[{"functionDeclarations":[{"name":"f"}]},{"function_declarations":[]}]"#,
        r#""tools":[{"functionDeclarations":[],"googleSearch":null}]"#,
        r#""tools":[]"#,
    ] {
        generate().fields(fields).exchange();
    }
}
