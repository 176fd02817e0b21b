//! Responses: which requests bypass, which parts of a request count, which answers are kept.

use reflex_llm::{Api, Bypass, Recorder, Rejected, Representation};

use crate::judging::{Judged, LENGTH_ALLOWED, LIMITS, event};
use crate::request::{Request, chat, counts, differ, ignored};

const RESPONSES: Judged = Judged(Api::Responses, LIMITS);

pub(crate) fn response() -> Request {
    chat()
        .path("/v1/responses")
        .body(r#"{"model":"gpt-5","input":"hi","store":false}"#)
}

const MESSAGE: &str = r#"{"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"a \"quote\"","annotations":[]}]}"#;

fn answer(status: &str, details: &str, output: &str) -> String {
    format!(
        r#"{{"id":"resp_1","object":"response","status":"{status}","error":null,"incomplete_details":{details},"output":[{output}],"store":false,"usage":{{"total_tokens":5}}}}"#
    )
}

#[test]
fn responses_answer_under_any_prefix() {
    for path in [
        "/v1/responses",
        "/responses",
        "/openai/responses?api-version=2025-04-01-preview",
        "/openai/v1/responses",
    ] {
        assert_eq!(response().path(path).exchange().shape.name(), "responses");
    }
    for path in [
        "/v1/responses/resp_1",
        "/v1/responses/resp_1/cancel",
        "/v1/responses/input_tokens",
        "/v1/responses/compact",
    ] {
        assert_eq!(response().path(path).bypass(), Bypass::Path, "{path}");
    }
}

#[test]
fn a_response_that_is_stored_passes_by_and_absent_means_stored() {
    let with = |store: &str| chat().path("/v1/responses").body(format!("{{{store}}}"));
    for body in [
        "",
        r#""input":"hi""#,
        r#""store":null"#,
        r#""store":true"#,
        r#""store":"false""#,
        r#""x":{"store":false}"#,
    ] {
        assert_eq!(with(body).bypass(), Bypass::Store, "{body}");
    }
    with(r#""store":false"#).exchange();
    with(r#""st\u006fre":false"#).exchange();
}

#[test]
fn a_response_that_builds_on_what_the_provider_holds_passes_by() {
    let check = |fields: &str, expected| {
        assert_eq!(response().fields(fields).bypass(), expected, "{fields}");
    };
    check(r#""previous_response_id":"resp_1""#, Bypass::ProviderState);
    check(r#""conversation":"conv_1""#, Bypass::ProviderState);
    check(r#""conversation":{"id":"conv_1"}"#, Bypass::ProviderState);
    check(r#""prompt":{"id":"pmpt_1"}"#, Bypass::ProviderState);
    check(r#""background":true"#, Bypass::Background);
    for kind in [
        "web_search",
        "web_search_preview",
        "file_search",
        "code_interpreter",
        "computer_use_preview",
        "image_generation",
        "mcp",
        "something_new",
    ] {
        let tools = format!(r#""tools":[{{"type":"function"}},{{"type":"{kind}"}}]"#);
        check(&tools, Bypass::HostedTool);
    }
    for fields in [
        r#""previous_response_id":null"#,
        r#""conversation":null"#,
        r#""background":false"#,
        r#""tools":[{"type":"function","name":"f"},{"type":"custom","name":"c"}]"#,
    ] {
        response().fields(fields).exchange();
    }
    let input = |items: &str| {
        chat()
            .path("/v1/responses")
            .body(format!(r#"{{"store":false,"input":[{items}]}}"#))
    };
    let message = r#"{"role":"user","content":"hi"}"#;
    input(message).exchange();
    input(r#"{"type":"function_call_output","call_id":"c","output":"{}"}"#).exchange();
    for reference in [
        r#"{"type":"item_reference","id":"msg_1"}"#,
        r#"{"type":null,"id":"msg_1"}"#,
        r#"{"id":"msg_1"}"#,
    ] {
        let request = input(&format!("{message},{reference}"));
        assert_eq!(request.bypass(), Bypass::ProviderState, "{reference}");
    }
    // Tools may come with an item, too.
    let with_tools = |tools: &str| {
        input(&format!(
            r#"{message},{{"type":"additional_tools","role":"developer","tools":{tools}}}"#
        ))
    };
    with_tools(r#"[{"type":"function","name":"f"}]"#).exchange();
    for tools in [
        r#"[{"type":"function","name":"f"},{"type":"web_search"}]"#,
        r#"{"type":"function"}"#,
        r#"[{"name":"f","input_schema":{}}]"#,
    ] {
        assert_eq!(with_tools(tools).bypass(), Bypass::HostedTool, "{tools}");
    }
    let model = response().body(r#"{"store":false,"model":"o3-deep-research"}"#);
    assert_eq!(model.bypass(), Bypass::WebSearch);
}

#[test]
fn the_short_list_of_responses_is_that_of_chats() {
    for fields in [
        r#""user":"u""#,
        r#""safety_identifier":"s""#,
        r#""prompt_cache_key":"k""#,
        r#""metadata":{"a":"b"}"#,
        r#""stream":false"#,
    ] {
        ignored(&response(), fields);
    }
    for fields in [
        r#""instructions":"Be brief.""#,
        r#""reasoning":{"effort":"high"}"#,
        r#""text":{"format":{"type":"json_object"}}"#,
        r#""include":["reasoning.encrypted_content"]"#,
        r#""truncation":"auto""#,
        r#""max_output_tokens":16"#,
        r#""service_tier":"flex""#,
        r#""top_logprobs":2"#,
        r#""parallel_tool_calls":false"#,
    ] {
        counts(&response(), fields);
    }
    let stream = response().fields(r#""stream":true"#);
    differ(&response(), &stream);
    assert_eq!(stream.exchange().shape.representation, Representation::Sse);
}

#[test]
fn a_response_is_kept_when_it_is_completed() {
    let check = |body: &str, expected| assert_eq!(RESPONSES.json(body), expected, "{body}");
    let completed = |output: &str| answer("completed", "null", output);
    let call = r#"{"type":"function_call","name":"f","arguments":"{}","call_id":"c","status":"completed"}"#;
    let reasoning = r#"{"type":"reasoning","summary":[],"encrypted_content":"x"}"#;
    check(&completed(MESSAGE), Ok(()));
    check(&completed(&format!("{reasoning},{MESSAGE},{call}")), Ok(()));
    check(&completed(""), Err(Rejected::Empty));
    check(&completed(reasoning), Err(Rejected::Empty));
    check(
        &completed(&MESSAGE.replace("completed", "in_progress")),
        Err(Rejected::Unfinished),
    );
    let refusal = MESSAGE.replace("output_text", "refusal");
    check(&completed(&refusal), Err(Rejected::Refusal));
    let with_item = |kind: &str| {
        let item = format!(r#"{{"type":"{kind}","status":"completed"}}"#);
        completed(&format!("{item},{MESSAGE}"))
    };
    for kind in ["web_search_call", "file_search_call", "mcp_call"] {
        check(&with_item(kind), Err(Rejected::ProviderWork));
    }
    check(&with_item("new"), Err(Rejected::Unexpected));
    for (status, expected) in [
        ("failed", Rejected::Error),
        ("in_progress", Rejected::Unfinished),
        ("queued", Rejected::Unfinished),
        ("cancelled", Rejected::FinishReason),
        ("incomplete", Rejected::FinishReason),
        ("something new", Rejected::FinishReason),
    ] {
        check(&answer(status, "null", MESSAGE), Err(expected));
    }
    let error = completed(MESSAGE).replace("\"error\":null", "\"error\":{\"code\":\"x\"}");
    check(&error, Err(Rejected::Error));
    let moderated = |kind: &str| {
        let result = format!(r#""moderation":{{"input":{{"type":"{kind}"}},"output":null}}"#);
        completed(MESSAGE).replace("\"error\":null", &result)
    };
    check(&moderated("moderation_results"), Ok(()));
    check(&moderated("error"), Err(Rejected::Error));
    let no_status = completed(MESSAGE).replacen("\"status\"", "\"x\"", 1);
    check(&no_status, Err(Rejected::Unexpected));
    check("[]", Err(Rejected::NotJson));
    let cut = &completed(MESSAGE);
    check(&cut[..cut.len() - 1], Err(Rejected::NotJson));
}

#[test]
fn an_incomplete_response_is_kept_only_when_length_is_allowed() {
    let item = MESSAGE.replace("completed", "incomplete");
    let incomplete =
        |reason: &str| answer("incomplete", &format!(r#"{{"reason":"{reason}"}}"#), &item);
    let length = incomplete("max_output_tokens");
    let filtered = incomplete("content_filter");
    let allowed = Judged(Api::Responses, LENGTH_ALLOWED);
    assert_eq!(RESPONSES.json(&length), Err(Rejected::Length));
    assert_eq!(RESPONSES.json(&filtered), Err(Rejected::FinishReason));
    assert_eq!(allowed.json(&length), Ok(()));
    assert_eq!(allowed.json(&filtered), Err(Rejected::FinishReason));
    let event = |answer: &str| format!(r#"{{"type":"response.incomplete","response":{answer}}}"#);
    assert_eq!(RESPONSES.events(&[&event(&length)]), Err(Rejected::Length));
    assert_eq!(allowed.events(&[&event(&length)]), Ok(()));
    assert_eq!(
        allowed.events(&[&event(&filtered)]),
        Err(Rejected::FinishReason)
    );
}

const CREATED: &str = r#"{"type":"response.created","sequence_number":0,"response":{"id":"resp_1","status":"in_progress","output":[]}}"#;
const DELTA: &str =
    r#"{"type":"response.output_text.delta","sequence_number":1,"delta":"a \"quote\""}"#;

fn completed(output: &str) -> String {
    format!(
        r#"{{"type":"response.completed","sequence_number":3,"response":{}}}"#,
        answer("completed", "null", output)
    )
}

#[test]
fn case_streamed_responses_api_not_cached() {
    let end = completed(MESSAGE);
    let frames = [CREATED, DELTA, &end].map(event);
    RESPONSES.good_stream(&frames.concat());
}

#[test]
fn a_streamed_response_ends_with_the_event_that_completes_it() {
    let end = completed(MESSAGE);
    let empty = completed("");
    let done = format!(r#"{{"type":"response.output_item.done","item":{MESSAGE}}}"#);
    let refused = r#"{"type":"response.refusal.delta","delta":"I can"}"#;
    let failed = r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error"}}}"#;
    let error = r#"{"type":"error","code":"server_error","message":"x"}"#;
    let contradiction = end.replace(
        r#""status":"completed","error""#,
        r#""status":"queued","error""#,
    );
    for (events, expected) in [
        (vec![CREATED, DELTA, &end], Ok(())),
        (vec![CREATED, DELTA, &end, "[DONE]"], Ok(())),
        (vec![CREATED, &done, &empty], Ok(())),
        (vec![CREATED, DELTA, &empty], Err(Rejected::Empty)),
        (vec![CREATED, DELTA], Err(Rejected::Cut)),
        (vec![CREATED, DELTA, "[DONE]"], Err(Rejected::Unfinished)),
        (vec![CREATED, refused, &end], Err(Rejected::Refusal)),
        (vec![CREATED, failed], Err(Rejected::Error)),
        (vec![CREATED, error, &end], Err(Rejected::Error)),
        (vec![&end, &end], Err(Rejected::AfterEnd)),
        (vec![&end, "[DONE]", "[DONE]"], Err(Rejected::AfterEnd)),
        (vec![CREATED, &contradiction], Err(Rejected::Unfinished)),
        (
            vec![CREATED, r#"{"type":"response.completed"}"#],
            Err(Rejected::Unexpected),
        ),
        (vec![CREATED, "{}", &end], Err(Rejected::Unexpected)),
        (vec![CREATED, "[]", &end], Err(Rejected::NotJson)),
        (vec![CREATED, "{", &end], Err(Rejected::NotJson)),
    ] {
        assert_eq!(RESPONSES.events(&events), expected, "{events:?}");
    }
    // Half of what may follow the end is not an end.
    let half = event(&end) + "data: [DONE]\n";
    assert_eq!(RESPONSES.sse(&half), Err(Rejected::Cut));
    let other = event(&end) + "data: x\n\n";
    assert_eq!(RESPONSES.sse(&other), Err(Rejected::AfterEnd));
    // The name of the event decides, too, if it is an error.
    let named = "event: error\ndata: {\"message\":\"x\"}\n\n".to_owned() + &event(&end);
    assert_eq!(RESPONSES.sse(&named), Err(Rejected::Error));
}

/// A gateway's `[DONE]` comes late, after the answer was taken for complete.
#[test]
fn what_may_follow_a_complete_stream_belongs_to_it() {
    let shape = response().fields(r#""stream":true"#).exchange().shape;
    let mut recorder = Recorder::new(shape, LIMITS);
    recorder
        .head(200, &[("content-type", b"text/event-stream")])
        .unwrap();
    let end = event(&completed(MESSAGE));
    recorder.feed(end.as_bytes());
    assert_eq!(recorder.complete(), Some(end.len()));
    assert_eq!(recorder.so_far().unwrap().body, end.as_bytes());
    recorder.feed(b"data: [DO");
    assert_eq!((recorder.complete(), recorder.so_far()), (None, None));
    recorder.feed(b"NE]\n\n");
    let whole = end + "data: [DONE]\n\n";
    assert_eq!(recorder.so_far().unwrap().body, whole.as_bytes());
    recorder.feed(b"data: x\n");
    assert_eq!(recorder.so_far(), None);
    assert_eq!(recorder.finish(), Err(Rejected::AfterEnd));
}
