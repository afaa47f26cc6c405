//! Results as JSON, and those of earlier runs.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::row::Row;
use crate::error::UserError;

/// Complete report, printed as the last line.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// Version of the program.
    pub version: String,
    /// Machine of the run.
    pub machine: Machine,
    /// Measurements.
    pub rows: Vec<Row>,
}

impl Report {
    /// Reads the last line of what an earlier run printed.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("");
        serde_json::from_str(last).map_err(|e| {
            UserError::new(format!(
                "`{}` does not end with the JSON line of `gen bench`: {e}",
                path.display()
            ))
            .hint("keep a run's output with `gen bench > FILE`, or its last line alone")
            .into()
        })
    }

    /// The row of the same work, if there is one.
    pub fn like(&self, row: &Row) -> Option<&Row> {
        // Reports of before there were workers do not name the one.
        let key = |r: &Row| (r.work, r.precision, r.batch, r.cfg, r.workers.unwrap_or(1));
        self.rows.iter().find(|r| key(r) == key(row))
    }
}

#[cfg(test)]
mod tests {
    use base::Precision;
    use cli::bench::Work;

    use super::super::timing::Measured;
    use super::*;

    fn row(seconds: f64) -> Row {
        let machine = Machine {
            device: "test".into(),
            threads: 1,
            bandwidth: 1e9,
            arithmetic: [("fp32".to_owned(), 1e9)].into(),
        };
        let measured = Measured { seconds, cpu_seconds: Some(1.0), peak_memory: None };
        Row::new(Work::Encode, Precision::Fp32, 4, measured, 1e8, &machine)
    }

    #[test]
    fn a_row_says_how_fast_and_how_much_of_the_ceiling() {
        let row = row(0.5);
        assert_eq!((row.images_per_second, row.arithmetic_share), (8.0, Some(0.2)));
        let line = row.line(true, Some(&self::row(1.0)));
        assert!(line.contains("20 %") && line.ends_with("2.00×"), "{line}");
    }

    #[test]
    fn an_earlier_run_is_read_from_the_last_line_of_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("before.txt");
        let machine =
            Machine { device: "x".into(), threads: 2, bandwidth: 1.0, arithmetic: Default::default() };
        let report = Report { version: "1".into(), machine, rows: vec![row(2.0)] };
        let text = format!("a table\n{}\n", serde_json::to_string(&report).unwrap());
        std::fs::write(&path, text).unwrap();
        assert_eq!(Report::read(&path).unwrap().like(&row(1.0)).unwrap().seconds, 2.0);
        std::fs::write(&path, "a table").unwrap();
        assert!(Report::read(&path).unwrap_err().to_string().contains("does not end with the JSON line"));
    }
}
