//! What cannot be honoured is refused, by name.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};
use server::{Keys, Server, ServerConfig};

use crate::client::{Answer, classes, engine, get, images, json_request, post, send, server, wait};

fn refused(router: &Router, body: &Value, param: &str, code: &str) -> String {
    let answer = wait(images(router, body));
    assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    let error = answer.error();
    assert_eq!(error["param"], param, "{body}: {error}");
    assert_eq!(error["code"], code, "{body}: {error}");
    assert_eq!(error["type"], "invalid_request_error");
    error["message"].as_str().unwrap().to_owned()
}

#[test]
fn fields_of_a_model_of_classes() {
    let router = classes();
    let long = "x".repeat(32_001);
    for (field, value, code) in [
        ("n", json!(0), "integer_below_min_value"),
        ("n", json!(11), "integer_above_max_value"),
        ("n", json!("2"), "invalid_type"),
        ("n", json!(1.5), "invalid_type"),
        ("size", json!("16x32"), "invalid_value"),
        ("size", json!("9999x9999"), "invalid_value"),
        ("size", json!(16), "invalid_type"),
        ("quality", json!("hd"), "invalid_value"),
        ("response_format", json!("url"), "invalid_value"),
        ("output_format", json!("gif"), "invalid_value"),
        ("output_compression", json!(101), "integer_above_max_value"),
        ("output_compression", json!(50), "invalid_value"),
        ("background", json!("transparent"), "invalid_value"),
        ("moderation", json!("high"), "invalid_value"),
        ("partial_images", json!(2), "invalid_value"),
        ("partial_images", json!(4), "integer_above_max_value"),
        ("progress", json!(true), "invalid_value"),
        ("stream", json!("yes"), "invalid_type"),
        ("seed", json!(-1), "invalid_type"),
        ("seed", json!(1.0), "invalid_type"),
        ("class", json!(5), "invalid_value"),
        ("class", json!("golden"), "invalid_value"),
        ("class", json!([1]), "invalid_type"),
        ("prompt", json!("tabby"), "invalid_value"),
        ("prompt", json!(long), "string_above_max_length"),
        ("negative_prompt", json!("a cat"), "invalid_value"),
        ("temperature", json!("hot"), "invalid_type"),
        ("temperature", json!(-1), "invalid_value"),
        ("style", json!("vivid"), "unknown_parameter"),
        ("steps", json!(20), "unknown_parameter"),
        ("guidance", json!(20), "unknown_parameter"),
    ] {
        let mut body = json!({"class": 207});
        body[field] = value;
        let param = if body["class"] == 207 && field == "prompt" && body["prompt"] == "tabby" {
            "class"
        } else {
            field
        };
        refused(&router, &body, param, code);
    }
    refused(&router, &json!({}), "prompt", "missing_required_parameter");
    refused(&router, &json!({"prompt": " "}), "prompt", "missing_required_parameter");
    let message = refused(&router, &json!({"prompt": "golden retreiver"}), "prompt", "invalid_value");
    assert!(message.contains("did you mean"), "{message}");
    let message = refused(&router, &json!({"class": 207, "sed": 1}), "sed", "unknown_parameter");
    assert!(message.contains("Did you mean 'seed'?"), "{message}");
}

#[test]
fn fields_of_a_model_of_prompts() {
    let router = server(ServerConfig::default(), &["prompts"]).router();
    refused(&router, &json!({"prompt": "a dog", "class": 207}), "class", "invalid_value");
    refused(&router, &json!({"negative_prompt": "a dog"}), "prompt", "missing_required_parameter");
}

fn said(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    assert_eq!(answer.error()["code"], code);
}

