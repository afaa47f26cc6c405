//! The page.

use std::sync::OnceLock;

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::images::base64_of;

/// The page: one file, with its script and its style inside.
const PAGE: &str = include_str!("../../assets/page.html");

/// The page for people
#[utoipa::path(
    get,
    path = "/",
    tag = "server",
    responses((status = 200, description = "The page", body = String, content_type = "text/html")),
)]
pub async fn page() -> Response {
    ([(header::CONTENT_SECURITY_POLICY, policy())], Html(PAGE)).into_response()
}

/// Nothing but the page's own script and style runs, and it talks to this server alone.
fn policy() -> &'static str {
    static POLICY: OnceLock<String> = OnceLock::new();
    POLICY.get_or_init(|| {
        let [script, style] = ["script", "style"].map(|tag| base64_of(&Sha256::digest(inside(tag))));
        format!(
            "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; img-src data: blob:; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    })
}

/// Text of an element of the page, of which there is one.
fn inside(tag: &str) -> &'static str {
    let begins = format!("<{tag}>");
    let (_, rest) = PAGE.split_once(&begins).unwrap_or_default();
    rest.split_once(&format!("</{tag}>")).map_or("", |(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_all_it_needs() {
        for tag in ["script", "style"] {
            assert!(inside(tag).len() > 1000, "{tag}");
            assert_eq!(PAGE.matches(&format!("<{tag}")).count(), 1, "{tag}");
        }
        let inline =
            [" style=\"", "onclick=", "http://", "https://", "<link rel=\"stylesheet\"", "innerHTML"];
        for word in inline {
            assert!(!PAGE.contains(word), "{word}");
        }
    }
}
