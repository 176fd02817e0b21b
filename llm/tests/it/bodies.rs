//! Which bodies are read, how strictly, and what bypasses.

use reflex_llm::{Anonymous, Bypass, Classified};

use crate::request::{Request, chat, differ, same};

#[track_caller]
fn check(body: impl AsRef<[u8]>, expected: Bypass) {
    assert_eq!(chat().body(body).bypass(), expected);
}

#[test]
fn what_is_not_json_passes_by() {
    for body in [
        "",
        " ",
        "{",
        "}",
        "{]",
        "[}",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{,"a":1}"#,
        r#"{"a" 1}"#,
        r#"{a:1}"#,
        r#"{'a':1}"#,
        r#"{1:1}"#,
        r#"{"a":[1,]}"#,
        r#"{"a":[,1]}"#,
        r#"{"a":[1 2]}"#,
        r#"{"a":[1}"#,
        r#"{"a":01}"#,
        r#"{"a":-}"#,
        r#"{"a":+1}"#,
        r#"{"a":1.}"#,
        r#"{"a":.5}"#,
        r#"{"a":1e}"#,
        r#"{"a":1e+}"#,
        r#"{"a":0x1}"#,
        r#"{"a":NaN}"#,
        r#"{"a":Infinity}"#,
        r#"{"a":nul}"#,
        r#"{"a":nulll}"#,
        r#"{"a":True}"#,
        r#"{"a":"x}"#,
        r#"{"a":"\x"}"#,
        r#"{"a":"\u12"}"#,
        r#"{"a":"\u12g4"}"#,
        r#"{"a":"\u+123"}"#,
        r#"{"a":"\"#,
        r#"{"a":"\ud800\u12"}"#,
        "{\"a\":\"\n\"}",
        "{\"a\":\"\0\"}",
        "{\"a\":\x0b1}",
        "{\"a\":\u{a0}1}",
        "{/**/}",
        "{\"a\":1}{",
    ] {
        let bypass = chat().body(body).bypass();
        let expected = if body.ends_with("}{") {
            Bypass::TrailingData
        } else {
            Bypass::NotJson
        };
        assert_eq!(bypass, expected, "{body}");
    }
}

