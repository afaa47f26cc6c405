//! Models, figures, the OpenAPI document, the page, and what every answer carries.

use axum::body::Body;
use axum::http::{Method, Request, header};
use serde_json::{Value, json};
use server::ServerConfig;

use crate::client::{classes, get, images, send, server, wait};

#[test]
fn models_are_listed_with_what_they_know() {
    let config = ServerConfig {
        aliases: [("gpt-image-1".to_owned(), "classes".to_owned())].into(),
        ..ServerConfig::default()
    };
    let router = server(config, &["classes", "prompts"]).router();
    let list = wait(get(&router, "/v1/models")).json();
    assert_eq!(list["object"], "list");
    let [first, second] = list["data"].as_array().unwrap().as_slice() else { panic!("{list}") };
    for (key, value) in [
        ("id", json!("classes")),
        ("object", json!("model")),
        ("owned_by", json!("gen")),
        ("aliases", json!(["gpt-image-1"])),
        ("takes", json!("class")),
        ("num_classes", json!(3)),
        ("size", json!("16x16")),
        ("num_tokens", json!(16)),
        ("codebook_size", json!(64)),
        ("precision", json!("fp32")),
    ] {
        assert_eq!(first[key], value, "{key}");
    }
    assert_eq!(first["defaults"]["cfg"], 2.0);
    assert_eq!((&second["id"], &second["takes"]), (&json!("prompts"), &json!("prompt")));
    assert!(first["created"].as_u64().unwrap() > 1_700_000_000 && first.get("classes").is_none());
    for name in ["classes", "gpt-image-1"] {
        let model = wait(get(&router, &format!("/v1/models/{name}"))).json();
        assert_eq!(model["id"], "classes");
        let class = json!({"index": 207, "wnid": "n02099601", "name": "golden retriever"});
        assert!(model["classes"].as_array().unwrap().contains(&class), "{model}");
    }
    assert!(wait(get(&router, "/v1/models/prompts")).json().get("classes").is_none());
}

/// Samples of Prometheus's text format by name and labels; every line must be one or a comment.
fn samples(text: &str) -> Vec<(String, f64)> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let value = value.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
        assert!(name.starts_with("gen_") && name.contains('{') == name.ends_with('}'), "{line}");
        (name.to_owned(), value)
    };
    lines.map(sample).collect()
}

#[test]
fn figures_tell_what_was_done() {
    let router = server(ServerConfig::default(), &["classes"]).router();
    assert_eq!(wait(images(&router, &json!({"class": 207, "n": 2}))).status, 200);
    assert_eq!(wait(images(&router, &json!({"class": 1}))).status, 400);
    assert_eq!(wait(get(&router, "/none")).status, 404);
    let answer = wait(get(&router, "/metrics"));
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let samples = samples(&answer.text());
    let value = |name: &str| {
        let found = samples.iter().find(|(found, _)| found == name);
        found.unwrap_or_else(|| panic!("{name} of {samples:?}")).1
    };
    assert_eq!(value("gen_requests_total{route=\"/v1/images/generations\",status=\"200\"}"), 1.0);
    assert_eq!(value("gen_requests_total{route=\"/v1/images/generations\",status=\"400\"}"), 1.0);
    assert_eq!(value("gen_requests_total{route=\"other\",status=\"404\"}"), 1.0);
    assert_eq!(value("gen_request_seconds_count{route=\"/v1/images/generations\"}"), 2.0);
    assert_eq!(value("gen_model_images_total{model=\"classes\"}"), 2.0);
    assert_eq!(value("gen_model_queued_images{model=\"classes\"}"), 0.0);
    assert!(value("gen_model_slots{model=\"classes\"}") >= 1.0);
    assert!(value("gen_model_steps_total{model=\"classes\"}") >= 16.0);
    assert_eq!(value("gen_image_seconds_count{model=\"classes\",phase=\"sampling\"}"), 2.0);
    assert_eq!(value("gen_requests_in_flight"), 1.0, "this very one");
}

#[test]
fn the_openapi_document_names_every_route() {
    let document = wait(get(&classes(), "/openapi.json")).json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let paths = document["paths"].as_object().unwrap();
    for (path, method) in [
        ("/", "get"),
        ("/v1/images/generations", "post"),
        ("/v1/codes/encode", "post"),
        ("/v1/codes/decode", "post"),
        ("/v1/models", "get"),
        ("/v1/models/{id}", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
        ("/openapi.json", "get"),
    ] {
        assert!(paths[path][method]["responses"].is_object(), "{path}");
        let real = path.replace("{id}", "classes");
        let request = Request::builder().method(method.to_uppercase().as_str()).uri(real);
        let answer = wait(send(&classes(), request.body(Body::empty()).unwrap()));
        assert!(![404, 405].contains(&answer.status.as_u16()), "{path}");
    }
    assert_eq!(paths.len(), 10);
    let schemas = &document["components"]["schemas"];
    let fields = schemas["CreateImageRequest"]["properties"].as_object().unwrap();
    assert!(fields.contains_key("guidance_scale") && fields.len() >= 25, "{fields:?}");
    assert_eq!(schemas["CreateImageRequest"]["additionalProperties"], false);
    check_references(&document, &document);
}

/// Every `$ref` leads somewhere.
fn check_references(value: &Value, document: &Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(path)) = object.get("$ref") {
                assert!(document.pointer(path.trim_start_matches('#')).is_some(), "{path}");
            }
            object.values().for_each(|value| check_references(value, document));
        }
        Value::Array(list) => list.iter().for_each(|value| check_references(value, document)),
        _ => {}
    }
}

#[test]
fn the_page_runs_nothing_but_itself() {
    let answer = wait(get(&classes(), "/"));
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = answer.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("inline"),
        "{policy}"
    );
    assert!(answer.text().contains("<!doctype html>"));
}

#[test]
fn every_answer_has_an_id_and_is_not_kept() {
    for path in ["/healthz", "/none", "/v1/models"] {
        let answer = wait(get(&classes(), path));
        assert!(answer.header("x-request-id").unwrap().starts_with("req_"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    let request = Request::get("/healthz").header("x-request-id", "proxy-1").body(Body::empty()).unwrap();
    assert_eq!(wait(send(&classes(), request)).header("x-request-id"), Some("proxy-1"));
}

#[test]
fn pages_of_other_origins_are_let_in_by_name() {
    let preflight = |origin: &'static str| {
        Request::builder()
            .method(Method::OPTIONS)
            .uri("/v1/images/generations")
            .header(header::ORIGIN, origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,authorization")
            .body(Body::empty())
            .unwrap()
    };
    let allowed = "access-control-allow-origin";
    assert_eq!(wait(send(&classes(), preflight("https://a.example"))).header(allowed), None);
    let config =
        ServerConfig { cors_origins: vec!["https://a.example".parse().unwrap()], ..ServerConfig::default() };
    let router = server(config, &[]).router();
    assert_eq!(
        wait(send(&router, preflight("https://a.example"))).header(allowed),
        Some("https://a.example")
    );
    assert_eq!(wait(send(&router, preflight("https://b.example"))).header(allowed), None);
}
