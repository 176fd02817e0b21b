//! Anthropic's messages: which parts of a request count, which markers do not, which answers stay.

use reflex_llm::{Api, Bypass, Rejected, Representation};

use crate::judging::{Judged, LENGTH_ALLOWED, LIMITS, event};
use crate::request::{Request, chat, counts, differ, ignored, same};

const MESSAGES: Judged = Judged(Api::AnthropicMessages, LIMITS);

pub(crate) fn message() -> Request {
    body(r#"{"role":"user","content":"hi"}"#)
        .without_headers()
        .header("x-api-key", "sk-ant-one")
        .header("anthropic-version", "2023-06-01")
}

fn body(messages: &str) -> Request {
    let request = chat().upstream("https://api.anthropic.com");
    request.path("/v1/messages").body(format!(
        r#"{{"model":"claude-sonnet-4-5","max_tokens":64,"messages":[{messages}]}}"#
    ))
}

#[test]
fn case_anthropic_messages_not_cached() {
    for path in [
        "/v1/messages",
        "/anthropic/v1/messages",
        "/v1/messages?beta=true",
    ] {
        let shape = message().path(path).exchange().shape;
        assert_eq!(shape.name(), "anthropic-messages", "{path}");
    }
    for path in [
        "/v1/messages/count_tokens",
        "/v1/messages/batches",
        "/v1/threads/thread_1/messages",
        "/messages",
    ] {
        assert_eq!(message().path(path).bypass(), Bypass::Path, "{path}");
    }
    let stream = message().fields(r#""stream":true"#);
    differ(&message(), &stream);
    assert_eq!(stream.exchange().shape.representation, Representation::Sse);
    differ(&message(), &message().path("/v1/messages?beta=true"));
}

#[test]
fn version_and_betas_are_in_the_key() {
    for name in ["anthropic-version", "anthropic-beta"] {
        differ(&message(), &message().header(name, "a"));
        differ(&message().header(name, "a"), &message().header(name, "b"));
    }
}

#[test]
fn the_short_list_of_messages() {
    ignored(&message(), r#""metadata":{"user_id":"u"}"#);
    ignored(&message(), r#""stream":false"#);
    ignored(&message(), r#""cache_control":{"type":"ephemeral"}"#);
    for fields in [
        r#""user":"u""#,
        r#""store":false"#,
        r#""prompt_cache_key":"k""#,
        r#""system":"Be brief.""#,
        r#""temperature":0"#,
        r#""top_k":5"#,
        r#""stop_sequences":["x"]"#,
        r#""thinking":{"type":"enabled","budget_tokens":1024}"#,
        r#""tool_choice":{"type":"none"}"#,
        r#""service_tier":"auto""#,
        r#""output_config":{"effort":"low"}"#,
        r#""context_management":{"edits":[]}"#,
    ] {
        counts(&message(), fields);
    }
}

#[test]
fn markers_for_the_prompt_cache_are_out_of_the_key_wherever_they_may_stand() {
    let with = |template: &str| {
        let filled = |marker: &str| {
            let body = template.replace("MARK", marker);
            message().body(body)
        };
        let plain = filled("");
        same(&plain, &filled(r#","cache_control":{"type":"ephemeral"}"#));
        same(
            &plain,
            &filled(r#","cache_control":{"type":"ephemeral","ttl":"1h"}"#),
        );
        same(&plain, &filled(r#","cache_c\u006fntrol":null"#));
        // An unknown marker counts.
        differ(&plain, &filled(r#","cache_control":"x""#));
        differ(&plain, &filled(r#","cache_controls":{}"#));
    };
    with(r#"{"system":[{"type":"text","text":"a"MARK}]}"#);
    with(r#"{"tools":[{"name":"f","input_schema":{}MARK}]}"#);
    with(r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"MARK}]}]}"#);
    with(
        r#"{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"a"MARK}]}]}]}"#,
    );
    with(
        r#"{"messages":[{"role":"user","content":[{"type":"document","source":{"type":"content","content":[{"type":"text","text":"a"MARK}]}}]}]}"#,
    );
}

#[test]
fn what_only_looks_like_a_marker_counts() {
    let with = |template: &str| {
        let filled = |value: &str| message().body(template.replace("VALUE", value));
        differ(
            &filled(r#"{"type":"ephemeral"}"#),
            &filled(r#"{"type":"other"}"#),
        );
    };
    // An argument that the model gave, and one that it may give.
    with(
        r#"{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"cache_control":VALUE}}]}]}"#,
    );
    with(
        r#"{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"content":[{"cache_control":VALUE}]}}]}]}"#,
    );
    with(
        r#"{"tools":[{"name":"f","input_schema":{"type":"object","properties":{"cache_control":VALUE}}}]}"#,
    );
    with(r#"{"tools":[{"name":"f","input_schema":{"content":{"cache_control":VALUE}}}]}"#);
    with(r#"{"something_new":{"cache_control":VALUE}}"#);
    // The markers of one API are not those of another.
    let chat = |value: &str| {
        chat().body(format!(
            r#"{{"messages":[{{"content":[{{"text":"a","cache_control":{value}}}]}}]}}"#
        ))
    };
    differ(&chat("{}"), &chat("null"));
}

#[test]
fn what_runs_at_the_provider_passes_by() {
    let check = |fields: &str, expected| {
        assert_eq!(message().fields(fields).bypass(), expected, "{fields}");
    };
    check(r#""container":"container_1""#, Bypass::ProviderState);
    check(r#""container":{"skills":[]}"#, Bypass::ProviderState);
    check(
        r#""thread":{"type":"continue","previous_message_id":"msg_1"}"#,
        Bypass::ProviderState,
    );
    check(r#""thread":{"type":"create"}"#, Bypass::ProviderState);
    check(
        r#""mcp_servers":[{"type":"url","url":"https://x"}]"#,
        Bypass::HostedTool,
    );
    for kind in [
        "web_search_20250305",
        "web_fetch_20250910",
        "code_execution_20250825",
        "tool_search_tool_regex_20251119",
        "mcp_toolset",
        "something_new",
        "",
    ] {
        let tool = format!(r#""tools":[{{"name":"f"}},{{"type":"{kind}","name":"x"}}]"#);
        check(&tool, Bypass::HostedTool);
    }
    check(r#""tools":["f"]"#, Bypass::HostedTool);
    check(r#""tools":{}"#, Bypass::HostedTool);
    check(r#""stream":"true""#, Bypass::FieldType);
    message()
        .fields(r#""container":null,"tools":[]"#)
        .exchange();
    message()
        .fields(
            r#""tools":[{"name":"f"},{"type":null,"name":"g"},{"type":"custom","name":"h"},{"type":"bash_20250124","name":"bash"},{"type":"text_editor_20250728","name":"e"},{"type":"computer_20250124","name":"computer"},{"type":"memory_20250818","name":"memory"},{"type":"browser_toolset_20260801"}]"#,
        )
        .exchange();
}

#[test]
fn tools_that_a_message_adds_are_looked_at_like_those_of_the_request() {
    let with = |tool: &str| {
        body(&format!(
            r#"{{"role":"user","content":"a"}},{{"role":"user","content":[{{"type":"text","text":"b"}},{{"type":"tool_addition","tool":{tool}}}]}}"#
        ))
    };
    let definition = |definition: &str| {
        with(&format!(
            r#"{{"type":"tool_definition","definition":{definition}}}"#
        ))
    };
    with(r#"{"type":"tool_reference","name":"f"}"#).exchange();
    definition(r#"{"name":"f","input_schema":{}}"#).exchange();
    for request in [
        definition(r#"{"type":"web_search_20260318","name":"web_search"}"#),
        definition(r#"{"type":"mcp_toolset","mcp_server_name":"s"}"#),
        definition("[]"),
        with(r#"{"type":"tool_definition"}"#),
        with(r#"{"type":"mcp_toolset_reference","mcp_server_name":"s"}"#),
        with("null"),
    ] {
        assert_eq!(request.bypass(), Bypass::HostedTool);
    }
    // In a text it is a text.
    body(r#"{"role":"user","content":"tool_addition"}"#).exchange();
}

fn answer(content: &str, stop_reason: &str) -> String {
    format!(
        r#"{{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{content}],"stop_reason":{stop_reason},"stop_sequence":null,"usage":{{"input_tokens":3,"output_tokens":5}}}}"#
    )
}

const TEXT: &str = r#"{"type":"text","text":"a \"quote\"","citations":null}"#;

#[test]
fn a_message_is_kept_when_its_turn_ended() {
    for (reason, expected) in [
        (r#""end_turn""#, Ok(())),
        (r#""stop_sequence""#, Ok(())),
        (r#""tool_use""#, Ok(())),
        (r#""max_tokens""#, Err(Rejected::Length)),
        (r#""model_context_window_exceeded""#, Err(Rejected::Length)),
        (r#""refusal""#, Err(Rejected::Refusal)),
        (r#""pause_turn""#, Err(Rejected::FinishReason)),
        (r#""compaction""#, Err(Rejected::FinishReason)),
        (r#""something new""#, Err(Rejected::FinishReason)),
        ("1", Err(Rejected::FinishReason)),
        ("null", Err(Rejected::Unfinished)),
    ] {
        assert_eq!(MESSAGES.json(&answer(TEXT, reason)), expected, "{reason}");
        let delta = DELTA.replace(r#""end_turn""#, reason);
        let verdict = MESSAGES.events(&[START, BLOCK, PIECE, STOP, &delta, END]);
        assert_eq!(verdict, expected, "{reason}");
    }
    let allowed = Judged(Api::AnthropicMessages, LENGTH_ALLOWED);
    assert_eq!(allowed.json(&answer(TEXT, r#""max_tokens""#)), Ok(()));
    let check = |body: &str, expected| assert_eq!(MESSAGES.json(body), expected, "{body}");
    let ended = |content: &str| answer(content, r#""end_turn""#);
    let call = r#"{"type":"tool_use","id":"t","name":"f","input":{}}"#;
    let thinking = r#"{"type":"thinking","thinking":"x","signature":"y"}"#;
    check(&ended(&format!("{thinking},{TEXT},{call}")), Ok(()));
    check(&ended(""), Err(Rejected::Empty));
    for kind in [
        "server_tool_use",
        "web_search_tool_result",
        "mcp_tool_use",
        "container_upload",
    ] {
        let content = format!(r#"{TEXT},{{"type":"{kind}"}}"#);
        check(&ended(&content), Err(Rejected::ProviderWork));
    }
    let content = format!(r#"{TEXT},{{"type":"new"}}"#);
    check(&ended(&content), Err(Rejected::Unexpected));
    check(
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
        Err(Rejected::Error),
    );
    check(
        &ended(TEXT).replacen("message", "completion", 1),
        Err(Rejected::Unexpected),
    );
    check("{}", Err(Rejected::Unexpected));
    check("[]", Err(Rejected::NotJson));
}

const START: &str = r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"model":"m","stop_reason":null,"usage":{"input_tokens":3,"output_tokens":1}}}"#;
const BLOCK: &str =
    r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
const PIECE: &str = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a \"quote\""}}"#;
const STOP: &str = r#"{"type":"content_block_stop","index":0}"#;
const DELTA: &str = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":5}}"#;
const END: &str = r#"{"type":"message_stop"}"#;
const PING: &str = r#"{"type":"ping"}"#;

#[test]
fn a_streamed_message_ends_with_message_stop() {
    let frames = [START, PING, BLOCK, PIECE, STOP, DELTA, END].map(event);
    MESSAGES.good_stream(&frames.concat());

    let second = |piece: &str| piece.replace(r#""index":0"#, r#""index":1"#);
    let (block, stop) = (second(BLOCK), second(STOP));
    let server = BLOCK.replace("text", "server_tool_use");
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    for (events, expected) in [
        (vec![START, BLOCK, STOP, DELTA, END], Err(Rejected::Empty)),
        (
            vec![START, BLOCK, PIECE, STOP, &block, &stop, DELTA, END],
            Ok(()),
        ),
        (vec![START, BLOCK, PIECE, STOP, DELTA, PING, END], Ok(())),
        (
            vec![START, BLOCK, PIECE, STOP, DELTA, END, "[DONE]"],
            Ok(()),
        ),
        (
            vec![START, r#"{"type":"new"}"#, BLOCK, PIECE, STOP, DELTA, END],
            Ok(()),
        ),
        (vec![START, BLOCK, STOP, DELTA], Err(Rejected::Cut)),
        (vec![START, BLOCK, STOP, END], Err(Rejected::Unfinished)),
        (
            vec![START, BLOCK, STOP, DELTA, "[DONE]"],
            Err(Rejected::Unfinished),
        ),
        (vec![START, BLOCK, DELTA, END], Err(Rejected::Unexpected)),
        (
            vec![START, BLOCK, PIECE, STOP, DELTA, &block, &stop, END],
            Err(Rejected::AfterEnd),
        ),
        (vec![START, DELTA, END], Err(Rejected::Empty)),
        (vec![BLOCK, STOP, DELTA, END], Err(Rejected::Unexpected)),
        (vec![START, START], Err(Rejected::Unexpected)),
        (vec![START, BLOCK, &block], Err(Rejected::Unexpected)),
        (vec![START, BLOCK, &stop], Err(Rejected::Unexpected)),
        (vec![START, PIECE], Err(Rejected::Unexpected)),
        (vec![START, &server], Err(Rejected::ProviderWork)),
        (vec![START, &block], Err(Rejected::Unexpected)),
        (vec![START, BLOCK, PIECE, error], Err(Rejected::Error)),
        (
            vec![START, BLOCK, PIECE, STOP, DELTA, END, END],
            Err(Rejected::AfterEnd),
        ),
        (vec![START, "{}"], Err(Rejected::Unexpected)),
        (vec!["[DONE]"], Err(Rejected::Unfinished)),
    ] {
        assert_eq!(MESSAGES.events(&events), expected, "{events:?}");
    }
}