#[test]
fn what_readers_may_understand_differently_passes_by_with_its_own_reason() {
    check(r#"{"a":1} x"#, Bypass::TrailingData);
    check(r#"{"a":1}{"a":1}"#, Bypass::TrailingData);
    check("{\"a\":1}\0", Bypass::TrailingData);
    check(b"\xef\xbb\xbf{}", Bypass::ByteOrderMark);
    check(r#"{"a":1,"b":2,"a":1}"#, Bypass::DuplicateKey);
    check(r#"{"a":1,"\u0061":1}"#, Bypass::DuplicateKey);
    check(r#"{"x":[{"\n":1,"\u000a":1}]}"#, Bypass::DuplicateKey);
    check(r#"{"user":1,"user":1}"#, Bypass::DuplicateKey);
    check(r#"{"a":"\ud800"}"#, Bypass::LoneSurrogate);
    check(r#"{"a":"\udc00"}"#, Bypass::LoneSurrogate);
    check(r#"{"a":"\ud800x"}"#, Bypass::LoneSurrogate);
    check(r#"{"a":"\ud800\ud800"}"#, Bypass::LoneSurrogate);
    check(r#"{"\ud800":1}"#, Bypass::LoneSurrogate);
    for body in ["[]", "null", "1", "\"x\"", " true "] {
        check(body, Bypass::NotObject);
    }
}

#[test]
fn invalid_utf8_is_named_whatever_else_is_wrong() {
    for bytes in [
        &b"\xff"[..],
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe6\x97",
        b"\x80",
    ] {
        for (before, after) in [
            ("{\"a\":\"", "\"}"),
            (
                "{\"a\":\"a longer text before the fault, a longer text before it",
                "\"}",
            ),
            ("{\"", "\":1}"),
            ("{\"a\":\"\\u0041", "\"}"),
            ("{\"a\":", "1}"),
            ("{\"a\":1}", ""),
            ("{]", ""),
        ] {
            check(
                [before.as_bytes(), bytes, after.as_bytes()].concat(),
                Bypass::NotUtf8,
            );
        }
    }
    chat().body("{\"a\":\"\u{10ffff}\u{7f}日本\"}").exchange();
}

#[test]
fn nesting_has_a_bound() {
    let nested = |open: &str, close: &str, depth: usize| {
        format!(r#"{{"a":{}1{}}}"#, open.repeat(depth), close.repeat(depth))
    };
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        chat().body(nested(open, close, 127)).exchange();
        check(nested(open, close, 128), Bypass::TooDeep);
        check(nested(open, close, 200_000), Bypass::TooDeep);
    }
    // Beside each other is not inside each other.
    chat()
        .body(format!(r#"{{"a":[{}1]}}"#, "[],{},".repeat(10_000)))
        .exchange();
}

/// Compared pair by pair, this many keys would keep a processor busy for a minute.
#[test]
fn a_body_of_nothing_but_keys_is_sorted() {
    let object = |keys: &mut dyn Iterator<Item = usize>| {
        let members: Vec<String> = keys.map(|key| format!(r#""{key:064}":{key}"#)).collect();
        format!("{{{}}}", members.join(","))
    };
    let forth = object(&mut (0..100_000));
    let back = object(&mut (0..100_000).rev());
    same(&chat().body(&forth), &chat().body(back));
    check(
        object(&mut (0..100_000).chain([50_000])),
        Bypass::DuplicateKey,
    );
}

#[test]
fn strings_are_compared_by_value() {
    let text = |spelled: &str| chat().body(format!(r#"{{"a":"{spelled}"}}"#));
    for (a, b) in [
        (r"\u0041", "A"),
        (r"\u00e9", "é"),
        (r"\u00E9", r"\u00e9"),
        (r"\ud83d\ude00", "😀"),
        (r"\/", "/"),
        (r"\u002f", "/"),
        (r"\u000a", r"\n"),
        (r"\u0008\u000C\u000d\u0009", r"\b\f\r\t"),
        (r"\u0022\u005c", r#"\"\\"#),
        (r"\u001F", r"\u001f"),
        (r"\u007f", "\u{7f}"),
        (r"\u2028", "\u{2028}"),
    ] {
        same(&text(a), &text(b));
        let key = |spelled: &str| chat().body(format!(r#"{{"x":{{"{spelled}":1,"m":2}}}}"#));
        same(&key(a), &key(b));
    }
    for (a, b) in [
        (r"\\n", r"\n"),
        (r"\\u0041", "A"),
        ("é", "e\u{301}"),
        (r"\u0000", ""),
        (r"\u0000", r"\u0001"),
        ("a", "A"),
        ("a", "a "),
        (r#"\",\"b\":\""#, r#"","b":""#),
    ] {
        differ(&text(a), &text(b));
    }
}

#[test]
fn values_of_different_kinds_differ() {
    let spelled = [
        "null",
        "false",
        "true",
        "0",
        "-0",
        "0.0",
        "1",
        "1.0",
        "1e0",
        "1E0",
        "10e-1",
        "10000000000000000000001",
        "10000000000000000000002",
        "1e999",
        r#""1""#,
        r#""""#,
        r#""null""#,
        "[]",
        "{}",
        "[[]]",
        "[null]",
        "[0]",
        "[1]",
        r#"[""]"#,
        "[1,2]",
        "[2,1]",
        "[[1],2]",
        "[[1,2]]",
        "[12]",
        r#"{"":1}"#,
        r#"{"1":1}"#,
        r#"[{"1":1}]"#,
        r#"["1",1]"#,
        r#"{"a":{"b":1}}"#,
        r#"{"a":{},"b":1}"#,
    ];
    for (at, a) in spelled.iter().enumerate() {
        for b in &spelled[at + 1..] {
            let with = |value: &str| chat().fields(&format!(r#""x":{value}"#));
            differ(&with(a), &with(b));
        }
        // Null may be a value of its own to a provider.
        differ(&chat(), &chat().fields(&format!(r#""x":{a}"#)));
    }
}

#[test]
fn what_the_provider_must_see_passes_by() {
    let check = |fields: &str, expected| assert_eq!(chat().fields(fields).bypass(), expected);
    check(r#""store":true"#, Bypass::Store);
    check(r#""store":"yes""#, Bypass::Store);
    check(r#""st\u006fre":true"#, Bypass::Store);
    check(r#""stream":"true""#, Bypass::FieldType);
    check(r#""stream":1"#, Bypass::FieldType);
    check(r#""web_search_options":{}"#, Bypass::WebSearch);
    check(r#""search_parameters":{"mode":"on"}"#, Bypass::WebSearch);
    check(r#""enable_search":true"#, Bypass::WebSearch);
    check(r#""plugins":[{"id":"web"}]"#, Bypass::HostedTool);
    check(r#""data_sources":[]"#, Bypass::HostedTool);
    check(r#""dataSources":[]"#, Bypass::HostedTool);
    check(r#""tools":[{"type":"web_search"}]"#, Bypass::HostedTool);
    check(
        r#""tools":[{"type":"function"},{"type":"mcp"}]"#,
        Bypass::HostedTool,
    );
    check(r#""tools":[{"googleSearch":{}}]"#, Bypass::HostedTool);
    check(r#""tools":["function"]"#, Bypass::HostedTool);
    check(r#""tools":{"type":"function"}"#, Bypass::HostedTool);
    for fields in [
        r#""enable_search":false"#,
        r#""web_search_options":null"#,
        r#""tools":[]"#,
        r#""tools":null"#,
        r#""tools":[{"type":"function"},{"type":"custom"},{"type":"\u0066unction"}]"#,
        r#""x":{"store":true,"web_search_options":{}}"#,
    ] {
        chat().fields(fields).exchange();
    }
}

#[test]
fn models_that_search_pass_by() {
    let model = |name: &str| chat().body(format!(r#"{{"model":"{name}"}}"#));
    for name in [
        "gpt-4o-search-preview",
        "gpt-4o-mini-search-preview-2025-03-11",
        "gpt-5-search-api",
        "o3-deep-research",
        "sonar",
        "sonar-pro",
        "perplexity/sonar",
        "openai/gpt-4o:online",
        "groq/compound",
        "compound-beta",
        "GPT-4o-Search-Preview",
        r"s\u006fnar",
    ] {
        assert_eq!(model(name).bypass(), Bypass::WebSearch, "{name}");
    }
    for name in [
        "gpt-4o",
        "researcher-7b",
        "o3",
        "searchless",
        "",
        "claude-sonnet-4-5",
    ] {
        model(name).exchange();
    }
}

#[test]
fn the_head_alone_can_pass_a_request_by() {
    let get = Request {
        method: "GET".into(),
        ..chat()
    };
    assert_eq!(get.bypass(), Bypass::Method);
    let post = Request {
        method: "post".into(),
        ..chat()
    };
    assert_eq!(post.bypass(), Bypass::Method);
    for path in [
        "/v1/models",
        "/v1/chat/completions/",
        "/v1/chat/completions/chatcmpl-1",
        "chat/completions",
        "/v1/chat%2fcompletions",
        "/v1/Chat/Completions",
        "/v1/chat/completion",
        "/v1chat/completions/x",
        "/v1/models?x=/chat/completions",
        "",
    ] {
        assert_eq!(chat().path(path).bypass(), Bypass::Path, "{path}");
    }
    for path in ["/chat/completions", "/a/b/c/chat/completions?x=y?z"] {
        chat().path(path).exchange();
    }
    for coding in ["gzip", "identity, gzip", "br", ""] {
        let request = chat().header("content-encoding", coding);
        assert_eq!(request.bypass(), Bypass::ContentEncoding);
    }
    same(&chat(), &chat().header("content-encoding", "Identity"));
    assert_eq!(chat().without_headers().bypass(), Bypass::NoCredential);
    let anonymous = Request {
        anonymous: Anonymous::Share,
        ..chat().without_headers()
    };
    assert!(matches!(anonymous.classify(), Classified::Cacheable(_)));
}
