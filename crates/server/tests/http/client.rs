//! A server of tiny models, and requests to its router.

use std::sync::OnceLock;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::{Engine, EngineConfig};
use generate::{ModelPair, ModelsConfig};
use serde_json::Value;
use server::{Server, ServerConfig};
use settings::{GpuOptions, ModelChoice, Precision};
use tch::Device;
use tempfile::TempDir;
use tower::ServiceExt as _;

use crate::models::{Tiny, write_model, write_text_model};

/// Folder of the models `classes` and `prompts`, which all tests share.
fn folder() -> &'static TempDir {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        write_model(&folder.path().join("classes"), Tiny::default());
        write_text_model(&folder.path().join("prompts"));
        folder
    })
}

/// Models of a name in that folder.
pub fn models(name: &str) -> ModelsConfig {
    let path = folder().path().join(name);
    let choice = ModelChoice::named(path.display().to_string());
    ModelsConfig {
        pair: ModelPair::find(&choice, &ModelChoice::default()).unwrap(),
        text: None,
        device: Device::Cpu,
        precision: Precision::Fp32,
        tokenizer_precision: Precision::Fp32,
        gpu: GpuOptions::default(),
    }
}

/// An engine of a model in that folder.
pub fn engine(name: &str, queue: usize) -> Engine {
    tch::set_num_threads(1);
    let config = EngineConfig { models: models(name), encoder: None, slots: Some(2), queue };
    Engine::start(config, &mut base::Silent).unwrap()
}

/// A server of the models, the first of which is the default.
pub fn server(config: ServerConfig, names: &[&str]) -> Server {
    let server = Server::new(config);
    for name in names {
        server.add(engine(name, 64)).unwrap();
    }
    server.ready();
    server
}

/// A router of the model of classes alone, which tests share that leave it as it is.
pub fn classes() -> Router {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| server(ServerConfig::default(), &["classes"])).router()
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The error, whose four keys must be there.
    pub fn error(&self) -> Value {
        let error = self.json()["error"].clone();
        let keys: Vec<&String> = error.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["message", "type", "param", "code"]);
        assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
        error
    }
}

/// Sends a request.
pub async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap().to_vec();
    Answer { status: parts.status, headers: parts.headers, bytes }
}

/// Gets a path.
pub async fn get(router: &Router, path: &str) -> Answer {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

/// Posts JSON.
pub async fn post(router: &Router, path: &str, body: &Value) -> Answer {
    send(router, json_request(path, body.to_string())).await
}

/// Posts JSON for images.
pub async fn images(router: &Router, body: &Value) -> Answer {
    post(router, "/v1/images/generations", body).await
}

pub fn json_request(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header(header::CONTENT_TYPE, "application/json").body(body.into()).unwrap()
}

/// Bytes of base 64.
pub fn unbase64(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

/// Runs a test that waits.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
