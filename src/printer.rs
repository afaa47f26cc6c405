//! The only place that prints: results on stdout, everything else on stderr.
#![allow(clippy::print_stderr)]

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;

/// Results could not be written to stdout.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the results to stdout")]
pub struct StdoutError(#[from] std::io::Error);

impl StdoutError {
    /// True when the reader went away.
    pub fn is_broken_pipe(&self) -> bool {
        self.0.kind() == std::io::ErrorKind::BrokenPipe
    }
}

/// Prints results, and reports progress: bars on a terminal, periodic lines elsewhere. Clones share
/// their state.
#[derive(Debug, Clone)]
pub struct Printer {
    quiet: bool,
    /// Rank and number of processes, if there are several.
    rank: Option<(usize, usize)>,
    bars: Option<MultiProgress>,
    jobs: Arc<Mutex<Vec<Job>>>,
}

impl Printer {
    /// A printer for this process's stdout and stderr; `quiet` omits all but warnings and errors.
    pub fn new(quiet: bool) -> Self {
        let bars = (!quiet && std::io::stderr().is_terminal()).then(MultiProgress::new);
        Printer { quiet, rank: None, bars, jobs: Arc::default() }
    }

    /// A printer for one of several processes. The first prints everything, the others only their
    /// last messages.
    pub fn of_rank(quiet: bool, rank: usize, world_size: usize) -> Self {
        let first = rank == 0;
        Printer { rank: (!first).then_some((rank, world_size)), ..Printer::new(quiet || !first) }
    }

    /// Whether only warnings and errors are printed beside the results.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// A line of results.
    pub fn line(&self, text: &str) -> Result<(), StdoutError> {
        if self.rank.is_some() {
            return Ok(());
        }
        self.suspended(|| {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{text}").and_then(|()| out.flush())
        })?;
        Ok(())
    }

    /// The results as one JSON document.
    pub fn json(&self, document: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(document)?;
        Ok(self.line(&text)?)
    }

    /// A line about what is going on.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.suspended(|| eprintln!("{text}"));
        }
    }

    /// A warning that does not stop the work.
    pub fn warning(&self, text: &str) {
        if self.rank.is_none() {
            self.suspended(|| eprintln!("warning: {text}"));
        }
    }

    /// The last words: already rendered.
    pub fn error(&self, rendered: &str) {
        match self.rank {
            None => self.suspended(|| eprintln!("{rendered}")),
            Some((rank, of)) => self.suspended(|| eprintln!("[rank {rank} of {of}] {rendered}")),
        }
    }

    /// Takes unfinished bars off the screen.
    pub fn close(&self) {
        for job in self.jobs().drain(..) {
            if let Some(bar) = job.bar {
                bar.finish_and_clear();
            }
        }
    }

    fn suspended<R>(&self, print: impl FnOnce() -> R) -> R {
        match &self.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    }

    fn jobs(&self) -> MutexGuard<'_, Vec<Job>> {
        self.jobs.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl base::Progress for Printer {
    fn start(&mut self, what: &str, total: Option<u64>) {
        let bar = self.bars.as_ref().map(|bars| bars.add(bar(what, total)));
        self.jobs().push(Job::new(what, total, bar));
    }

    fn advance(&mut self, n: u64) {
        let line = self.jobs().last_mut().and_then(|job| job.advance(n));
        if let Some(line) = line {
            self.note(&line);
        }
    }

    fn message(&mut self, text: &str) {
        self.note(text);
    }

    /// Status under the bar on a terminal; elsewhere a line, which also replaces the periodic
    /// progress line.
    fn status(&mut self, parts: &[String]) {
        let text = parts.join("  ");
        let line = self.jobs().last_mut().map_or(Some(text), |job| job.show(parts));
        if let Some(line) = line {
            self.note(&line);
        }
    }

    fn warn(&mut self, text: &str) {
        self.warning(text);
    }

    fn finish(&mut self) {
        let Some(job) = self.jobs().pop() else { return };
        if let Some(bar) = &job.bar {
            bar.finish_and_clear();
        }
        self.note(&job.summary());
    }
}

const BAR: &str = "{prefix} {wide_bar} {human_pos}/{human_len}  {per_sec}  {eta} left";
const SPINNER: &str = "{prefix} {spinner} {human_pos}  {per_sec}";

fn bar(what: &str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(n) => (ProgressBar::new(n), BAR),
        None => (ProgressBar::new_spinner(), SPINNER),
    };
    bar.with_style(style(template)).with_prefix(what.to_owned())
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above are well-formed")
}

/// Interval of progress lines if bars cannot be shown.
const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Job {
    what: String,
    total: Option<u64>,
    done: u64,
    started: Instant,
    said: Instant,
    bar: Option<ProgressBar>,
}

impl Job {
    fn new(what: &str, total: Option<u64>, bar: Option<ProgressBar>) -> Self {
        let now = Instant::now();
        Job { what: what.to_owned(), total, done: 0, started: now, said: now, bar }
    }

    /// Counts, and returns a line when it is time for one.
    fn advance(&mut self, n: u64) -> Option<String> {
        self.done += n;
        if let Some(bar) = &self.bar {
            bar.inc(n);
            return None;
        }
        if self.said.elapsed() < INTERVAL {
            return None;
        }
        self.said = Instant::now();
        Some(self.state(self.started.elapsed()))
    }

    /// Shows the state under the bar; without one returns it as a line, with the time left.
    fn show(&mut self, parts: &[String]) -> Option<String> {
        self.said = Instant::now();
        let Some(bar) = &self.bar else {
            let left = self.left(self.started.elapsed()).map(|left| format!("{left} left"));
            return Some(parts.iter().cloned().chain(left).collect::<Vec<_>>().join("  "));
        };
        let template = if self.total.is_some() { BAR } else { SPINNER };
        bar.set_style(style(&format!("{template}\n{{msg}}")));
        bar.set_message(parts.iter().map(|part| format!("  {part}")).collect::<Vec<_>>().join("\n"));
        None
    }

    fn left(&self, elapsed: Duration) -> Option<String> {
        let rest = self.total?.saturating_sub(self.done);
        let each = elapsed.as_secs_f64() / self.done as f64;
        (self.done > 0 && rest > 0).then(|| duration(rest as f64 * each))
    }

    fn state(&self, elapsed: Duration) -> String {
        let rate = self.done as f64 / elapsed.as_secs_f64().max(1e-9);
        let of = self.total.map(|t| format!("/{t}")).unwrap_or_default();
        let left = self.left(elapsed).map(|left| format!(", {left} left")).unwrap_or_default();
        format!("{}: {}{of} ({rate:.1}/s{left})", self.what, self.done)
    }

    fn summary(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = self.done as f64 / seconds.max(1e-9);
        format!("{}: {} in {} ({rate:.1}/s)", self.what, self.done, duration(seconds))
    }
}

/// `4.2 s`, `3 min 20 s`, `5 h 12 min`.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rate_and_time_left() {
        let mut job = Job::new("sampling", Some(100), None);
        job.done = 25;
        assert_eq!(job.state(Duration::from_secs(50)), "sampling: 25/100 (0.5/s, 2 min 30 s left)");
        job.total = None;
        assert_eq!(job.state(Duration::from_secs(50)), "sampling: 25 (0.5/s)");
    }
}
