//! Progress reports of libraries, which never print.

/// Receives progress from a long job.
pub trait Progress: Send {
    /// A job of `total` units begins; `None` if the number is not known.
    fn start(&mut self, what: &str, total: Option<u64>);
    /// `n` more units are done.
    fn advance(&mut self, n: u64);
    /// A line worth reading, such as the loss of a step.
    fn message(&mut self, text: &str);
    /// Current status, in parts. Replaces the previous status if the output can; else it is a line
    /// like any other.
    fn status(&mut self, parts: &[String]) {
        self.message(&parts.join("  "));
    }
    /// A problem that does not stop the job.
    fn warn(&mut self, text: &str);
    /// The job is over.
    fn finish(&mut self);
}

/// Says nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn start(&mut self, _what: &str, _total: Option<u64>) {}
    fn advance(&mut self, _n: u64) {}
    fn message(&mut self, _text: &str) {}
    fn warn(&mut self, _text: &str) {}
    fn finish(&mut self) {}
}
