//! Our own errors, in each API's words.

use reflex_llm::{Api, ERROR_HEADERS, Head, PathRule, Representation, Shape};
use serde_json::{Value, json};

fn body(name: &str, status: u16, message: &str) -> Value {
    let body = Shape::from_token(name).unwrap().error_body(status, message);
    serde_json::from_str(&body).unwrap()
}

#[test]
fn each_api_has_its_error() {
    for name in [
        "chat-completions",
        "chat-completions+sse",
        "completions",
        "responses",
        "embeddings",
    ] {
        assert_eq!(
            body(name, 504, "not here"),
            json!({"error": {"message": "not here", "type": "gateway_error", "param": null, "code": "504"}})
        );
    }
    for name in ["anthropic-messages", "anthropic-messages+sse"] {
        assert_eq!(
            body(name, 504, "not here"),
            json!({"type": "error", "error": {"type": "timeout_error", "message": "not here"}})
        );
    }
    let google =
        json!({"error": {"code": 504, "message": "not here", "status": "DEADLINE_EXCEEDED"}});
    for name in [
        "gemini-generate-content",
        "gemini-stream-generate-content+sse",
        "gemini-embed-content",
        "gemini-batch-embed-contents",
    ] {
        assert_eq!(body(name, 504, "not here"), google);
    }
    // A client that expects an array gets one.
    assert_eq!(
        body("gemini-stream-generate-content", 504, "not here"),
        json!([google])
    );
}

#[test]
fn an_error_is_json_whatever_it_says() {
    let message = "\"quoted\" \\ \n\r\t\0\u{1f}\u{7f} é 😀 \u{2028}";
    for &api in Api::ALL {
        for representation in [Representation::Json, Representation::Sse] {
            let shape = Shape::new(api, representation);
            for status in [400, 401, 403, 404, 413, 429, 500, 502, 503, 504, 529] {
                let error: Value =
                    serde_json::from_str(&shape.error_body(status, message)).unwrap();
                let error = error.get(0).unwrap_or(&error);
                assert_eq!(error["error"]["message"], message);
            }
        }
    }
}

#[test]
fn an_error_about_any_request_has_the_shape_that_its_client_reads() {
    let rules = [
        PathRule::parse("/llm/claude", "anthropic-messages").unwrap(),
        PathRule::parse("/private/*", "none").unwrap(),
    ];
    let check = |path: &str, headers: &[(&str, &[u8])], name: &str| {
        let head = Head {
            method: "GET",
            upstream: "",
            path,
            headers,
        };
        let shape = Shape::of_errors(&head, &rules);
        assert_eq!(shape.name(), name, "{path}");
    };
    check("/v1/chat/completions", &[], "chat-completions");
    check("/v1/messages?beta=true", &[], "anthropic-messages");
    check("/llm/claude", &[], "anthropic-messages");
    let gemini = "/v1beta/models/m:streamGenerateContent";
    check(gemini, &[], "gemini-stream-generate-content");
    check(
        &format!("{gemini}?alt=sse&key=k"),
        &[],
        "gemini-stream-generate-content+sse",
    );
    // A query that is a bypass has an error too.
    check(
        &format!("{gemini}?alt=sse&alt=json"),
        &[],
        "gemini-stream-generate-content",
    );
    // The SDKs call other paths as well.
    let anthropic: (&str, &[u8]) = ("anthropic-version", b"2023-06-01");
    let google: (&str, &[u8]) = ("x-goog-api-key", b"k");
    check(
        "/v1/messages/count_tokens",
        &[anthropic],
        "anthropic-messages",
    );
    check("/private/v1/messages", &[anthropic], "anthropic-messages");
    check("/v1beta/models", &[google], "gemini-generate-content");
    check("/v1/models", &[], "chat-completions");
    check("", &[], "chat-completions");
    // The path decides.
    check("/v1/chat/completions", &[anthropic], "chat-completions");
    assert!(ERROR_HEADERS.contains(&("content-type", "application/json")));
}
