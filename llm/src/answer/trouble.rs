//! Errors in the clothing of success: servers and gateways that answer 200 and report an error in
//! the body, in the words of whatever stands behind them.

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

/// Whether a document of an answer reports an error.
pub(super) fn is_reported(document: Value<'_>) -> bool {
    let text = |name: &str| document.get_some(name).and_then(Value::string);
    let is = |name: &str, value: &[u8]| text(name).is_some_and(|it| *it == *value);
    let any = |names: &[&str]| {
        let mut found = names.iter().filter_map(|name| document.get_some(name));
        found.any(holds)
    };
    // OpenAI and all who speak like it, Anthropic, Google.
    document.get_some("error").is_some()
        || document.get_some("moderation").is_some_and(has_failed)
        // vLLM, FastChat, LMDeploy; Anthropic.
        || is("object", b"error")
        || is("type", b"error")
        // FastAPI; Cloudflare; Apigee; Lambda; Baidu.
        || any(&[
            "detail",
            "errors",
            "fault",
            "errorMessage",
            "error_message",
            "error_msg",
            "errorCode",
            "error_code",
        ])
        || document.get("success").map(Value::kind) == Some(Kind::False)
        // DashScope, and gateways: a code, and a message that is a text. No answer has that at its
        // root: a message of Anthropic's events is an object.
        || text("message").is_some_and(|it| !it.is_empty())
        || document.get_some("code").is_some_and(is_bad_code)
        // MiniMax.
        || document
            .get_some("base_resp")
            .and_then(|it| it.get_some("status_code"))
            .is_some_and(is_bad_code)
}

/// Whether a code is none of those that say that all is well.
fn is_bad_code(code: Value<'_>) -> bool {
    match code.kind() {
        Kind::Number => !matches!(code.spelling(), b"0" | b"200"),
        Kind::Spelled | Kind::Decoded => {
            let good: [&[u8]; 5] = [b"", b"0", b"200", b"ok", b"success"];
            let code = code.spelling();
            !good.iter().any(|it| it.eq_ignore_ascii_case(code))
        }
        _ => holds(code),
    }
}

/// Whether the moderation that OpenAI was asked for beside the answer could not be had, be it of
/// the input or of the output.
fn has_failed(moderation: Value<'_>) -> bool {
    moderation.members().any(|(_, result)| {
        let kind = result.get("type").and_then(Value::string);
        kind.as_deref() == Some(b"error")
    })
}
