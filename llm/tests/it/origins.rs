//! Fields that name the user: out of the key only where the provider is known to ignore them.
//! LiteLLM routes by `metadata.tags`, and agents choose a memory by `user`.

use reflex_llm::Rules;

use crate::embeddings::embedding;
use crate::gemini::generate;
use crate::messages::message;
use crate::request::{Request, chat, completion, counts, ignored};
use crate::responses::response;

const NAMES: [&str; 4] = [
    r#""user":"u""#,
    r#""metadata":{"tags":["a"]}"#,
    r#""safety_identifier":"s""#,
    r#""prompt_cache_key":"k""#,
];

const KNOWN: [&str; 6] = [
    "https://api.openai.com",
    "https://eu.api.openai.com:443",
    "https://mine.openai.azure.com",
    "https://mine.cognitiveservices.azure.com",
    "https://mine.services.ai.azure.com",
    "https://api.anthropic.com",
];

const UNKNOWN: [&str; 6] = [
    "http://127.0.0.1:4000",
    "https://litellm.internal",
    "https://api.openai.com.internal",
    "https://openrouter.ai",
    "https://mine.azure-api.net",
    "http://localhost:11434",
];

#[test]
fn case_metadata_tags_choose_the_deployment_and_user_names_the_memory() {
    for upstream in UNKNOWN {
        for request in [chat(), completion(), response()] {
            let request = request.upstream(upstream);
            NAMES.iter().for_each(|fields| counts(&request, fields));
        }
        counts(&embedding().upstream(upstream), r#""user":"u""#);
        counts(
            &message().upstream(upstream),
            r#""metadata":{"user_id":"u"}"#,
        );
        counts(&generate().upstream(upstream), r#""labels":{"team":"a"}"#);
    }
}

#[test]
fn providers_that_make_nothing_of_them_are_known() {
    for upstream in KNOWN {
        for request in [chat(), completion(), response()] {
            let request = request.upstream(upstream);
            NAMES.iter().for_each(|fields| ignored(&request, fields));
        }
        ignored(&embedding().upstream(upstream), r#""user":"u""#);
    }
    ignored(&message(), r#""metadata":{"user_id":"u"}"#);
    ignored(&generate(), r#""labels":{"team":"a"}"#);
    let groq = chat().upstream("https://api.groq.com");
    ignored(&groq, r#""user":"u""#);
    counts(&groq, r#""metadata":{"a":"b"}"#);
}

#[test]
fn operators_say_what_counts_and_what_does_not() {
    let list = |names: &[&str]| names.iter().map(|&it| it.to_owned()).collect();
    let gateway = |rules: Rules| {
        assert_eq!(rules.check(None), Ok(()));
        chat().upstream("https://litellm.internal").rules(rules)
    };
    let request = gateway(Rules {
        ignored_fields: list(&["user", "x_*"]),
        ..Rules::default()
    });
    ignored(&request, r#""user":"u""#);
    ignored(&request, r#""us\u0065r":"u""#);
    ignored(&request, r#""x_id":1"#);
    counts(&request, r#""y_id":1"#);
    counts(&request, r#""metadata":{"a":"b"}"#);
    counts(&request, r#""y":{"user":"u"}"#);
    let keyed = Rules {
        keyed_fields: list(&["user", "meta*", "prompt_cache_*"]),
        ..Rules::default()
    };
    let request = chat().rules(keyed);
    counts(&request, r#""user":"u""#);
    counts(&request, r#""metadata":{"a":"b"}"#);
    counts(&request, r#""prompt_cache_retention":"24h""#);
    ignored(&request, r#""safety_identifier":"s""#);
    // Fields that decide how a request is treated still do so.
    ignored(&request, r#""store":false"#);
}

#[test]
fn the_question_itself_cannot_be_ignored() {
    for (pattern, name) in [
        ("*", "`"),
        ("mess*", "`messages`"),
        ("model", "`model`"),
        ("tool*", "`tool_choice`"),
        ("stream", "`stream`"),
        ("", "1 to 256"),
    ] {
        let rules = Rules {
            ignored_fields: vec![pattern.to_owned()],
            ..Rules::default()
        };
        let error = rules.check(None).expect_err(pattern);
        assert!(error.starts_with("ignored_fields: "), "{error}");
        assert!(error.contains(name), "{error}");
    }
    let both = Rules {
        ignored_fields: vec!["user".to_owned()],
        keyed_fields: vec!["user".to_owned()],
        ..Rules::default()
    };
    assert!(both.check(None).expect_err("both").contains("keyed_fields"));
}

/// They say how long and where a prompt is cached, and name no user.
#[test]
fn options_of_the_prompt_cache_do_not_count_but_prewarming_passes_by() {
    for upstream in [KNOWN[0], UNKNOWN[0]] {
        for request in [chat(), response()] {
            let request: Request = request.upstream(upstream);
            for options in [
                r#"{"ttl":"30m"}"#,
                r#"{"mode":"explicit","ttl":"12h"}"#,
                r#"{"prewarm":false}"#,
                r#"{"prewarm":null,"mode":"implicit"}"#,
                "{}",
                "null",
            ] {
                ignored(&request, &format!(r#""prompt_cache_options":{options}"#));
            }
            for options in [r#"{"something_new":1}"#, r#""30m""#] {
                counts(&request, &format!(r#""prompt_cache_options":{options}"#));
            }
            for prewarm in ["true", "1", r#""true""#, "{}"] {
                let fields =
                    format!(r#""prompt_cache_options":{{"ttl":"30m","prewarm":{prewarm}}}"#);
                let bypass = request.clone().fields(&fields).bypass();
                assert_eq!(bypass, reflex_llm::Bypass::ProviderState);
            }
        }
    }
    let hint = r#","prompt_cache_breakpoint":{"mode":"explicit","ttl":"12h"}"#;
    let chat_with = |hint: &str| {
        let part = format!(r#"{{"type":"text","text":"a"{hint}}}"#);
        chat().body(format!(
            r#"{{"messages":[{{"role":"user","content":[{part}]}}]}}"#
        ))
    };
    crate::request::same(&chat_with(""), &chat_with(hint));
    crate::request::differ(
        &chat_with(""),
        &chat_with(r#","prompt_cache_breakpoint":"x""#),
    );
    let response_with = |hint: &str| {
        let part = format!(r#"{{"type":"input_text","text":"a"{hint}}}"#);
        let input = format!(r#"[{{"role":"user","content":[{part}]}}]"#);
        response().body(format!(r#"{{"store":false,"input":{input}}}"#))
    };
    crate::request::same(&response_with(""), &response_with(hint));
    // An argument of that name is not such a field.
    let call = |value: &str| {
        chat().body(format!(
            r#"{{"messages":[{{"tool_calls":[{{"function":{{"arguments":{{"prompt_cache_breakpoint":{value}}}}}}}]}}]}}"#
        ))
    };
    crate::request::differ(&call("{}"), &call(r#"{"a":1}"#));
}
