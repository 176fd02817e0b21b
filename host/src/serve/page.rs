//! The live page at `/` of the admin address, and `/v1/history`, from which it reads.
//!
//! The page is one file. It loads nothing, and may talk to this address only: its policy allows its
//! own script and style by a number that is new for each response.

use crate::serve::history::History;
use axum::Router;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::IntoResponse;
use axum::routing::get;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

const HTML: &str = include_str!("page/index.html");

/// Where the nonce stands in the page.
const NONCE: &str = "NONCE";

/// `/` and `/v1/history`.
pub(crate) fn router(history: Arc<History>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/v1/history", get(rows))
        .with_state(history)
}

async fn page() -> impl IntoResponse {
    let nonce = nonce();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (CONTENT_SECURITY_POLICY, policy),
        (CACHE_CONTROL, "no-store".into()),
        (REFERRER_POLICY, "no-referrer".into()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".into()),
    ];
    (headers, HTML.replace(NONCE, &nonce))
}

async fn rows(State(history): State<Arc<History>>) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, history.json().to_string())
}

/// 128 bits that cannot be guessed: hashes under keys that the standard library takes from the
/// system's random numbers.
fn nonce() -> String {
    let [one, other] = [0, 1].map(|number| RandomState::new().hash_one(number));
    format!("{one:016x}{other:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_and_builds_no_html_of_data() {
        assert_eq!(
            HTML.matches("nonce=\"NONCE\"").count(),
            HTML.matches(NONCE).count()
        );
        assert_eq!(HTML.matches("<script").count(), 1);
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "style=\"",
            "onclick=",
            "https://",
            "src=",
            "@import",
            "url(",
        ] {
            assert!(!HTML.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn no_two_pages_have_the_same_nonce() {
        assert_ne!(nonce(), nonce());
        assert_eq!(nonce().len(), 32);
    }
}
