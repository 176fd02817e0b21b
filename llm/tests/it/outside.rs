//! Requests whose answers depend on more than the request: searches, tools of the provider, and
//! state that the provider keeps under a name.

use reflex_llm::{Bypass, PathRule, Rules};

use crate::gemini::generate;
use crate::messages::message;
use crate::request::{Request, chat, completion, counts, same};
use crate::responses::response;

fn generating() -> [Request; 5] {
    [chat(), completion(), response(), message(), generate()]
}

#[track_caller]
fn passes_by(request: &Request, fields: &str, why: Bypass) {
    assert_eq!(request.clone().fields(fields).bypass(), why, "{fields}");
}

#[test]
fn case_a_search_switched_on_by_a_field_that_no_list_knows() {
    for request in generating() {
        for fields in [
            r#""web_search":true"#,
            r#""web_search":{"enable":true}"#,
            r#""web_search":"auto""#,
            r#""enable_search":true"#,
            r#""enable_enhancement":true"#,
            r#""enable_web_search":1"#,
            r#""search_parameters":{"mode":"auto"}"#,
            r#""search_options":{}"#,
            r#""web_search_options":{}"#,
            r#""webSearch":{}"#,
            r#""enableSearch":true"#,
            r#""deep_search":true"#,
            r#""browsing":true"#,
            r#""use_internet":true"#,
            r#""google_grounding":{}"#,
            r#""return_citations":true"#,
            r#""a_search_of_next_year":true"#,
            r#""venice_parameters":{"enable_web_search":"on"}"#,
            r#""extra_body":{"enable_search":true}"#,
            r#""extra_body":{"google":{"grounding":{}}}"#,
            r#""features":{"web_search":true}"#,
        ] {
            // Of two reasons the first is reported.
            if fields.contains("web_search_options") && request.path.contains("models") {
                continue;
            }
            passes_by(&request, fields, Bypass::WebSearch);
        }
        for fields in [
            r#""plugins":[{"id":"web"}]"#,
            r#""connectors":[{"id":"web"}]"#,
            r#""mcp_servers":[{"url":"u"}]"#,
            r#""skills":["a"]"#,
            r#""tool_ids":["a"]"#,
        ] {
            passes_by(&request, fields, Bypass::HostedTool);
        }
    }
}

#[test]
fn case_presets_and_prompt_templates_kept_by_a_gateway() {
    for request in generating() {
        for fields in [
            r#""preset":"mine""#,
            r#""presets":["mine"]"#,
            r#""prompt_id":"p""#,
            r#""promptId":"p""#,
            r#""agent":{"type":"agent_reference","name":"a"}"#,
            r#""agent_id":"a""#,
            r#""agentId":"a""#,
            r#""agent_reference":{"name":"a"}"#,
            r#""assistant_id":"a""#,
            r#""bot_id":"b""#,
            r#""app_id":"a""#,
            r#""workflow_id":"w""#,
            r#""conversation_id":"c""#,
            r#""chat_id":"c""#,
            r#""thread_id":"t""#,
            r#""session_id":"s""#,
            r#""memory":{"id":"m"}"#,
            r#""memory_id":"m""#,
            r#""knowledge_base_ids":["k"]"#,
            r#""dataset_ids":["d"]"#,
            r#""vector_store_ids":["v"]"#,
            r#""file_ids":["f"]"#,
            r#""files":[{"id":"f"}]"#,
            r#""rag":true"#,
            r#""character_slug":"c""#,
            r#""cached_content":"cachedContents/c""#,
            r#""cachedContent":"cachedContents/c""#,
            r#""context_id":"ctx""#,
            r#""google":{"cached_content":"cachedContents/c"}"#,
            r#""extra_body":{"google":{"cached_content":"cachedContents/c"}}"#,
            r#""extra_body":{"cachedContent":"cachedContents/c"}"#,
            r#""extra_body":{"session_id":"s"}"#,
        ] {
            passes_by(&request, fields, Bypass::ProviderState);
        }
    }
}

