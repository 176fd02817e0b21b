//! An answer without text, tool call, image or audio is not kept, whatever its API.

use reflex_llm::{Api, Rejected};

use crate::judging::{Judged, LENGTH_ALLOWED, LIMITS};

const EMPTY: Result<(), Rejected> = Err(Rejected::Empty);
const BLANK: [&str; 6] = [
    r#""""#,
    "null",
    r#"" ""#,
    r#""\n\t""#,
    r#""\u0020""#,
    r#""\u00a0""#,
];

#[test]
fn case_an_empty_answer_with_finish_reason_stop() {
    let chat = Judged(Api::ChatCompletions, LIMITS);
    let check = |message: &str, expected: Result<(), Rejected>| {
        let answer = format!(
            r#"{{"choices":[{{"index":0,"message":{{"role":"assistant"{message}}},"finish_reason":"stop"}}]}}"#
        );
        assert_eq!(chat.json(&answer), expected, "{message}");
        let chunk = answer.replace("message", "delta");
        let stream = format!("data: {chunk}\n\ndata: [DONE]\n\n");
        assert_eq!(chat.sse(&stream), expected, "{message}");
    };
    check("", EMPTY);
    for text in BLANK {
        check(&format!(r#","content":{text}"#), EMPTY);
        let part = format!(r#","content":[{{"type":"text","text":{text}}}]"#);
        check(&part, EMPTY);
        let thought = format!(r#","content":{text},"reasoning_content":"hm","reasoning":"hm""#);
        check(&thought, EMPTY);
    }
    for nothing in [
        r#","content":[]"#,
        r#","tool_calls":[]"#,
        r#","tool_calls":[{"index":0}]"#,
        r#","tool_calls":null,"function_call":null,"audio":null"#,
        r#","images":[]"#,
        r#","audio":{"id":"a","data":"","transcript":""}"#,
        r#","content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]}]"#,
    ] {
        check(nothing, EMPTY);
    }
    for something in [
        r#","content":"0""#,
        r#","content":"\ud83d""#,
        r#","content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"x"}]"#,
        r#","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":""}}]"#,
        r#","content":null,"function_call":{"name":"f","arguments":"{}"}"#,
        r#","content":"","images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]"#,
        r#","content":null,"audio":{"id":"a","data":"AAAA","transcript":"x"}"#,
        r#","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]"#,
    ] {
        check(something, Ok(()));
    }
    // The model thought until its token limit, and no answer was left.
    let short =
        r#"{"choices":[{"message":{"content":"","reasoning":"hm"},"finish_reason":"length"}]}"#;
    assert_eq!(
        Judged(Api::ChatCompletions, LENGTH_ALLOWED).json(short),
        EMPTY
    );
}

/// A client that asks for three answers gets none of them empty from the cache.
#[test]
fn no_choice_may_be_empty() {
    let chat = Judged(Api::ChatCompletions, LIMITS);
    let two = r#"{"choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"},{"index":1,"message":{"content":""},"finish_reason":"stop"}]}"#;
    assert_eq!(chat.json(two), EMPTY);
    let stream = two.replace("message", "delta");
    assert_eq!(
        chat.sse(&format!("data: {stream}\n\ndata: [DONE]\n\n")),
        EMPTY
    );
    let gemini = Judged(Api::GeminiGenerateContent, LIMITS);
    let two = r#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"STOP"},{"content":{"parts":[]},"finishReason":"STOP","index":1}]}"#;
    assert_eq!(gemini.json(two), EMPTY);
}

/// White space is a piece like any other.
#[test]
fn a_stream_may_begin_with_white_space() {
    let chat = Judged(Api::ChatCompletions, LIMITS);
    let piece = |text: &str, reason: &str| {
        format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":{reason}}}]}}\n\n"
        )
    };
    let stream = [
        piece("", "null"),
        piece(" ", "null"),
        piece("x", "null"),
        piece("", "\"stop\""),
        "data: [DONE]\n\n".into(),
    ];
    assert_eq!(chat.sse(&stream.concat()), Ok(()));
}

#[test]
fn an_empty_completion_is_not_kept() {
    let completions = Judged(Api::Completions, LIMITS);
    for text in BLANK.iter().filter(|text| **text != "null") {
        let answer =
            format!(r#"{{"choices":[{{"index":0,"text":{text},"finish_reason":"stop"}}]}}"#);
        assert_eq!(completions.json(&answer), EMPTY, "{text}");
        let stream = format!("data: {answer}\n\ndata: [DONE]\n\n");
        assert_eq!(completions.sse(&stream), EMPTY, "{text}");
    }
}

#[test]
fn an_empty_message_is_not_kept() {
    let messages = Judged(Api::AnthropicMessages, LIMITS);
    let check = |content: &str, expected: Result<(), Rejected>| {
        let answer =
            format!(r#"{{"type":"message","content":[{content}],"stop_reason":"end_turn"}}"#);
        assert_eq!(messages.json(&answer), expected, "{content}");
    };
    check("", EMPTY);
    for text in BLANK {
        check(&format!(r#"{{"type":"text","text":{text}}}"#), EMPTY);
    }
    let thinking = r#"{"type":"thinking","thinking":"hm","signature":"s"}"#;
    check(thinking, EMPTY);
    check(
        &format!(r#"{thinking},{{"type":"redacted_thinking","data":"x"}}"#),
        EMPTY,
    );
    check(&format!(r#"{thinking},{{"type":"text","text":""}}"#), EMPTY);
    check(
        &format!(r#"{thinking},{{"type":"text","text":"x"}}"#),
        Ok(()),
    );
    check(
        r#"{"type":"tool_use","id":"t","name":"f","input":{}}"#,
        Ok(()),
    );

    let stream = |block: &str, delta: &str| {
        let events = [
            r#"{"type":"message_start","message":{"type":"message","content":[]}}"#.to_owned(),
            format!(r#"{{"type":"content_block_start","index":0,"content_block":{block}}}"#),
            format!(r#"{{"type":"content_block_delta","index":0,"delta":{delta}}}"#),
            r#"{"type":"content_block_stop","index":0}"#.into(),
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#.into(),
            r#"{"type":"message_stop"}"#.into(),
        ];
        messages.events(&events.each_ref().map(String::as_str))
    };
    let text = r#"{"type":"text","text":""}"#;
    assert_eq!(stream(text, r#"{"type":"text_delta","text":"x"}"#), Ok(()));
    assert_eq!(stream(text, r#"{"type":"text_delta","text":"\n"}"#), EMPTY);
    let thinking = r#"{"type":"thinking","thinking":""}"#;
    let thought = r#"{"type":"thinking_delta","thinking":"hm"}"#;
    assert_eq!(stream(thinking, thought), EMPTY);
    let call = r#"{"type":"tool_use","id":"t","name":"f","input":{}}"#;
    let arguments = r#"{"type":"input_json_delta","partial_json":""}"#;
    assert_eq!(stream(call, arguments), Ok(()));
}

#[test]
fn an_empty_response_is_not_kept() {
    let responses = Judged(Api::Responses, LIMITS);
    let check = |output: &str, expected: Result<(), Rejected>| {
        let answer = format!(r#"{{"status":"completed","output":[{output}]}}"#);
        assert_eq!(responses.json(&answer), expected, "{output}");
        let event = format!(r#"{{"type":"response.completed","response":{answer}}}"#);
        assert_eq!(responses.events(&[&event]), expected, "{output}");
    };
    check("", EMPTY);
    check(r#"{"type":"reasoning","summary":[]}"#, EMPTY);
    check(r#"{"type":"message","content":[]}"#, EMPTY);
    for text in BLANK {
        let part = format!(r#"{{"type":"output_text","text":{text}}}"#);
        check(
            &format!(r#"{{"type":"message","content":[{part}]}}"#),
            EMPTY,
        );
    }
    check(
        r#"{"type":"function_call","name":"f","arguments":"{}"}"#,
        Ok(()),
    );
    check(
        r#"{"type":"custom_tool_call","name":"f","input":""}"#,
        Ok(()),
    );
}

#[test]
fn an_empty_candidate_is_not_kept() {
    let gemini = Judged(Api::GeminiGenerateContent, LIMITS);
    let streams = Judged(Api::GeminiStreamGenerateContent, LIMITS);
    let check = |parts: &str, expected: Result<(), Rejected>| {
        let answer = format!(
            r#"{{"candidates":[{{"content":{{"parts":[{parts}]}},"finishReason":"STOP"}}]}}"#
        );
        assert_eq!(gemini.json(&answer), expected, "{parts}");
        assert_eq!(streams.json(&format!("[{answer}]")), expected, "{parts}");
        assert_eq!(
            streams.sse(&format!("data: {answer}\n\n")),
            expected,
            "{parts}"
        );
    };
    check("", EMPTY);
    for text in BLANK {
        check(&format!(r#"{{"text":{text}}}"#), EMPTY);
    }
    check(r#"{"text":"hm","thought":true}"#, EMPTY);
    check(r#"{"text":"","thoughtSignature":"s"}"#, EMPTY);
    check(r#"{"text":"hm","thought":true},{"text":"x"}"#, Ok(()));
    check(r#"{"functionCall":{"name":"f"}}"#, Ok(()));
    check(
        r#"{"inlineData":{"mimeType":"image/png","data":"AAAA"}}"#,
        Ok(()),
    );
}