#[test]
fn models_routes_methods_and_media_types() {
    let router = classes();
    let answer = wait(images(&router, &json!({"model": "dall-e-3", "prompt": "tabby"})));
    said(&answer, 404, "model_not_found");
    assert_eq!(answer.error()["param"], "model");
    assert!(answer.error()["message"].as_str().unwrap().contains("'classes'"));
    said(&wait(get(&router, "/v1/models/none")), 404, "model_not_found");
    said(&wait(get(&router, "/v1/images/edits")), 404, "unknown_url");
    said(&wait(get(&router, "/v1/../etc/passwd")), 404, "unknown_url");
    let answer = wait(get(&router, "/v1/images/generations"));
    said(&answer, 405, "method_not_supported");
    assert_eq!(answer.header("allow"), Some("POST"));
    let plain = Request::post("/v1/images/generations").header(header::CONTENT_TYPE, "text/plain");
    said(&wait(send(&router, plain.body(Body::from("{}")).unwrap())), 415, "unsupported_content_type");
    let bare = Request::post("/v1/images/generations").body(Body::from("{}")).unwrap();
    said(&wait(send(&router, bare)), 415, "unsupported_content_type");
    let large = json_request("/v1/images/generations", vec![b' '; (1 << 20) + 1]);
    said(&wait(send(&router, large)), 413, "request_too_large");
    for body in ["", "{", "nonsense", "[1]", "\"x\"", "{\"class\": 207} {}"] {
        let answer = wait(send(&router, json_request("/v1/images/generations", body)));
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.error()["param"].is_null(), "{body}");
    }
}

#[test]
fn keys() {
    let keys = Keys::parse("sk-0123456789abcdef\nsk-another-key-000").unwrap();
    let router = server(ServerConfig { keys: Some(keys), ..ServerConfig::default() }, &["classes"]).router();
    let with = |value: &str| {
        let request = Request::get("/v1/models").header(header::AUTHORIZATION, value);
        wait(send(&router, request.body(Body::empty()).unwrap()))
    };
    for key in ["sk-0123456789abcdef", "sk-another-key-000"] {
        assert_eq!(with(&format!("Bearer {key}")).status, 200);
    }
    for value in ["Bearer sk-0123456789abcdeF", "Bearer ", "Basic sk-0123456789abcdef", "sk-0123456789abcdef"]
    {
        let answer = with(value);
        said(&answer, 401, "invalid_api_key");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    for path in ["/v1/models", "/v1/models/classes", "/metrics", "/v1/none"] {
        said(&wait(get(&router, path)), 401, "invalid_api_key");
    }
    said(&wait(images(&router, &json!({"class": 207}))), 401, "invalid_api_key");
    for path in ["/", "/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(wait(get(&router, path)).status, 200, "{path}");
    }
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let server = Server::new(ServerConfig::default());
    server.add(engine("classes", 3)).unwrap();
    server.ready();
    let router = server.router();
    let answer = wait(images(&router, &json!({"class": 207, "n": 4})));
    said(&answer, 400, "integer_above_max_value");
    assert_eq!(answer.error()["param"], "n");
    let body = json!({"class": 207, "n": 3});
    let answers = wait(async {
        let one = || images(&router, &body);
        tokio::join!(one(), one(), one(), one(), one(), one(), one(), one())
    });
    let answers = [answers.0, answers.1, answers.2, answers.3, answers.4, answers.5, answers.6, answers.7];
    let (done, rest): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert!(!done.is_empty() && !rest.is_empty(), "{} done", done.len());
    for answer in rest {
        said(&answer, 429, "rate_limit_exceeded");
        assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    }
}

#[test]
fn nothing_is_served_while_models_are_loaded() {
    let server = Server::new(ServerConfig::default());
    let router = server.router();
    assert_eq!(wait(get(&router, "/healthz")).status, 200);
    assert_eq!(wait(get(&router, "/readyz")).json()["status"], "loading");
    for answer in [
        wait(images(&router, &json!({"class": 207}))),
        wait(get(&router, "/v1/models")),
        wait(post(&router, "/v1/codes/decode", &json!({"codes": [[0]]}))),
    ] {
        said(&answer, 503, "model_loading");
        assert!(answer.header("retry-after").is_some());
    }
    server.add(engine("classes", 3)).unwrap();
    assert_eq!(wait(get(&router, "/readyz")).status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(wait(images(&router, &json!({"class": 207}))).status, 200, "what is loaded is served");
    said(&wait(images(&router, &json!({"class": 207, "model": "later"}))), 503, "model_loading");
    assert!(server.add(engine("classes", 3)).is_err(), "two of one name");
    server.ready();
    assert_eq!(wait(get(&router, "/readyz")).json(), json!({"status": "ready", "models": ["classes"]}));
    said(&wait(images(&router, &json!({"class": 207, "model": "later"}))), 404, "model_not_found");
}
