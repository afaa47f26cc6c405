//! Published figures: what to run, with which files, and what should come out.

pub mod artifacts;
pub mod cfg_search;
mod error;
mod find;
mod hint;
mod job;
mod quantity;
mod report;
mod results;
mod run;
mod schema;
mod steps;
mod verdict;

pub use self::artifacts::{Artifact, SearchDirs};
pub use self::error::{Error, Result};
pub use self::find::names;
pub use self::job::BenchmarkJob;
pub use self::quantity::{GFID, Quantity, RFID};
pub use self::report::Report;
pub use self::run::{Ending, run};
pub use self::schema::*;
pub use self::verdict::{Figure, Verdict};
