//! The operator's limits on requests: temperature, and models.

use reflex_llm::{Bypass, Examined, Head, MODEL_BYTES_MAX, Policy, candidate};

use crate::gemini::generate;
use crate::messages::message;
use crate::request::{Request, chat, completion, same};
use crate::responses::response;

fn up_to(most: f64, request: Request) -> Request {
    Request {
        temperature_max: Some(most),
        ..request
    }
}

#[test]
fn a_temperature_over_the_operators_limit_passes_by() {
    let asks = |request: &Request, temperature: &str| {
        request
            .clone()
            .fields(&format!(r#""temperature":{temperature}"#))
    };
    for request in [chat(), completion(), response(), message()] {
        for temperature in ["1.01", "2", "1e1", "1e400"] {
            let asked = asks(&request, temperature);
            assert_eq!(up_to(1.0, asked.clone()).bypass(), Bypass::Temperature);
            asked.exchange();
        }
        let asked = asks(&request, r#""1""#);
        assert_eq!(up_to(1.0, asked).bypass(), Bypass::FieldType);
        for temperature in ["1", "1.0", "0", "-1", "null"] {
            let asked = asks(&request, temperature);
            // The limit decides whether a request is cached, and not its key.
            same(&up_to(1.0, asked.clone()), &asked);
        }
        // Only a stated temperature counts, not the provider's default.
        up_to(0.0, request.clone()).exchange();
        up_to(0.0, request.fields(r#""x":{"temperature":2}"#)).exchange();
    }
    for config in ["generationConfig", "generation_config"] {
        let asked = generate().fields(&format!(r#""{config}":{{"temperature":1.5}}"#));
        assert_eq!(up_to(1.0, asked.clone()).bypass(), Bypass::Temperature);
        up_to(1.5, asked).exchange();
    }
    up_to(1.0, generate().fields(r#""temperature":2"#)).exchange();
}

fn examined(request: &Request) -> Examined {
    let headers: Vec<(&str, &[u8])> = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    let head = Head {
        method: &request.method,
        upstream: &request.upstream,
        path: &request.path,
        headers: &headers,
    };
    let candidate = candidate(&head, &Policy::default()).unwrap();
    candidate.examine(&request.body).unwrap()
}

#[test]
fn the_model_is_told_for_operators_rules() {
    let check = |request: &Request, model: Option<&str>| {
        let examined = examined(request);
        assert_eq!(examined.model.as_deref(), model, "{}", request.path);
        assert_eq!(examined.exchange, request.exchange());
    };
    check(&chat(), Some("gpt-4o"));
    check(&response(), Some("gpt-5"));
    check(&message(), Some("claude-sonnet-4-5"));
    check(&generate(), Some("gemini-2.5-flash"));
    check(
        &generate().path("/v1/models/m:streamGenerateContent?alt=sse&x=/a:b"),
        Some("m"),
    );
    // At Azure the deployment decides, not the body.
    check(
        &chat().path("/openai/deployments/mine/chat/completions?api-version=1"),
        Some("mine"),
    );
    // In any spelling.
    for path in [
        "/openai//deployments/./mine/chat/completions",
        "/openai/%64eployments/m%69ne/chat/completions",
        "/openai/Deployments/mine/chat/completions",
    ] {
        check(&chat().path(path), Some("mine"));
    }
    check(
        &chat().path("/openai/deployments/azure%2fmine/chat/completions"),
        Some("azure/mine"),
    );
    check(
        &generate().path("/v1/models/%6D:generateContent"),
        Some("m"),
    );
    let named = |model: &str| chat().body(format!(r#"{{"model":{model}}}"#));
    check(&named(r#""a\u002f\"b""#), Some("a/\"b"));
    check(&named(r#""""#), None);
    check(&named("1"), None);
    check(&chat().body("{}"), None);
    let longest = "m".repeat(MODEL_BYTES_MAX);
    check(&named(&format!(r#""{longest}""#)), Some(&longest));
    check(&named(&format!(r#""{longest}m""#)), None);
}

#[test]
fn what_passes_by_is_not_examined() {
    let head = Head {
        method: "POST",
        upstream: "https://api.openai.com",
        path: "/v1/chat/completions",
        headers: &[("authorization", b"Bearer sk-one")],
    };
    let candidate = candidate(&head, &Policy::default()).unwrap();
    let stored = br#"{"model":"m","store":true}"#;
    assert_eq!(candidate.examine(stored), Err(Bypass::Store));
}
