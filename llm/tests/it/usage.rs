//! The tokens that a hit saves, as the stored answer states them.

use reflex_llm::{Api, Representation, Shape, Usage};

use crate::judging::event;

#[track_caller]
fn check(name: &str, body: &str, expected: Option<(u64, u64, u64)>) {
    let shape = Shape::from_token(name).unwrap();
    let expected = expected.map(|(input_tokens, output_tokens, total_tokens)| Usage {
        input_tokens,
        output_tokens,
        total_tokens,
    });
    assert_eq!(shape.usage(body.as_bytes()), expected, "{name}: {body}");
}

#[test]
fn case_hits_show_a_cost_and_saved_tokens_cannot_be_known() {
    let usage = r#"{"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8,"prompt_tokens_details":{"cached_tokens":2}}}"#;
    check("chat-completions", usage, Some((3, 5, 8)));
    check("completions", usage, Some((3, 5, 8)));
    check(
        "embeddings",
        r#"{"usage":{"prompt_tokens":3,"total_tokens":3}}"#,
        Some((3, 0, 3)),
    );
    check(
        "responses",
        r#"{"usage":{"input_tokens":3,"output_tokens":5,"total_tokens":8}}"#,
        Some((3, 5, 8)),
    );
    check(
        "anthropic-messages",
        r#"{"usage":{"input_tokens":3,"cache_creation_input_tokens":10,"cache_read_input_tokens":20,"output_tokens":5}}"#,
        Some((33, 5, 38)),
    );
    let gemini = r#"{"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":5,"thoughtsTokenCount":7,"totalTokenCount":15}}"#;
    check("gemini-generate-content", gemini, Some((3, 12, 15)));
    check(
        "gemini-stream-generate-content",
        &format!(r#"[{{"usageMetadata":{{"promptTokenCount":3}}}},{gemini}]"#),
        Some((3, 12, 15)),
    );
    check(
        "gemini-embed-content",
        r#"{"usageMetadata":{"promptTokenCount":3}}"#,
        Some((3, 0, 3)),
    );
}

#[test]
fn a_stream_tells_its_usage_in_its_frames() {
    check(
        "chat-completions+sse",
        "data: {\"choices\":[],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5,\"total_tokens\":8}}\n\ndata: [DONE]\n\n",
        Some((3, 5, 8)),
    );
    let frames = |data: &[&str]| data.iter().map(|data| event(data)).collect::<String>();
    check(
        "responses+sse",
        &frames(&[
            r#"{"type":"response.created","response":{"usage":null}}"#,
            r#"{"type":"response.output_text.delta","delta":"usage"}"#,
            r#"{"type":"response.completed","response":{"usage":{"input_tokens":3,"output_tokens":5,"total_tokens":8}}}"#,
        ]),
        Some((3, 5, 8)),
    );
    // The second counts on from the first, and does not state the input.
    check(
        "anthropic-messages+sse",
        &frames(&[
            r#"{"type":"message_start","message":{"usage":{"input_tokens":3,"cache_read_input_tokens":20,"output_tokens":1}}}"#,
            r#"{"type":"message_delta","delta":{},"usage":{"output_tokens":5}}"#,
        ]),
        Some((23, 5, 28)),
    );
    check(
        "gemini-stream-generate-content+sse",
        "data: {\"usageMetadata\":{\"promptTokenCount\":3,\"totalTokenCount\":3}}\r\n\r\ndata: {\"usageMetadata\":{\"promptTokenCount\":3,\"candidatesTokenCount\":5,\"totalTokenCount\":8}}\r\n\r\n",
        Some((3, 5, 8)),
    );
}

#[test]
fn what_is_not_told_is_not_made_up() {
    for body in [
        "",
        "{}",
        "usage",
        "[]",
        r#"{"usage":null}"#,
        r#"{"usage":{}}"#,
        r#"{"usage":{"prompt_tokens":"3"}}"#,
        r#"{"usage":{"prompt_tokens":-3,"completion_tokens":1.5,"total_tokens":1e3}}"#,
        r#"{"usage":{"total_tokens":18446744073709551616}}"#,
        r#"{"x":{"usage":{"prompt_tokens":3}}}"#,
    ] {
        for &api in Api::ALL {
            for representation in [Representation::Json, Representation::Sse] {
                let shape = Shape::new(api, representation);
                check(shape.name(), body, None);
                check(shape.name(), &format!("data: {body}\n\n"), None);
            }
        }
    }
    // The stated number counts, and does not overflow.
    check(
        "chat-completions",
        r#"{"usage":{"total_tokens":8}}"#,
        Some((0, 0, 8)),
    );
    check(
        "chat-completions",
        r#"{"usage":{"completion_tokens":8}}"#,
        Some((0, 8, 8)),
    );
    let most = u64::MAX;
    check(
        "chat-completions",
        &format!(r#"{{"usage":{{"prompt_tokens":{most},"completion_tokens":{most}}}}}"#),
        Some((most, most, most)),
    );
}
