//! Embeddings: their paths, which parts of a request count, which answers are kept.

use reflex_llm::{Api, Bypass, Rejected, Representation};

use crate::judging::{Judged, LIMITS};
use crate::request::{Request, chat, counts, differ, ignored, same};

const EMBEDDINGS: Judged = Judged(Api::Embeddings, LIMITS);

pub(crate) fn embedding() -> Request {
    input(r#""hi""#)
}

fn input(input: &str) -> Request {
    chat()
        .path("/v1/embeddings")
        .body(format!(r#"{{"model":"m","input":{input}}}"#))
}

#[test]
fn embeddings_answer_under_any_prefix() {
    for path in [
        "/v1/embeddings",
        "/embeddings",
        "/openai/deployments/a/embeddings?api-version=2024-10-21",
    ] {
        assert_eq!(embedding().path(path).exchange().shape.name(), "embeddings");
    }
    for path in [
        "/v1/embeddings/",
        "/v1/embeddings/jobs",
        "/v1/multimodalembeddings",
    ] {
        assert_eq!(embedding().path(path).bypass(), Bypass::Path, "{path}");
    }
}

#[test]
fn only_the_user_is_out_of_the_key_of_an_embedding() {
    ignored(&embedding(), r#""user":"u""#);
    for fields in [
        r#""metadata":{}"#,
        r#""store":false"#,
        r#""stream":true"#,
        r#""encoding_format":"base64""#,
        r#""dimensions":256"#,
        r#""input_type":"query""#,
    ] {
        counts(&embedding(), fields);
    }
    let shape = embedding().fields(r#""stream":true"#).exchange().shape;
    assert_eq!(shape.representation, Representation::Json);
}

/// The key of a whole batch, for batches that are one entry; `batches` has the rest.
#[test]
fn case_a_batch_of_which_part_is_cached_gets_wrong_vectors_or_indexes() {
    differ(&input(r#""a""#), &input(r#"["a"]"#));
    differ(&input(r#"["a","b"]"#), &input(r#"["b","a"]"#));
    differ(&input(r#"["a","b"]"#), &input(r#"["a"]"#));
    differ(&input(r#"["a","b"]"#), &input(r#"["ab"]"#));
    differ(&input(r#"["a",""]"#), &input(r#"["a"]"#));
    differ(&input("[1,2]"), &input("[[1,2]]"));
    differ(&input("[[1],[2]]"), &input("[[1,2]]"));
    same(&input(r#"["a","b"]"#), &input(r#"[ "\u0061", "b" ]"#));

    let check = |data: &str, expected| {
        let body = format!(
            r#"{{"object":"list","data":[{data}],"model":"m","usage":{{"prompt_tokens":2,"total_tokens":2}}}}"#
        );
        assert_eq!(EMBEDDINGS.json(&body), expected, "{data}");
    };
    let vector = |index: u32| {
        format!(r#"{{"object":"embedding","index":{index},"embedding":[0.5,-1e-3,0]}}"#)
    };
    check(&vector(0), Ok(()));
    check(&format!("{},{}", vector(0), vector(1)), Ok(()));
    check(
        &format!("{},{}", vector(1), vector(0)),
        Err(Rejected::Unexpected),
    );
    check(
        &format!("{},{}", vector(0), vector(0)),
        Err(Rejected::Unexpected),
    );
    check(&vector(1), Err(Rejected::Unexpected));
    // Servers that have no indexes answer in order.
    check(r#"{"embedding":[1]},{"embedding":[2]}"#, Ok(()));
    check(r#"{"index":0,"embedding":"AACAPwAAAEA="}"#, Ok(()));
    for vector in ["[]", "null", "{}", "\"\"", "[null]", "[1,\"2\"]", "[[1]]"] {
        check(
            &format!(r#"{{"index":0,"embedding":{vector}}}"#),
            Err(Rejected::Unexpected),
        );
    }
    check("", Err(Rejected::Unexpected));
    check("[1]", Err(Rejected::Unexpected));
}

#[test]
fn an_error_or_a_stream_is_no_embedding() {
    let error = r#"{"error":{"message":"overloaded"}}"#;
    assert_eq!(EMBEDDINGS.json(error), Err(Rejected::Error));
    assert_eq!(EMBEDDINGS.json("{}"), Err(Rejected::Unexpected));
    assert_eq!(EMBEDDINGS.json("[]"), Err(Rejected::NotJson));
    let stream = "data: {\"data\":[{\"embedding\":[1]}]}\n\ndata: [DONE]\n\n";
    assert_eq!(EMBEDDINGS.sse(stream), Err(Rejected::Unexpected));
}
