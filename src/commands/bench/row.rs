//! The table of results, row by row.

use base::Precision;
use cli::bench::Work;
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::timing::Measured;

/// One line of results.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// Measured work.
    pub work: Work,
    /// Its precision.
    pub precision: Precision,
    /// Images at a time.
    pub batch: i64,
    /// Guidance scale.
    pub cfg: Option<f64>,
    /// Micro-batches side by side, in training.
    #[serde(default)]
    pub workers: Option<i64>,
    /// Seconds of the fastest run.
    pub seconds: f64,
    /// Processor seconds of all threads, of the run that took the fewest.
    pub cpu_seconds: Option<f64>,
    /// Images a second.
    pub images_per_second: f64,
    /// Codes a second.
    pub codes_per_second: Option<f64>,
    /// Milliseconds of one decode step or training step.
    pub ms_per_step: Option<f64>,
    /// Share of the machine's read bandwidth.
    pub bandwidth_share: Option<f64>,
    /// Share of the machine's arithmetic rate in this precision.
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
