//! Answers that show that the provider looked something up or ran something, though their requests
//! did not ask for it: another search tomorrow finds something else. None is kept.
//!
//! The shapes are those that providers and gateways send.

use reflex_llm::{Api, Rejected};

use crate::judging::{Judged, LIMITS, event};

const CHAT: Judged = Judged(Api::ChatCompletions, LIMITS);
const RESPONSES: Judged = Judged(Api::Responses, LIMITS);
const MESSAGES: Judged = Judged(Api::AnthropicMessages, LIMITS);
const GEMINI: Judged = Judged(Api::GeminiGenerateContent, LIMITS);

/// A chat with members at its root, in its message and in its usage.
fn chat(root: &str, message: &str, usage: &str) -> String {
    let with = |fields: &str| match fields {
        "" => String::new(),
        fields => format!(",{fields}"),
    };
    format!(
        r#"{{"id":"c","object":"chat.completion","choices":[{{"index":0,"message":{{"role":"assistant","content":"x"{}}},"finish_reason":"stop"}}],"usage":{{"total_tokens":3{}}}{}}}"#,
        with(message),
        with(usage),
        with(root),
    )
}

/// The same in one piece and as a stream.
#[track_caller]
fn check(answer: &str, expected: Result<(), Rejected>) {
    assert_eq!(CHAT.json(answer), expected, "{answer}");
    let chunk = answer.replace(r#""message""#, r#""delta""#);
    let stream = format!("data: {chunk}\n\ndata: [DONE]\n\n");
    assert_eq!(CHAT.sse(&stream), expected, "{stream}");
}

#[test]
fn case_an_answer_that_lists_what_it_found_on_the_web() {
    check(&chat("", "", ""), Ok(()));
    for root in [
        // Perplexity.
        r#""citations":["https://a.test"]"#,
        r#""search_results":[{"title":"A","url":"https://a.test","date":"2025-01-15"}]"#,
        r#""images":[{"image_url":"https://a.test/a.png","origin_url":"https://a.test","height":9}]"#,
        r#""videos":[{"url":"https://a.test/v","thumbnail_url":"https://a.test/v.png"}]"#,
        r#""related_questions":["And why?"]"#,
        // xAI.
        r#""citations":["https://x.test/i/status/1"]"#,
        // Qwen, Hunyuan, Ernie, GLM, Doubao.
        r#""search_info":{"search_results":[{"index":1,"url":"https://a.test"}]}"#,
        r#""web_search":[{"title":"A","link":"https://a.test"}]"#,
        r#""references":[{"title":"A"}]"#,
        // Open WebUI and others that look things up first.
        r#""sources":[{"source":{"name":"a.pdf"}}]"#,
        // Gemini behind gateways.
        r#""vertex_ai_grounding_metadata":[{"webSearchQueries":["a"]}]"#,
        r#""provider_specific_fields":{"groundingMetadata":{"groundingChunks":[{"web":{}},{"web":{"uri":"u"}}]}}"#,
        r#""usage_breakdown":{"models":[{"model":"m"}]}"#,
        r#""previous_response_id":"resp_1""#,
        r#""conversation":{"id":"conv_1"}"#,
        r#""something":{"deep":[{"down":{"search_results":[1]}}]}"#,
        r#""next_web_search_2":{"hits":1}"#,
    ] {
        check(&chat(root, "", ""), Err(Rejected::ProviderWork));
    }
    for message in [
        r#""annotations":[{"type":"url_citation","url_citation":{"url":"https://a.test"}}]"#,
        r#""annotations":[{"type":"file_citation","file_citation":{"file_id":"f"}}]"#,
        r#""annotations":[{"url":"https://a.test"}]"#,
        r#""executed_tools":[{"index":0,"type":"search","arguments":"{}","output":"x"}]"#,
        r#""context":{"citations":[{"content":"x","title":"a.pdf"}],"intent":"[]"}"#,
        r#""reasoning_steps":[{"thought":"t","type":"web_search"}]"#,
        r#""tool_calls":[{"id":"1","type":"web_search","web_search":{"query":"q"}}]"#,
        r#""provider_specific_fields":{"citations":[[{"type":"web_search_result_location","url":"u"}]]}"#,
    ] {
        check(&chat("", message, ""), Err(Rejected::ProviderWork));
    }
    for usage in [
        r#""num_search_queries":2"#,
        r#""citation_tokens":30"#,
        r#""search_context_size":"low""#,
        r#""num_sources_used":3"#,
        r#""num_server_side_tools_used":1"#,
        r#""server_side_tool_usage_details":{"web_search_calls":0,"x_search_calls":4}"#,
        r#""server_tool_use":{"web_search_requests":1}"#,
        r#""prompt_tokens_details":{"web_search_requests":2}"#,
        r#""plugins":{"search":{"count":1,"strategy":"turbo"}}"#,
        r#""tool_usage":{"web_search":1}"#,
    ] {
        check(&chat("", "", usage), Err(Rejected::ProviderWork));
    }
}

/// Providers send a count of 0 or an empty list when they did no such work.
#[test]
fn members_without_anything_in_them_are_no_trace() {
    for root in [
        r#""citations":[]"#,
        r#""citations":null"#,
        r#""search_results":[]"#,
        r#""search_info":{"search_results":[]}"#,
        r#""vertex_ai_grounding_metadata":[{}]"#,
        r#""images":[]"#,
        r#""x_groq":{"id":"req_1"}"#,
        r#""previous_response_id":null"#,
    ] {
        check(&chat(root, "", ""), Ok(()));
    }
    for message in [
        r#""annotations":[]"#,
        r#""annotations":null"#,
        // A file of the request, as OpenRouter has read it.
        r#""annotations":[{"type":"file","file":{"hash":"h","name":"a.pdf"}}]"#,
        // A picture that the model has drawn.
        r#""images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]"#,
        r#""executed_tools":[]"#,
    ] {
        check(&chat("", message, ""), Ok(()));
    }
    for usage in [
        r#""num_sources_used":0"#,
        r#""num_server_side_tools_used":0.0"#,
        r#""server_side_tool_usage_details":{"web_search_calls":0,"x_search_calls":0}"#,
        r#""server_tool_use":{"web_search_requests":0}"#,
        r#""server_tool_use":null"#,
    ] {
        check(&chat("", "", usage), Ok(()));
    }
}

/// The client's own tools may have any name, and any arguments.
#[test]
fn names_of_the_clients_are_no_trace() {
    let call = r#""tool_calls":[{"id":"1","type":"function","function":{"name":"web_search","arguments":"{\"search_results\":[1]}"}}]"#;
    check(&chat("", call, ""), Ok(()));
    let text = r#"{"type":"message","role":"assistant","content":[{"type":"tool_use","id":"t","name":"web_search","input":{"citations":["a"],"type":"web_search_call"}}],"stop_reason":"tool_use"}"#;
    assert_eq!(MESSAGES.json(text), Ok(()));
    let call = r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"groundingMetadata":{"a":1}}}}]},"finishReason":"STOP"}]}"#;
    assert_eq!(GEMINI.json(call), Ok(()));
    // Responses repeat what the request said.
    let echo = r#""tools":[{"type":"function","name":"web_search","parameters":{"properties":{"citations":{"type":"array"}}}}],"text":{"format":{"type":"json_schema","schema":{"properties":{"sources":{"type":"string"}}}}},"metadata":{"sources":"a"}"#;
    let response = format!(
        r#"{{"status":"completed",{echo},"output":[{{"type":"message","content":[{{"type":"output_text","text":"x","annotations":[]}}]}}]}}"#
    );
    assert_eq!(RESPONSES.json(&response), Ok(()));
}

