//! Damaged images: their limit and their list.

use std::path::Path;

use cli::extract::ExtractArgs;
use dist::World;

use crate::context::Context;
use crate::error::UserError;

/// Counts damaged images of all processes against the limit.
pub struct Corrupt<'a> {
    limit: usize,
    /// Number over all processes, as far as this one knows.
    seen: usize,
    world: &'a World,
}

impl<'a> Corrupt<'a> {
    /// None seen so far.
    pub fn new(limit: usize, context: &'a Context) -> Self {
        Corrupt { limit, seen: 0, world: &context.world }
    }

    /// The number that the next unit may have.
    pub fn left(&self) -> usize {
        self.limit.saturating_sub(self.seen)
    }

    /// Counts those of a unit, key and reason; the error of too many, to which each of several
    /// processes may have added few.
    pub fn add(&mut self, unit: &[(String, String)], list: &Path) -> anyhow::Result<Option<data::Error>> {
        let all = self.world.add("extract/corrupt", i64::try_from(unit.len())?)?;
        self.seen = usize::try_from(all)?;
        let (count, ceiling) = (self.seen, self.limit);
        Ok(unit.last().filter(|_| count > ceiling).map(|(key, message)| {
            let (key, message, list) = (key.clone(), message.clone(), Some(list.to_owned()));
            data::Error::TooManyCorrupt { count, ceiling, key, message, list }
        }))
    }

    /// The error of a unit with too many, with the limit that the user gave.
    pub fn explain(&self, error: data::Error) -> data::Error {
        match error {
            data::Error::TooManyCorrupt { count, key, message, list, .. } => {
                let (count, ceiling) = (count + self.seen, self.limit);
                data::Error::TooManyCorrupt { count, ceiling, key, message, list }
            }
            error => error,
        }
    }
}

/// No codes are worse than none: training would find an empty set.
pub fn nothing_read(args: &ExtractArgs, records: usize) -> UserError {
    let list = args.output.join("skipped.tsv");
    let first = std::fs::read_to_string(&list).ok().and_then(|text| text.lines().next().map(str::to_owned));
    let first = first.map(|line| format!("; the first: {}", line.replace('\t', ": "))).unwrap_or_default();
    UserError::new(format!("none of the {records} images can be read{first}")).hint(format!(
        "`{}` names them all; remove `{}` before the next try",
        list.display(),
        args.output.display()
    ))
}
