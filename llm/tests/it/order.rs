//! Where the order of an object's members is in the key. Providers write the fields of an answer in
//! the order of its schema, and models get to see tools, arguments and metadata as they are spelled.

use crate::gemini::generate;
use crate::messages::message;
use crate::request::{Request, chat, differ, same};
use crate::responses::response;

/// Puts an object with two members into the fields, in either order.
fn both(request: &Request, fields: &str) -> [Request; 2] {
    let ways = [
        r#""reasoning":{"a":1},"answer":{"b":2}"#,
        r#""answer":{"b":2},"reasoning":{"a":1}"#,
    ];
    ways.map(|members| {
        let fields = fields.replace("ORDERED", &format!("{{{members}}}"));
        request.clone().fields(&fields)
    })
}

#[track_caller]
fn order_counts(request: &Request, fields: &str) {
    let [one, other] = both(request, fields);
    differ(&one, &other);
    same(&one, &one.clone());
}

#[test]
fn the_order_inside_schemas_counts() {
    let schema = r#"{"type":"object","properties":ORDERED}"#;
    let check = |request: &Request, fields: &str| {
        order_counts(request, &fields.replace("SCHEMA", schema));
        // However deep.
        let nested = r#"{"anyOf":[{"items":{"properties":ORDERED}}]}"#;
        order_counts(request, &fields.replace("SCHEMA", nested));
    };
    let format =
        r#""response_format":{"type":"json_schema","json_schema":{"name":"n","schema":SCHEMA}}"#;
    check(&chat(), format);
    for name in [
        "guided_json",
        "format",
        "json_schema",
        "structured_outputs",
        "grammar",
    ] {
        check(&chat(), &format!(r#""{name}":SCHEMA"#));
        check(&chat(), &format!(r#""extra_body":{{"{name}":SCHEMA}}"#));
    }
    check(
        &response(),
        r#""text":{"format":{"type":"json_schema","name":"n","schema":SCHEMA}}"#,
    );
    check(
        &message(),
        r#""output_config":{"format":{"type":"json_schema","schema":SCHEMA}}"#,
    );
    check(
        &message(),
        r#""output_format":{"type":"json_schema","schema":SCHEMA}"#,
    );
    for config in ["generationConfig", "generation_config"] {
        for name in [
            "responseSchema",
            "responseJsonSchema",
            "response_schema",
            "_responseJsonSchema",
        ] {
            check(&generate(), &format!(r#""{config}":{{"{name}":SCHEMA}}"#));
        }
    }
}

#[test]
fn the_order_inside_tools_counts() {
    let function = r#"{"name":"f","parameters":{"properties":ORDERED}}"#;
    let chat_tool = format!(r#""tools":[{{"type":"function","function":{function}}}]"#);
    order_counts(&chat(), &chat_tool);
    order_counts(&chat(), &format!(r#""functions":[{function}]"#));
    let tool = r#""tools":[{"type":"function","name":"f","parameters":{"properties":ORDERED}}]"#;
    order_counts(&response(), tool);
    order_counts(
        &message(),
        r#""tools":[{"name":"f","input_schema":{"properties":ORDERED}}]"#,
    );
    order_counts(
        &message(),
        r#""tools":[{"name":"f","input_examples":[ORDERED]}]"#,
    );
    for tools in ["functionDeclarations", "function_declarations"] {
        for schema in ["parameters", "parametersJsonSchema", "response"] {
            let tools = format!(r#""tools":[{{"{tools}":[{{"name":"f","{schema}":ORDERED}}]}}]"#);
            order_counts(&generate(), &tools);
        }
    }
    // A tool is put into the prompt as it is.
    differ(
        &chat()
            .fields(r#""tools":[{"type":"function","function":{"name":"f","description":"d"}}]"#),
        &chat()
            .fields(r#""tools":[{"type":"function","function":{"description":"d","name":"f"}}]"#),
    );
}

#[test]
fn the_order_inside_arguments_and_what_is_the_users_own_counts() {
    let chat_with = |messages: &str| format!(r#""x":1,"messages":[{messages}]"#);
    let bare = chat().body(r#"{"model":"m"}"#);
    let call = r#"{"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f","arguments":ORDERED}}]}"#;
    order_counts(&bare, &chat_with(call));
    order_counts(
        &bare,
        &chat_with(r#"{"role":"assistant","reasoning_details":[ORDERED]}"#),
    );
    order_counts(
        &bare,
        &chat_with(r#"{"role":"user","content":[{"type":"x","something":ORDERED}]}"#),
    );
    order_counts(&bare, r#""x":ORDERED"#);
    order_counts(&bare, r#""chat_template_kwargs":ORDERED"#);

    let blocks = message().body(r#"{"model":"m"}"#);
    order_counts(
        &blocks,
        r#""messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","input":ORDERED}]}]"#,
    );
    let items = response().body(r#"{"model":"m","store":false}"#);
    order_counts(
        &items,
        r#""input":[{"type":"computer_call","action":ORDERED}]"#,
    );
    let contents = generate().body(r#"{"x":1}"#);
    for (name, own) in [
        ("functionCall", "args"),
        ("function_call", "args"),
        ("functionResponse", "response"),
    ] {
        let part = format!(r#"{{"{name}":{{"name":"f","{own}":ORDERED}}}}"#);
        order_counts(&contents, &format!(r#""contents":[{{"parts":[{part}]}}]"#));
    }
    // At a server of which nothing is known, metadata counts, in its order.
    let gateway = chat().upstream("https://gateway.internal");
    order_counts(&gateway, r#""metadata":ORDERED"#);
}

/// `case_the_same_json_in_another_key_order_misses`, for the objects of each API.
#[test]
fn the_order_of_the_apis_own_objects_does_not_count() {
    let check = |request: Request, one: &str, other: &str| {
        same(&request.clone().body(one), &request.body(other));
    };
    check(
        chat(),
        r#"{"model":"m","temperature":0,"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"u","detail":"low"}}]},{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"r"}],"response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"b":1,"a":2}}},"tool_choice":{"type":"function","function":{"name":"f"}},"logit_bias":{"1":2,"3":4}}"#,
        r#"{"logit_bias":{"3":4,"1":2},"tool_choice":{"function":{"name":"f"},"type":"function"},"response_format":{"json_schema":{"schema":{"b":1,"a":2},"strict":true,"name":"n"},"type":"json_schema"},"messages":[{"content":[{"text":"a","type":"text"},{"image_url":{"detail":"low","url":"u"},"type":"image_url"}],"role":"user"},{"tool_calls":[{"function":{"arguments":"{}","name":"f"},"type":"function","id":"c"}],"role":"assistant"},{"content":"r","tool_call_id":"c","role":"tool"}],"temperature":0,"model":"m"}"#,
    );
    check(
        response(),
        r#"{"model":"m","store":false,"input":[{"role":"user","content":[{"type":"input_text","text":"a"}]},{"type":"function_call","name":"f","arguments":"{}","call_id":"c"}],"text":{"verbosity":"low","format":{"type":"json_schema","name":"n","schema":{"b":1,"a":2}}},"reasoning":{"effort":"low","summary":"auto"}}"#,
        r#"{"reasoning":{"summary":"auto","effort":"low"},"text":{"format":{"schema":{"b":1,"a":2},"name":"n","type":"json_schema"},"verbosity":"low"},"input":[{"content":[{"text":"a","type":"input_text"}],"role":"user"},{"call_id":"c","arguments":"{}","name":"f","type":"function_call"}],"store":false,"model":"m"}"#,
    );
    check(
        message(),
        r#"{"model":"m","max_tokens":9,"system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"A"}},{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"r"}]}]},{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"b":1,"a":2}}]}],"thinking":{"type":"enabled","budget_tokens":5}}"#,
        r#"{"thinking":{"budget_tokens":5,"type":"enabled"},"messages":[{"content":[{"source":{"data":"A","media_type":"image/png","type":"base64"},"type":"image"},{"content":[{"text":"r","type":"text"}],"tool_use_id":"t","type":"tool_result"}],"role":"user"},{"content":[{"input":{"b":1,"a":2},"name":"f","id":"t","type":"tool_use"}],"role":"assistant"}],"system":[{"text":"s","type":"text"}],"max_tokens":9,"model":"m"}"#,
    );
    check(
        generate(),
        r#"{"contents":[{"role":"user","parts":[{"inlineData":{"mimeType":"image/png","data":"A"}},{"functionCall":{"name":"f","args":{"b":1,"a":2}}}]}],"generationConfig":{"temperature":0,"topK":1,"responseSchema":{"b":1,"a":2}},"safetySettings":[{"category":"c","threshold":"t"}]}"#,
        r#"{"safetySettings":[{"threshold":"t","category":"c"}],"generationConfig":{"responseSchema":{"b":1,"a":2},"topK":1,"temperature":0},"contents":[{"parts":[{"inlineData":{"data":"A","mimeType":"image/png"}},{"functionCall":{"args":{"b":1,"a":2},"name":"f"}}],"role":"user"}]}"#,
    );
}
