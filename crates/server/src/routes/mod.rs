//! Routes about the server itself.

pub mod document;
pub mod health;
pub mod models;
pub mod page;
