//! Words for a natural end, and further chunks of some servers: all such answers are kept.

use reflex_llm::{Api, Rejected};

use crate::judging::{Judged, LIMITS};

const CHAT: Judged = Judged(Api::ChatCompletions, LIMITS);

fn chunk(fields: &str) -> String {
    format!("data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\"{fields}}}\n\n")
}

fn piece(delta: &str, reason: &str) -> String {
    chunk(&format!(
        r#","choices":[{{"index":0,"delta":{delta},"finish_reason":{reason}}}]"#
    ))
}

const DONE: &str = "data: [DONE]\n\n";

#[test]
fn other_words_for_a_natural_end_are_known() {
    for (word, expected) in [
        ("eos_token", Ok(())),
        ("eos", Ok(())),
        ("STOP", Ok(())),
        ("Stop", Ok(())),
        ("end_turn", Ok(())),
        ("stop_sequence", Ok(())),
        ("tool_use", Ok(())),
        ("COMPLETE", Ok(())),
        ("TOOL_CALL", Ok(())),
        ("STOP_SEQUENCE", Ok(())),
        ("end_of_text", Ok(())),
        ("normal", Ok(())),
        ("MAX_TOKENS", Err(Rejected::Length)),
        ("model_length", Err(Rejected::Length)),
        ("token_limit", Err(Rejected::Length)),
        ("ERROR", Err(Rejected::FinishReason)),
        ("ERROR_TOXIC", Err(Rejected::FinishReason)),
        ("USER_CANCEL", Err(Rejected::FinishReason)),
        ("content_filter", Err(Rejected::FinishReason)),
        ("guardrail_intervened", Err(Rejected::FinishReason)),
        ("pause_turn", Err(Rejected::FinishReason)),
        ("insufficient_system_resource", Err(Rejected::FinishReason)),
        ("abort", Err(Rejected::FinishReason)),
        ("stopped", Err(Rejected::FinishReason)),
    ] {
        let body =
            format!(r#"{{"choices":[{{"message":{{"content":"x"}},"finish_reason":"{word}"}}]}}"#);
        assert_eq!(CHAT.json(&body), expected, "{word}");
        let stream = piece(r#"{"content":"x"}"#, &format!("\"{word}\"")) + DONE;
        assert_eq!(CHAT.sse(&stream), expected, "{word}");
        let message = format!(
            r#"{{"type":"message","content":[{{"type":"text","text":"x"}}],"stop_reason":"{word}"}}"#
        );
        let verdict = Judged(Api::AnthropicMessages, LIMITS).json(&message);
        assert_eq!(verdict, expected, "{word}");
        let candidate = format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"x"}}]}},"finishReason":"{word}"}}]}}"#
        );
        let verdict = Judged(Api::GeminiGenerateContent, LIMITS).json(&candidate);
        assert_eq!(verdict, expected, "{word}");
    }
}

#[test]
fn case_finish_reason_is_empty_until_the_end() {
    for pending in [r#""""#, "null", r#""null""#] {
        let piece = |text: &str, reason: &str| piece(&format!(r#"{{"content":"{text}"}}"#), reason);
        let good = [&piece("a", pending), &piece("b", r#""stop""#), DONE].map(str::to_owned);
        CHAT.good_stream(&good.concat());
        let cut = piece("a", pending) + DONE;
        assert_eq!(CHAT.sse(&cut), Err(Rejected::Unfinished), "{pending}");
        let whole =
            format!(r#"{{"choices":[{{"message":{{"content":"x"}},"finish_reason":{pending}}}]}}"#);
        assert_eq!(CHAT.json(&whole), Err(Rejected::Unfinished), "{pending}");
    }
}

#[test]
fn case_a_usage_chunk_without_choices() {
    let text = piece(r#"{"content":"x"}"#, r#""stop""#);
    for (aside, expected) in [
        // Mistral at Vertex AI.
        ("data: {\"usage\":{\"output_tokens\":0}}\n\n".into(), Ok(())),
        (chunk(r#","usage":{"total_tokens":3}"#), Ok(())),
        (
            chunk(r#","choices":null,"usage":{"total_tokens":3}"#),
            Ok(()),
        ),
        (chunk(r#","choices":[],"usage":null"#), Ok(())),
        (chunk(r#","choices":[]"#), Ok(())),
        (chunk(""), Ok(())),
        (chunk(r#","x_groq":{"usage":{}}"#), Ok(())),
        ("data: {\"prompt_filter_results\":[]}\n\n".into(), Ok(())),
        ("data: {}\n\n".into(), Err(Rejected::Unexpected)),
        (
            "data: {\"text\":\"x\"}\n\n".into(),
            Err(Rejected::Unexpected),
        ),
        (chunk(r#","choices":{}"#), Err(Rejected::Unexpected)),
    ] {
        for stream in [[&text, &aside, DONE], [&aside, &text, DONE]] {
            assert_eq!(CHAT.sse(&stream.concat()), expected, "{aside}");
        }
    }
}

#[test]
fn null_is_as_good_as_absent_in_a_chunk() {
    let nulls = chunk(
        r#","created":null,"error":null,"usage":null,"service_tier":null,"system_fingerprint":null,"choices":[{"index":null,"delta":{"role":null,"content":"x","tool_calls":null,"function_call":null,"refusal":null,"audio":null,"reasoning_content":null},"logprobs":null,"finish_reason":null,"stop_reason":null,"matched_stop":null,"content_filter_results":null}]"#,
    );
    let last = piece("null", r#""stop""#);
    let stream = [&nulls, &last, DONE].map(str::to_owned).concat();
    assert_eq!(CHAT.sse(&stream), Ok(()));
}
