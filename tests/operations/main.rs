//! Training runs as operations: killed, out of disk, fed with odd files, looked at.

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod kills;
mod pictures;
mod watching;
