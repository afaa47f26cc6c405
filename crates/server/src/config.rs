//! Configuration of the server.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::HeaderValue;

use crate::keys::Keys;

/// Choices of whoever runs the server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Keys that clients must send; `None`: none is asked for.
    pub keys: Option<Keys>,
    /// Web sites, by origin, whose pages may use the server.
    pub cors_origins: Vec<HeaderValue>,
    /// Other names of models: name → model.
    pub aliases: BTreeMap<String, String>,
    /// Most bytes of a request's body with images or codes.
    pub max_body: usize,
    /// Time within which a request's head must arrive, and its body.
    pub read_time: Duration,
    /// Most connections at a time.
    pub max_connections: usize,
    /// Time that running images have when the server ends.
    pub drain_time: Duration,
    /// Write prompts to the log.
    pub log_prompts: bool,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            keys: None,
            cors_origins: vec![],
            aliases: BTreeMap::new(),
            max_body: 32 << 20,
            read_time: Duration::from_secs(30),
            max_connections: 256,
            drain_time: Duration::from_secs(60),
            log_prompts: false,
        }
    }
}
