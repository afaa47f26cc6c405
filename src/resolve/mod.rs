//! What was typed → what it means.

pub mod device;
