//! What we say in place of an answer, in each API's words.

use reflex_llm::{Api, Representation, Shape};
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
    // Whoever expects an array gets one.
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
