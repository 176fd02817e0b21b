//! Errors disguised as success, answers of another API, parts that are missing or too many.

use reflex_llm::{Api, Rejected, Representation, Shape};

use crate::judging::{Judged, LIMITS};
use crate::request::{chat, completion};

const CHAT: Judged = Judged(Api::ChatCompletions, LIMITS);
const COMPLETIONS: Judged = Judged(Api::Completions, LIMITS);

const DONE: &str = "data: [DONE]\n\n";

fn choice(index: u32) -> String {
    format!(r#"{{"index":{index},"message":{{"content":"x"}},"finish_reason":"stop"}}"#)
}

fn frame(data: &str) -> String {
    format!("data: {data}\n\n")
}

#[test]
fn an_error_in_the_clothing_of_success_is_not_kept() {
    let good = choice(0);
    for (trouble, expected) in [
        (
            r#""object":"error","message":"overloaded","code":400"#,
            Err(Rejected::Error),
        ),
        (r#""object":"error""#, Err(Rejected::Error)),
        (r#""type":"error""#, Err(Rejected::Error)),
        (
            r#""code":"Throttling","message":"Too fast.""#,
            Err(Rejected::Error),
        ),
        (r#""code":50501"#, Err(Rejected::Error)),
        (r#""message":"internal error""#, Err(Rejected::Error)),
        (r#""detail":"Not found""#, Err(Rejected::Error)),
        (
            r#""detail":[{"loc":["body"],"msg":"x"}]"#,
            Err(Rejected::Error),
        ),
        (
            r#""success":false,"errors":[{"code":7009}]"#,
            Err(Rejected::Error),
        ),
        (r#""errors":[{"code":7009}]"#, Err(Rejected::Error)),
        (r#""fault":{"faultstring":"x"}"#, Err(Rejected::Error)),
        (
            r#""error_code":336501,"error_msg":"x""#,
            Err(Rejected::Error),
        ),
        (r#""errorMessage":"Task timed out""#, Err(Rejected::Error)),
        (
            r#""base_resp":{"status_code":1004,"status_msg":"x"}"#,
            Err(Rejected::Error),
        ),
        // Codes of success of some servers.
        (r#""base_resp":{"status_code":0,"status_msg":""}"#, Ok(())),
        (r#""code":0,"message":"""#, Ok(())),
        (r#""code":"200","success":true"#, Ok(())),
        (r#""error":null,"errors":[],"detail":null"#, Ok(())),
    ] {
        let body = format!(r#"{{{trouble},"choices":[{good}]}}"#);
        assert_eq!(CHAT.json(&body), expected, "{trouble}");
        // Beside good chunks, and alone.
        let chunk = frame(&format!(r#"{{"choices":[{good}]}}"#).replace("message", "delta"));
        let alone = frame(&format!(r#"{{{trouble},"choices":[]}}"#));
        let stream = [chunk.as_str(), &alone, DONE].concat();
        assert_eq!(CHAT.sse(&stream), expected, "{trouble}");
        if expected.is_err() {
            let alone = frame(&format!("{{{trouble}}}"));
            let stream = [chunk.as_str(), &alone, DONE].concat();
            assert_eq!(CHAT.sse(&stream), expected, "{trouble}");
        }
    }
    for event in [
        "error",
        "Error",
        "stream_error",
        "modelStreamErrorException",
    ] {
        let chunk = frame(&format!(r#"{{"choices":[{good}]}}"#).replace("message", "delta"));
        let stream = format!("{chunk}event: {event}\ndata: {{\"choices\":[]}}\n\n{DONE}");
        assert_eq!(CHAT.sse(&stream), Err(Rejected::Error), "{event}");
    }
}

/// Azure answers 200 when its filter did not run, and reports that beside the text.
#[test]
fn case_the_content_filter_did_not_run() {
    let error =
        r#"{"error":{"code":"content_filter_error","message":"The contents are not filtered"}}"#;
    let ran = r#"{"hate":{"filtered":false,"severity":"safe"},"error":null}"#;
    for (results, expected) in [(error, Err(Rejected::Error)), (ran, Ok(()))] {
        for answer in [
            format!(
                r#"{{"choices":[{{"index":0,"message":{{"content":"x"}},"finish_reason":"stop","content_filter_results":{results}}}]}}"#
            ),
            format!(
                r#"{{"choices":[{{"index":0,"message":{{"content":"x"}},"finish_reason":"stop","content_filter_result":{results}}}]}}"#
            ),
            format!(
                r#"{{"prompt_filter_results":[{{"prompt_index":0,"content_filter_results":{results}}}],"choices":[{}]}}"#,
                choice(0)
            ),
        ] {
            assert_eq!(CHAT.json(&answer), expected, "{answer}");
            let chunk = answer.replace(r#""message""#, r#""delta""#);
            assert_eq!(CHAT.sse(&(frame(&chunk) + DONE)), expected, "{chunk}");
        }
        let response = format!(
            r#"{{"status":"completed","output":[{{"type":"message","content":[{{"type":"output_text","text":"x"}}]}}],"content_filters":[{{"blocked":false,"content_filter_results":{results}}}]}}"#
        );
        assert_eq!(Judged(Api::Responses, LIMITS).json(&response), expected);
    }
    // The first chunk of a stream of Azure's has no choice at all.
    let first = format!(
        r#"{{"id":"","object":"","created":0,"model":"","choices":[],"prompt_filter_results":[{{"prompt_index":0,"content_filter_results":{ran}}}]}}"#
    );
    let chunk = format!(r#"{{"choices":[{}]}}"#, choice(0)).replace("message", "delta");
    assert_eq!(
        CHAT.sse(&[&frame(&first), &frame(&chunk), DONE].concat()),
        Ok(())
    );
}

#[test]
fn an_answer_of_another_api_is_not_kept() {
    let chat = r#"{"object":"chat.completion","choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}]}"#;
    let delta = r#"{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}"#;
    let text =
        r#"{"object":"text_completion","choices":[{"index":0,"text":"x","finish_reason":"stop"}]}"#;
    let both = r#"{"object":"chat.completion.chunk","choices":[{"index":0,"text":"x","finish_reason":"stop"}]}"#;
    let unexpected = Err(Rejected::Unexpected);
    let stream = |chunk: &str| frame(chunk) + DONE;
    assert_eq!(CHAT.json(chat), Ok(()));
    assert_eq!(CHAT.json(text), unexpected);
    assert_eq!(CHAT.json(delta), unexpected);
    assert_eq!(CHAT.sse(&stream(delta)), Ok(()));
    assert_eq!(CHAT.sse(&stream(text)), unexpected);
    assert_eq!(CHAT.sse(&stream(chat)), unexpected);
    assert_eq!(COMPLETIONS.json(text), Ok(()));
    assert_eq!(COMPLETIONS.json(chat), unexpected);
    assert_eq!(COMPLETIONS.json(both), unexpected);
    assert_eq!(COMPLETIONS.sse(&stream(text)), Ok(()));
    for chunk in [delta, chat, both] {
        assert_eq!(COMPLETIONS.sse(&stream(chunk)), unexpected, "{chunk}");
    }
    let message =
        r#"{"type":"message","content":[{"type":"text","text":"x"}],"stop_reason":"end_turn"}"#;
    let response = r#"{"object":"response","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"x"}]}]}"#;
    let gemini = r#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"STOP"}]}"#;
    let vectors = r#"{"object":"list","data":[{"index":0,"embedding":[1]}]}"#;
    let all = [
        (Api::ChatCompletions, chat),
        (Api::Completions, text),
        (Api::AnthropicMessages, message),
        (Api::Responses, response),
        (Api::GeminiGenerateContent, gemini),
        (Api::Embeddings, vectors),
    ];
    for (api, _) in all {
        for (other, answer) in all {
            let verdict = Judged(api, LIMITS).json(answer);
            assert_eq!(verdict.is_ok(), api == other, "{api:?} {answer}");
            if api != other {
                assert_eq!(verdict, unexpected, "{api:?} {answer}");
            }
        }
    }
}

#[test]
fn a_choice_that_goes_on_after_its_end_is_not_kept() {
    let piece = |delta: &str, reason: &str| {
        frame(&format!(
            r#"{{"choices":[{{"index":0,"delta":{delta},"finish_reason":{reason}}}]}}"#
        ))
    };
    let stop = piece(r#"{"content":"x"}"#, r#""stop""#);
    for (after, expected) in [
        // Chunks of usage and of filters look like this.
        (piece("{}", "null"), Ok(())),
        (piece("null", "null"), Ok(())),
        (
            piece(r#"{"role":"assistant","content":""}"#, r#""stop""#),
            Ok(()),
        ),
        (piece(r#"{"content":"y"}"#, "null"), Err(Rejected::AfterEnd)),
        (
            piece(r#"{"content":"y"}"#, r#""stop""#),
            Err(Rejected::AfterEnd),
        ),
        (piece(r#"{"content":" "}"#, "null"), Err(Rejected::AfterEnd)),
        (
            piece(r#"{"reasoning":"y"}"#, "null"),
            Err(Rejected::AfterEnd),
        ),
        (
            piece(
                r#"{"tool_calls":[{"index":0,"function":{"name":"f"}}]}"#,
                "null",
            ),
            Err(Rejected::AfterEnd),
        ),
    ] {
        let stream = [stop.as_str(), &after, DONE].concat();
        assert_eq!(CHAT.sse(&stream), expected, "{after}");
    }
    let text = frame(r#"{"choices":[{"index":0,"text":"x","finish_reason":"stop"}]}"#);
    let more = frame(r#"{"choices":[{"index":0,"text":"y","finish_reason":null}]}"#);
    let stream = [text.as_str(), &more, DONE].concat();
    assert_eq!(COMPLETIONS.sse(&stream), Err(Rejected::AfterEnd));
}

#[test]
fn choices_are_numbered_from_0_without_a_gap() {
    for (indexes, expected) in [
        (vec![0], Ok(())),
        (vec![0, 1], Ok(())),
        (vec![1, 0], Ok(())),
        (vec![1], Err(Rejected::Unexpected)),
        (vec![0, 2], Err(Rejected::Unexpected)),
        (vec![0, 4_000_000_000], Err(Rejected::Unexpected)),
    ] {
        let choices: Vec<String> = indexes.iter().map(|&index| choice(index)).collect();
        let body = format!(r#"{{"choices":[{}]}}"#, choices.join(","));
        assert_eq!(CHAT.json(&body), expected, "{body}");
        let frames = choices.iter().map(|choice| {
            frame(&format!(r#"{{"choices":[{choice}]}}"#).replace("message", "delta"))
        });
        let stream = frames.collect::<String>() + DONE;
        assert_eq!(CHAT.sse(&stream), expected, "{stream}");
    }
    let twice = format!(r#"{{"choices":[{},{}]}}"#, choice(0), choice(0));
    assert_eq!(CHAT.json(&twice), Err(Rejected::Unexpected));
    // Without numbers they come in order.
    let bare = choice(0).replace(r#""index":0,"#, "");
    for bare in [bare.clone(), choice(0).replace("0", "null")] {
        let two = format!(r#"{{"choices":[{bare},{bare}]}}"#);
        assert_eq!(CHAT.json(&two), Ok(()), "{two}");
    }
}

/// Two vectors for one text, one choice of three.
#[test]
fn an_answer_has_as_many_parts_as_were_asked_for() {
    let parts = |request: crate::request::Request| request.exchange().shape.parts;
    assert_eq!(parts(chat()), None);
    assert_eq!(parts(chat().fields(r#""n":3"#)), Some(3));
    assert_eq!(parts(chat().fields(r#""n":null"#)), None);
    assert_eq!(parts(chat().fields(r#""n":"3""#)), None);
    assert_eq!(parts(chat().fields(r#""n":0"#)), None);
    let prompt = |prompt: &str| completion().body(format!(r#"{{"prompt":{prompt}}}"#));
    assert_eq!(parts(prompt(r#""a""#)), None);
    assert_eq!(parts(prompt("[1,2]")), None);
    assert_eq!(parts(prompt(r#"["a","b"]"#)), Some(2));
    assert_eq!(parts(prompt("[[1],[2,3]]")), Some(2));
    assert_eq!(parts(prompt(r#"["a","b"]"#).fields(r#""n":3"#)), Some(6));
    let input = |input: &str| {
        let body = format!(r#"{{"model":"m","input":{input}}}"#);
        chat().path("/v1/embeddings").body(body)
    };
    assert_eq!(parts(input(r#""a""#)), Some(1));
    assert_eq!(parts(input(r#"["a"]"#)), Some(1));
    assert_eq!(parts(input(r#"["a","b","a"]"#)), Some(3));
    assert_eq!(parts(input("[1,2]")), Some(1));
    assert_eq!(parts(input("[[1,2],[3]]")), Some(2));
    assert_eq!(parts(input(r#"[{"text":"a"}]"#)), None);
    assert_eq!(parts(input("[]")), None);

    let judge = |api: Api, parts: u32, body: &str| {
        let shape = Shape {
            parts: Some(parts),
            ..Shape::new(api, Representation::Json)
        };
        crate::judging::record(shape, LIMITS, [body.as_bytes()]).map(drop)
    };
    let unexpected = Err(Rejected::Unexpected);
    let two = format!(r#"{{"choices":[{},{}]}}"#, choice(0), choice(1));
    for (asked, expected) in [(1, unexpected), (2, Ok(())), (3, unexpected)] {
        assert_eq!(
            judge(Api::ChatCompletions, asked, &two),
            expected,
            "{asked}"
        );
        let vectors = r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[2]}]}"#;
        assert_eq!(judge(Api::Embeddings, asked, vectors), expected, "{asked}");
        let many = r#"{"embeddings":[{"values":[1]},{"values":[2]}]}"#;
        assert_eq!(judge(Api::GeminiBatchEmbedContents, asked, many), expected);
        let candidate = r#"{"content":{"parts":[{"text":"x"}]},"finishReason":"STOP""#;
        let candidates = format!(r#"{{"candidates":[{candidate}}},{candidate},"index":1}}]}}"#);
        assert_eq!(
            judge(Api::GeminiGenerateContent, asked, &candidates),
            expected
        );
    }
}
