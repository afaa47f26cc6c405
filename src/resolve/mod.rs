//! Resolution of command-line arguments.

pub mod device;
