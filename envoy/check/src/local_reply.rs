//! Envoy's mappers of local replies. A hit is a local reply, so they would rewrite it.

use serde_json::Value;

use crate::Report;
use crate::tree::{at, field, list, number, text};

/// The body of the reply as it is, in the words of a format.
const AS_IT_IS: &str = "%LOCAL_REPLY_BODY%";

/// Whether a mapper's filter takes a hit: a local reply with status 200 and the header
/// `x-reflex-status`, and with no response flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Yes,
    No,
    /// That depends on the request.
    Perhaps,
}

/// Names what would rewrite a hit.
pub(crate) fn check(config: &Value, place: &str, report: &mut Report) {
    for (number, mapper) in list(config, "mappers").iter().enumerate() {
        let takes = takes(field(mapper, "filter"));
        if takes == Takes::No {
            continue;
        }
        if changes(mapper) {
            report.error(
                place,
                format!(
                    "`local_reply_config`: mapper {} rewrites hits, which are local replies; {HOW}",
                    number + 1
                ),
            );
        }
        // Envoy takes the first that matches, and its format goes before the one for all.
        if takes == Takes::Yes {
            let format = field(mapper, "body_format_override");
            if !format.is_null() {
                return;
            }
            break;
        }
    }
    let format = field(config, "body_format");
    if !format.is_null() && !keeps(format) {
        report.error(
            place,
            format!(
                "`local_reply_config.body_format` rewrites hits, which are local replies; {HOW}"
            ),
        );
    }
}

const HOW: &str = "let mappers take status 400 and above only, or begin with the one in \
                   docs/envoy.md that leaves hits as they are";

/// Whether a mapper makes another answer of the one it takes.
fn changes(mapper: &Value) -> bool {
    let format = field(mapper, "body_format_override");
    !field(mapper, "status_code").is_null()
        || !field(mapper, "body").is_null()
        || !list(mapper, "headers_to_add").is_empty()
        || !format.is_null() && !keeps(format)
}

/// Whether a format gives the body as it is. Envoy leaves the content type alone then.
fn keeps(format: &Value) -> bool {
    let source = at(format, &["text_format_source", "inline_string"]);
    let text = source.as_str().unwrap_or(text(format, "text_format"));
    text == AS_IT_IS
}

fn takes(filter: &Value) -> Takes {
    let all = |name| list(field(filter, name), "filters").iter().map(takes);
    if !field(filter, "and_filter").is_null() {
        return all("and_filter").fold(Takes::Yes, |one, other| match (one, other) {
            (Takes::No, _) | (_, Takes::No) => Takes::No,
            (Takes::Yes, Takes::Yes) => Takes::Yes,
            _ => Takes::Perhaps,
        });
    }
    if !field(filter, "or_filter").is_null() {
        return all("or_filter").fold(Takes::No, |one, other| match (one, other) {
            (Takes::Yes, _) | (_, Takes::Yes) => Takes::Yes,
            (Takes::No, Takes::No) => Takes::No,
            _ => Takes::Perhaps,
        });
    }
    if !field(filter, "response_flag_filter").is_null() {
        return Takes::No;
    }
    let status = at(filter, &["status_code_filter", "comparison"]);
    if !status.is_null() {
        return of_status(status);
    }
    let expression = at(filter, &["extension_filter", "typed_config", "expression"]);
    match expression.as_str() {
        Some(expression) => of_expression(expression),
        None => Takes::Perhaps,
    }
}

fn of_status(comparison: &Value) -> Takes {
    let value = field(comparison, "value");
    let Some(wanted) = number(value, "default_value") else {
        return Takes::Perhaps;
    };
    let takes = match text(comparison, "op") {
        "GE" => 200 >= wanted,
        "LE" => 200 <= wanted,
        "NE" => 200 != wanted,
        _ => 200 == wanted,
    };
    match takes {
        true => Takes::Yes,
        false => Takes::No,
    }
}

/// The two expressions of `docs/envoy.md`, and conditions on the status.
fn of_expression(expression: &str) -> Takes {
    let plain: String = expression
        .replace('"', "'")
        .chars()
        .filter(|character| !character.is_whitespace())
        .collect();
    match plain.as_str() {
        "'x-reflex-status'inresponse.headers" => Takes::Yes,
        "!('x-reflex-status'inresponse.headers)" => Takes::No,
        _ => Takes::Perhaps,
    }
}
