//! What was typed → what it means.

pub mod device;
pub mod models;
pub mod packing;