#[test]
fn what_is_switched_off_is_no_reason() {
    for value in [
        "null",
        "false",
        "0",
        "[]",
        r#""""#,
        r#""off""#,
        r#""none""#,
        r#""disabled""#,
        r#"{"enable":false}"#,
        r#"{"enabled":false}"#,
        r#"{"type":"disabled"}"#,
    ] {
        for name in [
            "web_search",
            "enable_enhancement",
            "plugins",
            "preset",
            "session_id",
        ] {
            counts(&chat(), &format!(r#""{name}":{value}"#));
        }
    }
    passes_by(
        &chat(),
        r#""web_search_options":{"enabled":false}"#,
        Bypass::WebSearch,
    );
}

/// A word inside the user's own text, schema or arguments does not mark a field.
#[test]
fn the_same_words_elsewhere_are_no_reason() {
    for fields in [
        r#""response_format":{"type":"json_schema","json_schema":{"schema":{"properties":{"search":{},"agent_id":{},"session":{}}}}}"#,
        r#""tools":[{"type":"function","function":{"name":"web_search","parameters":{"properties":{"search":{}}}}}]"#,
        r#""metadata":{"session_id":"s","agent":"a"}"#,
        r#""stop":["search"]"#,
        r#""guided_json":{"properties":{"memory":{}}}"#,
        r#""chat_template_kwargs":{"enable_thinking":false}"#,
        r#""use_beam_search":true"#,
        r#""research_":null"#,
        r#""researcher_note":"x""#,
        r#""previous_response_id":"r""#,
        r#""service_tier":"auto""#,
        r#""extra_body":{"top_k":4,"options":{"num_ctx":4096}}"#,
        r#""max_completion_tokens":5"#,
        r#""parallel_tool_calls":false"#,
        r#""documents":[{"text":"d"}]"#,
    ] {
        chat().fields(fields).exchange();
    }
    // Embeddings search nothing.
    crate::embeddings::embedding()
        .fields(r#""search_type":"document""#)
        .exchange();
}

#[test]
fn case_answer_engines_and_presets_selected_by_model() {
    let asks = |model: &str| chat().body(format!(r#"{{"model":"{model}","messages":[]}}"#));
    for model in [
        "gpt-4o-search-preview",
        "o3-deep-research",
        "sonar",
        "perplexity/sonar-pro",
        "openai/gpt-4o:online",
        "groq/compound-mini",
        "jina-deepsearch-v1",
        "gemini-2.5-flash-search",
        "exa-research",
        "Alibaba-NLP/Tongyi-DeepResearch-30B",
    ] {
        assert_eq!(asks(model).bypass(), Bypass::WebSearch, "{model}");
    }
    for model in [
        "@preset/mine",
        "openai/gpt-4o@preset/mine",
        "agent:mine",
        "agents/mine",
        "agent_a1b2",
        "openclaw:main",
        "asst_abc",
        "bot-20250101",
        "gpt-4-gizmo-g-abc",
    ] {
        assert_eq!(asks(model).bypass(), Bypass::ProviderState, "{model}");
    }
    for model in [
        "gpt-4o",
        "claude-sonnet-4-5",
        "qwen3:8b",
        "ft:gpt-4o-mini:acme:support-bot:abc",
        "ft:gpt-4o:research:search:abc",
        "meta-llama/Llama-3.3-70B-Instruct",
        "agentica-org/deepcoder",
        "chatbot-arena",
    ] {
        asks(model).exchange();
    }
    // Fallbacks, and models that the path names.
    let fallbacks = chat().fields(r#""models":["openai/gpt-4o","perplexity/sonar"]"#);
    assert_eq!(fallbacks.bypass(), Bypass::WebSearch);
    counts(&chat(), r#""models":["openai/gpt-4o"]"#);
    let deployment =
        |name: &str| chat().path(&format!("/openai/deployments/{name}/chat/completions"));
    assert_eq!(
        deployment("gpt-4o-search-preview").bypass(),
        Bypass::WebSearch
    );
    deployment("mine").exchange();
}

#[test]
fn case_applications_that_answer_at_a_path_of_their_own() {
    for path in [
        "/v1/prompts/pp-mine-123/completions",
        "/v1/prompts/pp-mine-123/chat/completions",
        "/v1/agents/completions",
        "/api/v1/agents/a/chat/completions",
        "/api/v1/agents_openai/a/chat/completions",
        "/api/v1/chats_openai/c/chat/completions",
        "/api/v3/bots/chat/completions",
        "/assistant/chat/mine/chat/completions",
        "/api/v1/apps/mine/chat/completions",
        "/api/projects/p/applications/mine/protocols/openai/responses",
        "/ai-search/instances/mine/chat/completions",
        "/v1//prompts/./mine/completions",
        "/v1/%70rompts/mine/completions",
        "/v1/Prompts/mine/completions",
        "/workflows/w/v1/messages",
    ] {
        assert_eq!(chat().path(path).bypass(), Bypass::ProviderState, "{path}");
    }
    for path in [
        "/v1/engines/agents-model/completions",
        "/promptly/v1/completions",
        "/v1/chat/completions?prompts=1",
    ] {
        completion().path(path).exchange();
    }
    // A path of no API bypasses for that reason.
    assert_eq!(chat().path("/v1/prompts/mine").bypass(), Bypass::Path);
}

/// An operator's rule for a path takes precedence over the path's words.
#[test]
fn a_rule_for_a_path_goes_before_its_words() {
    let rules = [PathRule::parse("/apps/*/chat/completions", "chat-completions").expect("valid")];
    let head = reflex_llm::Head {
        method: "POST",
        upstream: "https://gateway.internal",
        path: "/apps/mine/v1/chat/completions",
        headers: &[("authorization", b"Bearer sk-one")],
    };
    let policy = reflex_llm::Policy {
        paths: &rules,
        ..reflex_llm::Policy::default()
    };
    assert!(reflex_llm::candidate(&head, &policy).is_ok());
    let without = reflex_llm::Policy::default();
    let bypass = reflex_llm::candidate(&head, &without).err();
    assert_eq!(bypass, Some(Bypass::ProviderState));
}

#[test]
fn operators_name_what_passes_by_and_what_does_not() {
    let list = |names: &[&str]| names.iter().map(|&it| it.to_owned()).collect();
    let rules = Rules {
        bypass_fields: list(&["deep_*", "turbo"]),
        bypass_models: list(&["live-*", "*:fresh"]),
        keyed_fields: list(&["session_id", "plugins"]),
        ignored_fields: list(&["thread_id"]),
        ..Rules::default()
    };
    assert_eq!(rules.check(None), Ok(()));
    let request = chat().rules(rules.clone());
    for fields in [r#""deep_mode":1"#, r#""turbo":"x""#, r#""t\u0075rbo":{}"#] {
        passes_by(&request, fields, Bypass::Rule);
    }
    for fields in [
        r#""turbo":false"#,
        r#""turbo":null"#,
        r#""deeper":1"#,
        r#""x":{"turbo":1}"#,
    ] {
        request.clone().fields(fields).exchange();
    }
    let asks = |model: &str| {
        let body = format!(r#"{{"model":"{model}","messages":[]}}"#);
        chat().rules(rules.clone()).body(body)
    };
    for model in ["live-1", "LIVE-1", "gpt-4o:fresh"] {
        assert_eq!(asks(model).bypass(), Bypass::Rule, "{model}");
    }
    asks("gpt-4o").exchange();
    let fallback = request.clone().fields(r#""models":["gpt-4o","live-2"]"#);
    assert_eq!(fallback.bypass(), Bypass::Rule);
    let deployment = "/openai/deployments/live-3/chat/completions";
    assert_eq!(request.clone().path(deployment).bypass(), Bypass::Rule);
    let gemini = generate().rules(rules);
    let gemini = gemini.path("/v1beta/models/live-4:generateContent");
    assert_eq!(gemini.bypass(), Bypass::Rule);

    // Fields with a word of the lists that are harmless here.
    counts(&request, r#""session_id":"s""#);
    counts(&request, r#""plugins":[{"id":"mine"}]"#);
    same(&request, &request.clone().fields(r#""thread_id":"t""#));
    // But not fields that decide how a request is treated.
    let keyed = Rules {
        keyed_fields: list(&["store", "tools", "model"]),
        ..Rules::default()
    };
    let request = chat().rules(keyed);
    passes_by(&request, r#""store":true"#, Bypass::Store);
    passes_by(
        &request,
        r#""tools":[{"type":"web_search"}]"#,
        Bypass::HostedTool,
    );
}