#[test]
fn tools_that_the_provider_ran_are_traces_in_responses() {
    let with = |item: &str, annotations: &str| {
        format!(
            r#"{{"status":"completed","output":[{item}{{"type":"message","content":[{{"type":"output_text","text":"x","annotations":[{annotations}]}}]}}],"usage":{{"total_tokens":3}}}}"#
        )
    };
    let work = Err(Rejected::ProviderWork);
    for kind in [
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "mcp_call",
        "mcp_list_tools",
        "mcp_approval_request",
        "tool_search_call",
    ] {
        let item = format!(r#"{{"type":"{kind}","status":"completed"}},"#);
        assert_eq!(RESPONSES.json(&with(&item, "")), work, "{kind}");
    }
    for annotation in [
        r#"{"type":"url_citation","url":"https://a.test"}"#,
        r#"{"type":"file_citation","file_id":"f"}"#,
        r#"{"type":"container_file_citation","container_id":"c"}"#,
        r#"{"type":"file_path","file_id":"f"}"#,
    ] {
        assert_eq!(RESPONSES.json(&with("", annotation)), work, "{annotation}");
    }
    let end = format!(
        r#"{{"type":"response.completed","response":{}}}"#,
        with("", "")
    );
    assert_eq!(RESPONSES.events(&[&end]), Ok(()));
    for piece in [
        r#"{"type":"response.web_search_call.in_progress","item_id":"ws_1"}"#,
        r#"{"type":"response.file_search_call.searching","item_id":"fs_1"}"#,
        r#"{"type":"response.code_interpreter_call_code.delta","delta":"1"}"#,
        r#"{"type":"response.image_generation_call.partial_image","partial_image_b64":"AAAA"}"#,
        r#"{"type":"response.mcp_call_arguments.delta","delta":"{}"}"#,
        r#"{"type":"response.mcp_list_tools.completed","item_id":"m"}"#,
        r#"{"type":"response.output_item.added","item":{"type":"web_search_call"}}"#,
        r#"{"type":"response.output_text.annotation.added","annotation":{"type":"url_citation","url":"u"}}"#,
    ] {
        assert_eq!(RESPONSES.events(&[piece, &end]), work, "{piece}");
    }
}

#[test]
fn tools_that_the_provider_ran_are_traces_in_messages() {
    let with = |block: &str, text: &str, rest: &str| {
        format!(
            r#"{{"type":"message","role":"assistant","content":[{block}{{"type":"text","text":"x"{text}}}],"stop_reason":"end_turn","usage":{{"input_tokens":3}}{rest}}}"#
        )
    };
    let work = Err(Rejected::ProviderWork);
    for kind in [
        "server_tool_use",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "tool_search_tool_result",
        "mcp_tool_use",
        "mcp_tool_result",
        "container_upload",
    ] {
        let block = format!(r#"{{"type":"{kind}"}},"#);
        assert_eq!(MESSAGES.json(&with(&block, "", "")), work, "{kind}");
    }
    let cited = |kind: &str| format!(r#","citations":[{{"type":"{kind}","cited_text":"a"}}]"#);
    for kind in ["web_search_result_location", "something_new"] {
        assert_eq!(MESSAGES.json(&with("", &cited(kind), "")), work, "{kind}");
    }
    // Places in documents that came with the request.
    for kind in [
        "char_location",
        "page_location",
        "content_block_location",
        "search_result_location",
    ] {
        assert_eq!(MESSAGES.json(&with("", &cited(kind), "")), Ok(()), "{kind}");
    }
    let container = r#","container":{"id":"c","expires_at":"2026-01-01T00:00:00Z"}"#;
    assert_eq!(MESSAGES.json(&with("", "", container)), work);
    let none = r#","container":null"#;
    assert_eq!(MESSAGES.json(&with("", "", none)), Ok(()));

    let begin = r#"{"type":"message_start","message":{"type":"message","content":[],"usage":{"server_tool_use":{"web_search_requests":0}}}}"#;
    let text =
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
    let piece =
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}"#;
    let stop = r#"{"type":"content_block_stop","index":0}"#;
    let end = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}"#;
    let over = r#"{"type":"message_stop"}"#;
    let good = [begin, text, piece, stop, end, over];
    assert_eq!(MESSAGES.events(&good), Ok(()));
    let cited = |kind: &str| {
        let delta = format!(
            r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"citations_delta","citation":{{"type":"{kind}","cited_text":"a"}}}}}}"#
        );
        MESSAGES.events(&[begin, text, piece, &delta, stop, end, over])
    };
    assert_eq!(cited("web_search_result_location"), work);
    assert_eq!(cited("page_location"), Ok(()));
    let searched = end.replace(
        r#""output_tokens":5"#,
        r#""output_tokens":5,"server_tool_use":{"web_search_requests":1}"#,
    );
    let events = [begin, text, piece, stop, &searched, over].map(event);
    assert_eq!(MESSAGES.sse(&events.concat()), work);
}

