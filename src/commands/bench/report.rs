//! The table and its JSON.

use std::path::Path;

use anyhow::{Context as _, Result};
use base::Precision;
use cli::bench::Work;
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::timing::Measured;
use crate::error::UserError;

/// One line of results.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// What was done.
    pub work: Work,
    /// In what.
    pub precision: Precision,
    /// Images at a time.
    pub batch: i64,
    /// Guidance scale.
    pub cfg: Option<f64>,
    /// Micro-batches side by side, in training.
    #[serde(default)]
    pub workers: Option<i64>,
    /// Of the fastest run.
    pub seconds: f64,
    /// Processor seconds of all threads, of the run that took the fewest.
    pub cpu_seconds: Option<f64>,
    /// Images a second.
    pub images_per_second: f64,
    /// Codes a second.
    pub codes_per_second: Option<f64>,
    /// Milliseconds of one decode step or training step.
    pub ms_per_step: Option<f64>,
    /// Of the bandwidth that the machine has for reading.
    pub bandwidth_share: Option<f64>,
    /// Of the arithmetic that the machine has in this precision.
    pub arithmetic_share: Option<f64>,
    /// Largest resident set, bytes.
    pub peak_memory: Option<u64>,
}

impl Row {
    /// A row of `batch` images that took `operations`.
    pub fn new(
        work: Work,
        precision: Precision,
        batch: i64,
        measured: Measured,
        operations: f64,
        machine: &Machine,
    ) -> Self {
        Row {
            work,
            precision,
            batch,
            cfg: None,
            workers: None,
            seconds: measured.seconds,
            cpu_seconds: measured.cpu_seconds,
            images_per_second: batch as f64 / measured.seconds,
            codes_per_second: None,
            ms_per_step: None,
            bandwidth_share: None,
            arithmetic_share: machine.arithmetic(precision).map(|most| operations / measured.seconds / most),
            peak_memory: measured.peak_memory,
        }
    }

    /// One line of the table; `compared`: with a last column, how many times as fast as `earlier`.
    pub fn line(&self, compared: bool, earlier: Option<&Row>) -> String {
        fn shown<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
            value.map_or_else(|| "-".into(), text)
        }
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let mut cells = vec![
            format!("{:?}", self.work).to_lowercase(),
            self.precision.to_string(),
            self.batch.to_string(),
            shown(self.cfg, |c| c.to_string()),
            shown(self.workers, |n| n.to_string()),
            format!("{:.3}", self.seconds),
            shown(self.cpu_seconds, |s| format!("{s:.2}")),
            format!("{:.3}", self.images_per_second),
            shown(self.codes_per_second, |c| format!("{c:.0}")),
            shown(self.ms_per_step, |ms| format!("{ms:.2}")),
            shown(self.bandwidth_share, percent),
            shown(self.arithmetic_share, percent),
            shown(self.peak_memory, |bytes| format!("{:.2}", bytes as f64 / 1e9)),
        ];
        if compared {
            cells.push(shown(earlier, |e| format!("{:.2}×", e.seconds / self.seconds)));
        }
        aligned(&cells)
    }
}

const COLUMNS: [(&str, usize); 14] = [
    ("work", 7),
    ("precision", 9),
    ("batch", 5),
    ("cfg", 5),
    ("workers", 7),
    ("seconds", 9),
    ("cpu s", 8),
    ("images/s", 9),
    ("codes/s", 9),
    ("ms/step", 9),
    ("bandwidth", 9),
    ("arithmetic", 10),
    ("peak GB", 8),
    ("faster", 8),
];

fn aligned(cells: &[String]) -> String {
    let padded = cells.iter().zip(COLUMNS).map(|(cell, (_, width))| format!("{cell:>width$}"));
    padded.collect::<Vec<_>>().join(" ")
}

/// The table's first line.
pub fn head(compared: bool) -> String {
    let shown = if compared { COLUMNS.len() } else { COLUMNS.len() - 1 };
    aligned(&COLUMNS[..shown].iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>())
}

/// Everything, as the last line says it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// Of the program.
    pub version: String,
    /// Where it ran.
    pub machine: Machine,
    /// What was measured.
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
