//! The router and the listener, on tiny models with random weights.

mod client;
mod codes;
mod hostile;
mod life;
mod pictures;
mod refusals;
mod routes;
mod stream;

#[path = "../../../../tests/common/models.rs"]
#[allow(dead_code)]
mod models;
