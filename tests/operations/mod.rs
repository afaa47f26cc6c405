//! Training runs as operations: killed, out of disk, fed with odd files, looked at.

mod disk;
mod kills;
mod pictures;
mod watching;
