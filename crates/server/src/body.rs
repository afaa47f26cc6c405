//! Bodies of requests: bounded in size and time, JSON read strictly.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use base::hint::nearest;
use futures_util::StreamExt as _;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;

use crate::config::ServerConfig;
use crate::error::{ApiError, Result};

/// Media type of JSON.
pub const JSON: &str = "application/json";

/// The JSON body of a request of at most `limit` bytes.
///
/// # Errors
/// Returns an error if it is no JSON, too large or too late, or a field is unknown or of another
/// type.
pub async fn json<T: DeserializeOwned>(request: Request, limit: usize, config: &ServerConfig) -> Result<T> {
    match media_type(request.headers()) {
        Some(found) if found.eq_ignore_ascii_case(JSON) => parse(&read(request, limit, config).await?),
        found => Err(ApiError::media_type(found, &[JSON])),
    }
}

/// The media type of a body, without parameters such as a character set.
pub fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim())
}

/// The bytes of a body.
///
/// # Errors
/// Returns an error if there are more than `limit`, or they do not arrive in time.
pub async fn read(request: Request, limit: usize, config: &ServerConfig) -> Result<Vec<u8>> {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit as u64) {
        return Err(ApiError::too_large(limit));
    }
    let bytes = tokio::time::timeout(config.read_time, collect(request.into_body(), limit)).await;
    bytes.unwrap_or_else(|_| Err(ApiError::timed_out(config.read_time)))
}

async fn collect(body: Body, limit: usize) -> Result<Vec<u8>> {
    let (mut chunks, mut bytes) = (body.into_data_stream(), vec![]);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::body("The request's body ended early."))?;
        if bytes.len() + chunk.len() > limit {
            return Err(ApiError::too_large(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Reads JSON; the error names the field.
///
/// # Errors
/// Returns an error if it is no JSON, or does not fit the type.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    check_object(bytes)?;
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| field_error(&error.path().to_string(), error.inner()))?;
    json.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

/// Refuses all but objects: serde would take an array's items for the fields, in their order.
fn check_object(bytes: &[u8]) -> Result<()> {
    if bytes.trim_ascii_start().starts_with(b"{") {
        return Ok(());
    }
    match serde_json::from_slice::<IgnoredAny>(bytes) {
        Ok(_) => Err(ApiError::body("The JSON body does not fit: expected an object.")),
        Err(error) => Err(not_json(&error)),
    }
}

fn not_json(error: &serde_json::Error) -> ApiError {
    ApiError::body(format!("We could not parse the JSON body of your request: {error}."))
}

fn field_error(path: &str, error: &serde_json::Error) -> ApiError {
    let said = error.to_string();
    let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
    match (error.classify(), path) {
        (Category::Data, _) if said.starts_with("missing field") => missing(path, said),
        (Category::Data, ".") => ApiError::body(format!("The JSON body does not fit: {}.", in_words(said))),
        (Category::Data, _) if said.starts_with("unknown field") => unknown(path, said),
        (Category::Data, _) => {
            ApiError::invalid(path, "invalid_type", format!("Invalid '{path}': {}.", in_words(said)))
        }
        _ => not_json(error),
    }
}

/// serde names the field in backquotes, and the object that it is missing in as the path.
fn missing(path: &str, said: &str) -> ApiError {
    let field = said.split('`').nth(1).unwrap_or_default();
    let param = if path == "." { field.to_owned() } else { format!("{path}.{field}") };
    let message = format!("Missing required parameter: '{param}'.");
    ApiError::invalid(&param, "missing_required_parameter", message)
}

/// serde names the field, then those that there are, in backquotes.
fn unknown(path: &str, said: &str) -> ApiError {
    let known = said.split('`').skip(1).step_by(2).skip(1);
    let similar = nearest(path, known, 1).first().map(|name| format!(" Did you mean '{name}'?"));
    let path: String = path.chars().take(100).collect();
    let message = format!("Unknown parameter: '{path}'.{}", similar.unwrap_or_default());
    ApiError::invalid(&path, "unknown_parameter", message)
}

/// Rust's names of types in words, in a text of bounded length.
fn in_words(said: &str) -> String {
    const MOST: usize = 300;
    let said: String = said.chars().take(MOST).collect();
    let types =
        [("u64", "an integer from 0 to 18446744073709551615"), ("i64", "an integer"), ("f64", "a number")];
    let end = types.into_iter().find(|(name, _)| said.ends_with(&format!("expected {name}")));
    match end {
        Some((name, words)) => format!("{}{words}", said.trim_end_matches(name)),
        None => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Fields {
        seed: Option<u64>,
        guidance_scale: Option<f64>,
        #[serde(default)]
        list: Vec<Item>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code)]
    struct Item {
        name: String,
    }

    #[test]
    fn errors_name_the_field() {
        for (body, param, message) in [
            ("{\"sed\": 1}", Some("sed"), "Unknown parameter: 'sed'. Did you mean 'seed'?"),
            (
                "{\"seed\": -1}",
                Some("seed"),
                "Invalid 'seed': invalid value: integer `-1`, expected an integer from 0 to 18446744073709551615.",
            ),
            ("{\"list\": [{}]}", Some("list[0].name"), "Missing required parameter: 'list[0].name'."),
            ("[]", None, "The JSON body does not fit: expected an object."),
            ("[1, 2]", None, "The JSON body does not fit: expected an object."),
            ("[1, 2", None, "We could not parse the JSON body of your request: EOF"),
            ("{\"seed\": 1} x", None, "We could not parse the JSON body of your request: trailing"),
            ("{\"seed\": 1, \"seed\": 1}", None, "duplicate field `seed`"),
            ("{", None, "We could not parse the JSON body of your request: EOF"),
        ] {
            let error = parse::<Fields>(body.as_bytes()).unwrap_err().to_body().error;
            assert!(error.message.contains(message), "{body}: {}", error.message);
            assert!(param.is_none() || error.param.as_deref() == param, "{body}: {:?}", error.param);
        }
        assert!(parse::<Fields>(b"{\"seed\": null, \"guidance_scale\": 2}").is_ok());
    }
}
