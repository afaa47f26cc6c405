//! Result of a run: measured and published figures, with everything that made them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::artifacts::Artifact;
use crate::cfg_search::{self, Trial};
use crate::job::BenchmarkJob;
use crate::results::{StepResults, all_measured, caveats, measured};
use crate::schema::{Benchmark, Task};
use crate::verdict::{Figure, agrees, judge, table};

/// Content of `report.json`. Keys keep the names of earlier versions.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(rename = "recipe")]
    benchmark: String,
    title: String,
    source: String,
    /// Whether the figures may be set beside the published ones.
    comparable: bool,
    /// Reasons why not.
    #[serde(rename = "reservations")]
    caveats: Vec<String>,
    agrees: bool,
    figures: Vec<Figure>,
    /// Everything that the run measured, by name, also without a published value.
    measured: BTreeMap<String, f64>,
    task: Task,
    seeds: String,
    /// Guidance scales that were tried, if they were searched.
    search: Vec<Trial>,
    #[serde(rename = "pieces")]
    artifacts: Vec<Artifact>,
    commands: Vec<String>,
    version: &'static str,
}

/// A complete run.
pub(crate) struct Finished {
    pub(crate) benchmark: Benchmark,
    pub(crate) artifacts: Vec<Artifact>,
    pub(crate) commands: Vec<String>,
    pub(crate) results: StepResults,
    pub(crate) search: Vec<Trial>,
}

impl Report {
    pub(crate) fn new(run: Finished, job: &BenchmarkJob) -> Self {
        let Finished { benchmark, artifacts, commands, results, search } = run;
        let mut caveats = caveats(&benchmark, &results);
        let sound = caveats.is_empty();
        if let Some(n) = job.limit {
            caveats = vec![format!("a dry run on {n} images")];
        }
        let comparable = caveats.is_empty();
        let figures = judge(&benchmark.expected, |metric| measured(&results, metric), comparable);
        Report {
            benchmark: job.benchmark.clone(),
            title: benchmark.title,
            source: benchmark.source,
            comparable,
            caveats,
            agrees: agrees(&figures) && (sound || job.limit.is_some()),
            figures,
            measured: all_measured(&results),
            task: benchmark.task,
            seeds: benchmark.seeds,
            search,
            artifacts,
            commands,
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// False if a figure is outside its tolerance, or if the figures turn out not to be comparable
    /// (except in a dry run).
    pub fn agrees(&self) -> bool {
        self.agrees
    }

    /// The figures as a table, the best guidance scale, and the caveats.
    pub fn text(&self) -> String {
        let mut lines = vec![];
        if self.figures.is_empty() {
            lines.push("nothing was published to compare with; measured:".to_owned());
            lines.extend(self.measured.iter().map(|(name, value)| format!("{name:<16} {value:>10.4}")));
        } else {
            lines.push(table(&self.figures));
        }
        let best = cfg_search::best(&self.search);
        lines.extend(best.map(|best| format!("best guidance scale: {}", best.cfg)));
        lines.extend(self.caveats.iter().map(|caveat| format!("not comparable: {caveat}")));
        lines.join("\n")
    }
}
