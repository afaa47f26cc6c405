//! The first words of every process: who it is, and what it is about to do.

use std::time::Duration;

use libtorch_ext::c10d::Store;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A process as it introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Name of its machine.
    pub host: String,
    /// Its number there.
    pub pid: u32,
    /// Address by which it reaches the store.
    pub address: String,
    /// Program and version.
    pub program: String,
    /// The arguments that it was started with.
    pub arguments: String,
}

fn key(rank: usize) -> String {
    format!("hello/{rank}")
}

/// Tells all others, hears all others, and checks that they are about to do the same.
pub fn exchange(
    store: &Store,
    own: &Hello,
    rank: usize,
    world: usize,
    timeout: Duration,
) -> Result<Vec<Hello>> {
    let join = |source| Error::Join { rank, world, place: own.address.clone(), source };
    let text = serde_json::to_vec(own).expect("plain data");
    store.set(&key(rank), &text).map_err(join)?;
    let hear = |other| {
        let bytes = store.get(&key(other), timeout).map_err(join)?;
        let unread = || mismatch(rank, other, "program", &own.program, "another program's");
        serde_json::from_slice(&bytes).map_err(|_| unread())
    };
    let all: Vec<Hello> = (0..world).map(hear).collect::<Result<_>>()?;
    for (other, hello) in all.iter().enumerate() {
        agree(&all[0], hello, other)?;
    }
    Ok(all)
}

fn agree(first: &Hello, other: &Hello, rank: usize) -> Result<()> {
    for (what, a, b) in
        [("program", &first.program, &other.program), ("arguments", &first.arguments, &other.arguments)]
    {
        if a != b {
            return Err(mismatch(0, rank, what, a, b));
        }
    }
    Ok(())
}

fn mismatch(first: usize, second: usize, what: &'static str, a: &str, b: &str) -> Error {
    Error::Mismatch { first, second, what, found: format!("`{a}` and `{b}`") }
}
