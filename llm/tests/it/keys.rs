//! Which requests share an answer. The tests that begin with `case_` are named after failures of
//! other caches that their users reported.

use std::collections::HashSet;

use reflex_llm::{Bypass, Key, Representation};

use crate::request::{Request, chat, differ, same};

/// The chat and the chat with these fields are two requests.
#[track_caller]
fn counts(fields: &str) {
    differ(&chat(), &chat().fields(fields));
}

#[track_caller]
fn messages_differ(a: &str, b: &str) {
    let with = |messages: &str| chat().body(format!(r#"{{"model":"m","messages":[{messages}]}}"#));
    differ(&with(a), &with(b));
}

#[test]
fn case_logit_bias_max_tokens_stop_or_n_missing() {
    counts(r#""logit_bias":{"50256":-100}"#);
    counts(r#""max_tokens":1"#);
    counts(r#""max_completion_tokens":1"#);
    counts(r#""stop":"x""#);
    counts(r#""n":2"#);
}

#[test]
fn case_provider_specific_parameters_dropped() {
    counts(r#""top_k":40"#);
    counts(r#""guided_json":{"type":"object"}"#);
    counts(r#""extra_body":{"google":{"thinking_config":{"thinking_budget":0}}}"#);
    counts(r#""some_field_of_next_year":true"#);
}

#[test]
fn case_response_format_seed_reasoning_effort_or_previous_response_id_missing() {
    counts(r#""response_format":{"type":"json_object"}"#);
    counts(r#""seed":7"#);
    counts(r#""reasoning_effort":"high""#);
    counts(r#""previous_response_id":"resp_1""#);
}

#[test]
fn case_tools_missing_or_tool_call_id_dropped() {
    let tool = |name: &str| {
        chat().fields(&format!(
            r#""tools":[{{"type":"function","function":{{"name":"{name}"}}}}]"#
        ))
    };
    differ(&chat(), &tool("a"));
    differ(&tool("a"), &tool("b"));
    messages_differ(
        r#"{"role":"tool","tool_call_id":"call_1","content":"x"}"#,
        r#"{"role":"tool","tool_call_id":"call_2","content":"x"}"#,
    );
}

#[test]
fn case_tool_choice_none_replays_tool_calls() {
    let tools = r#""tools":[{"type":"function","function":{"name":"a"}}]"#;
    let with = |choice: &str| chat().fields(&format!("{tools}{choice}"));
    differ(&with(""), &with(r#","tool_choice":"none""#));
    differ(
        &with(r#","tool_choice":"auto""#),
        &with(r#","tool_choice":"none""#),
    );
}

#[test]
fn case_model_or_effective_upstream_missing() {
    let model = |name: &str| chat().body(format!(r#"{{"model":"{name}","messages":[]}}"#));
    differ(&model("gpt-4o"), &model("gpt-4o-mini"));
    let elsewhere = Request {
        upstream: "https://api.mistral.ai".into(),
        ..chat()
    };
    differ(&chat(), &elsewhere);
}

#[test]
fn case_a_prompt_with_an_image_gets_the_text_only_answer() {
    let image = |url: &str| {
        format!(
            r#"{{"role":"user","content":[{{"type":"text","text":"what is it?"}},{{"type":"image_url","image_url":{{"url":"{url}"}}}}]}}"#
        )
    };
    let text = r#"{"role":"user","content":[{"type":"text","text":"what is it?"}]}"#;
    messages_differ(text, &image("data:image/png;base64,AAAA"));
    messages_differ(
        &image("data:image/png;base64,AAAA"),
        &image("data:image/png;base64,AAAB"),
    );
}

#[test]
fn case_path_or_query_missing() {
    let paths = [
        "/v1/chat/completions",
        "/v2/chat/completions",
        "/v1/chat/completions?",
        "/v1/chat/completions?api-version=1",
        "/v1/chat/completions?api-version=2",
        "/openai/deployments/a/chat/completions?api-version=1",
        "/openai/deployments/b/chat/completions?api-version=1",
    ];
    let keys = paths.map(|path| chat().path(path).exchange().key.digest);
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), paths.len());
    assert_eq!(chat().path("/v1/images/generations").bypass(), Bypass::Path);
}

#[test]
fn case_only_the_last_message_is_keyed() {
    let last = r#"{"role":"user","content":"go on"}"#;
    messages_differ(
        &format!(r#"{{"role":"user","content":"a"}},{last}"#),
        &format!(r#"{{"role":"user","content":"b"}},{last}"#),
    );
    messages_differ(last, &format!("{last},{last}"));
    messages_differ(
        r#"{"role":"user","content":"a"},{"role":"user","content":"b"}"#,
        r#"{"role":"user","content":"b"},{"role":"user","content":"a"}"#,
    );
}

#[test]
fn case_system_prompt_or_tools_absent() {
    let user = r#"{"role":"user","content":"hi"}"#;
    let system = |text: &str| format!(r#"{{"role":"system","content":"{text}"}},{user}"#);
    messages_differ(user, &system("Be brief."));
    messages_differ(&system("Be brief."), &system("Be long."));
    counts(r#""functions":[{"name":"a"}]"#);
}

#[test]
fn case_short_hash_collides() {
    let tenant = chat().exchange().key.tenant;
    let mut quarters = HashSet::new();
    for number in 0..10_000 {
        let digest = Key::for_prompt(&tenant, &number.to_string()).digest;
        for quarter in digest.as_chunks::<8>().0 {
            assert!(quarters.insert(*quarter), "every part of a digest counts");
        }
    }
}

#[test]
fn case_the_same_json_in_another_key_order_misses() {
    same(
        &chat().body(r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#),
        &chat().body(
            "{ \"messages\" : [ { \"content\":\t\"x\",\r\n\"role\":\"user\" } ], \"model\":\"m\" }\n",
        ),
    );
}

#[test]
fn case_json_sent_to_a_client_that_asked_for_a_stream() {
    let stream = chat().fields(r#""stream":true"#);
    differ(&chat(), &stream);
    assert_eq!(stream.exchange().shape.representation, Representation::Sse);
    for fields in [r#""stream":false"#, r#""stream":null"#] {
        same(&chat(), &chat().fields(fields));
        assert_eq!(chat().exchange().shape.representation, Representation::Json);
    }
}

#[test]
fn case_no_usage_chunk_on_a_streamed_hit() {
    let with = |options: &str| chat().fields(&format!(r#""stream":true{options}"#));
    differ(
        &with(""),
        &with(r#","stream_options":{"include_usage":true}"#),
    );
    differ(
        &with(r#","stream_options":{"include_usage":false}"#),
        &with(r#","stream_options":{"include_usage":true}"#),
    );
}

#[test]
fn case_the_requests_no_cache_is_ignored() {
    let request = chat().header("cache-control", "no-cache");
    assert!(request.exchange().control.no_cache);
    same(&chat(), &request);
    let request = chat().header("cache-control", "max-age=60, No-Store");
    assert_eq!(request.bypass(), Bypass::NoStore);
}

#[test]
fn fields_that_cannot_change_the_answer_are_out_of_the_key() {
    for fields in [
        r#""user":"u-1""#,
        r#""safety_identifier":"s""#,
        r#""prompt_cache_key":"k""#,
        r#""prompt_cache_retention":"24h""#,
        r#""metadata":{"a":"b"}"#,
        r#""store":false"#,
        r#""store":null"#,
        r#""us\u0065r":"u-1""#,
    ] {
        same(&chat(), &chat().fields(fields));
    }
}

#[test]
fn the_same_names_further_in_count() {
    for name in ["user", "metadata", "store", "stream"] {
        let with = |value: &str| chat().fields(&format!(r#""x":{{"{name}":{value}}}"#));
        differ(&with("1"), &with("2"));
    }
}