#[test]
fn tools_that_google_ran_are_traces() {
    let with = |part: &str, candidate: &str, usage: &str| {
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"x"}}{part}]}},"finishReason":"STOP"{candidate}}}],"usageMetadata":{{"totalTokenCount":3{usage}}}}}"#
        )
    };
    let work = Err(Rejected::ProviderWork);
    for part in [
        r#",{"executableCode":{"code":"1"}}"#,
        r#",{"codeExecutionResult":{"outcome":"OUTCOME_OK"}}"#,
        r#",{"toolCall":{"id":"1"}}"#,
        r#",{"toolResponse":{"id":"1"}}"#,
    ] {
        assert_eq!(GEMINI.json(&with(part, "", "")), work, "{part}");
    }
    for candidate in [
        r#","groundingMetadata":{"webSearchQueries":["x"]}"#,
        r#","groundingMetadata":{"searchEntryPoint":{"renderedContent":"<div>"}}"#,
        r#","urlContextMetadata":{"urlMetadata":[{"retrievedUrl":"https://a.test"}]}"#,
    ] {
        assert_eq!(GEMINI.json(&with("", candidate, "")), work, "{candidate}");
    }
    let searched = r#","toolUsePromptTokenCount":52"#;
    assert_eq!(GEMINI.json(&with("", "", searched)), work);
    // A model may cite from memory, without a search.
    let recited = r#","citationMetadata":{"citationSources":[{"startIndex":0,"endIndex":9}]}"#;
    for (candidate, usage) in [
        (r#","groundingMetadata":{}"#, ""),
        (recited, ""),
        ("", r#","toolUsePromptTokenCount":0"#),
    ] {
        assert_eq!(GEMINI.json(&with("", candidate, usage)), Ok(()));
    }
}
