//! Completions: their paths, which parts of a request count, which answers are kept.

use reflex_llm::{Api, Bypass, Rejected, Representation};

use crate::judging::{Judged, LENGTH_ALLOWED, LIMITS};
use crate::request::{chat, completion, counts, differ, ignored, same};

const COMPLETIONS: Judged = Judged(Api::Completions, LIMITS);

#[test]
fn completions_answer_under_any_prefix() {
    for path in [
        "/v1/completions",
        "/completions",
        "/openai/deployments/a/completions?api-version=2024-10-21",
        "/gateway/team/openai/v1/completions",
    ] {
        let shape = completion().path(path).exchange().shape;
        assert_eq!(shape.name(), "completions", "{path}");
    }
    for path in ["/v1/completions/", "/v1/completions/x", "/v1completions"] {
        assert_eq!(completion().path(path).bypass(), Bypass::Path, "{path}");
    }
    // The longer end decides: these are not completions of the segment `chat`.
    assert_eq!(chat().exchange().shape.api, Api::ChatCompletions);
}

#[test]
fn the_short_list_of_completions_is_that_of_chats() {
    for fields in [
        r#""user":"u""#,
        r#""metadata":{}"#,
        r#""store":false"#,
        r#""stream":false"#,
    ] {
        ignored(&completion(), fields);
    }
    for fields in [
        r#""suffix":"x""#,
        r#""echo":true"#,
        r#""best_of":2"#,
        r#""n":2"#,
        r#""logprobs":5"#,
        r#""next_year":1"#,
    ] {
        counts(&completion(), fields);
    }
    let stream = completion().fields(r#""stream":true"#);
    differ(&completion(), &stream);
    assert_eq!(stream.exchange().shape.representation, Representation::Sse);
    let stored = completion().fields(r#""store":true"#);
    assert_eq!(stored.bypass(), Bypass::Store);
    let prompt = |prompt: &str| completion().body(format!(r#"{{"prompt":{prompt}}}"#));
    differ(&prompt(r#""a""#), &prompt(r#"["a"]"#));
    differ(&prompt("[1,2]"), &prompt("[2,1]"));
    same(&prompt("[1,2]"), &prompt("[ 1, 2 ]"));
}

#[test]
fn a_completion_is_whole_when_every_choice_is() {
    let check = |choices: &str, expected| {
        let body = format!(r#"{{"object":"text_completion","choices":[{choices}]}}"#);
        assert_eq!(COMPLETIONS.json(&body), expected, "{choices}");
    };
    let stop = r#"{"text":"a \"quote\"","index":0,"logprobs":null,"finish_reason":"stop"}"#;
    check(stop, Ok(()));
    let second = stop.replace("\"index\":0", "\"index\":1");
    check(&format!("{stop},{second}"), Ok(()));
    check(&format!("{stop},{stop}"), Err(Rejected::Unexpected));
    check(&stop.replace("stop", "length"), Err(Rejected::Length));
    check(
        &stop.replace("stop", "content_filter"),
        Err(Rejected::FinishReason),
    );
    check(
        &format!("{stop},{}", second.replace("\"stop\"", "null")),
        Err(Rejected::Unfinished),
    );
    check(&stop.replace("text", "message"), Err(Rejected::Unexpected));
    check(
        r#"{"text":null,"finish_reason":"stop"}"#,
        Err(Rejected::Unexpected),
    );
    check("", Err(Rejected::Unexpected));
    let short = r#"{"choices":[{"text":"a","finish_reason":"length"}]}"#;
    assert_eq!(Judged(Api::Completions, LENGTH_ALLOWED).json(short), Ok(()));
}

#[test]
fn a_streamed_completion_ends_with_done() {
    let stream = r#"data: {"choices":[{"text":"he","index":0,"finish_reason":null}]}

data: {"choices":[{"text":"\"y\"","index":0,"finish_reason":"stop"}]}

data: {"choices":[],"usage":{"total_tokens":3}}

data: [DONE]

"#;
    COMPLETIONS.good_stream(stream);
    for (from, to, expected) in [
        (r#""stop""#, r#""length""#, Rejected::Length),
        (r#""stop""#, "null", Rejected::Unfinished),
        (r#""choices":[],"#, r#""error":{},"#, Rejected::Error),
        ("[DONE]", "[DONE]\n\ndata: x", Rejected::AfterEnd),
    ] {
        assert_eq!(COMPLETIONS.sse(&stream.replace(from, to)), Err(expected));
    }
}

/// Its answers have messages, so it is judged as a chat.
#[test]
fn filling_in_the_middle_is_answered_as_a_chat() {
    let fim = completion()
        .upstream("https://api.mistral.ai")
        .body(r#"{"model":"codestral-latest","prompt":"def f(","suffix":"return a"}"#);
    let shape = fim.clone().path("/v1/fim/completions").exchange().shape;
    assert_eq!(shape.name(), "chat-completions");
    let stream = fim.path("/v1/fim/completions").fields(r#""stream":true"#);
    assert_eq!(stream.exchange().shape.name(), "chat-completions+sse");
    let other = completion().path("/beta/completions").exchange().shape;
    assert_eq!(other.name(), "completions");
}
