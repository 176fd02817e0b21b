//! Errors with status 200: some servers and gateways report an error in the body only, in the words
//! of the server behind them.

use super::traces::holds;
use crate::json::{Kind, Value};

/// Whether the name of an event says that it is an error.
pub(super) fn is_named(event: &[u8]) -> bool {
    let ends = |end: &[u8]| {
        let at = event.len().checked_sub(end.len());
        at.is_some_and(|at| event[at..].eq_ignore_ascii_case(end))
    };
    ends(b"error") || ends(b"exception")
}

/// Whether a document of an answer reports an error. One pass: each chunk of a stream is asked.
pub(super) fn is_reported(document: Value<'_>) -> bool {
    document.members().any(|(key, value)| {
        let is = |wanted: &[u8]| value.string().is_some_and(|it| *it == *wanted);
        match &*key.map(Value::name).unwrap_or_default() {
            // OpenAI and servers with its API, Anthropic, Google.
            b"error" => value.kind() != Kind::Null,
            b"moderation" => has_failed(value),
            // vLLM, FastChat, LMDeploy; Anthropic.
            b"object" | b"type" => is(b"error"),
            // FastAPI; Cloudflare; Apigee; Lambda; Baidu.
            b"detail" | b"errors" | b"fault" | b"errorMessage" | b"error_message"
            | b"error_msg" | b"errorCode" | b"error_code" => holds(value),
            b"success" => value.kind() == Kind::False,
            // DashScope, and gateways: a code, and a message that is a text. No answer has that at
            // its root: a message of Anthropic's events is an object.
            b"message" => value.string().is_some_and(|it| !it.is_empty()),
            b"code" => value.kind() != Kind::Null && is_bad_code(value),
            // MiniMax.
            b"base_resp" => value.get_some("status_code").is_some_and(is_bad_code),
            _ => false,
        }
    })
}

/// Whether a code is not a known code of success.
fn is_bad_code(code: Value<'_>) -> bool {
    match code.kind() {
        Kind::Number => !matches!(code.spelling(), b"0" | b"200"),
        Kind::String => {
            let good: [&[u8]; 5] = [b"", b"0", b"200", b"ok", b"success"];
            let code = code.name();
            !good.iter().any(|it| it.eq_ignore_ascii_case(&code))
        }
        _ => holds(code),
    }
}

/// Whether the moderation that OpenAI was asked for beside the answer failed, for the input or for
/// the output.
fn has_failed(moderation: Value<'_>) -> bool {
    moderation.members().any(|(_, result)| {
        let kind = result.get("type").and_then(Value::string);
        kind.as_deref() == Some(b"error")
    })
}
