//! Averages of scalars and times between two log lines.

use std::time::{Duration, Instant};

use tch::{Kind, Tensor};

/// Part of a step's time. On a GPU these are the host's times; the device's work appears where the
/// host next waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    /// Waiting for data, encoding included.
    Data,
    /// Forward and losses.
    Forward,
    /// Backward.
    Backward,
    /// Norms, clipping, optimizer, moving average.
    Update,
}

const SPANS: [(Span, &str); 4] = [
    (Span::Data, "data"),
    (Span::Forward, "forward"),
    (Span::Backward, "backward"),
    (Span::Update, "update"),
];

/// Timer and averages of steps. Only [`StepTimer::take`] waits for the device.
#[derive(Debug)]
pub(crate) struct StepTimer {
    terms: Vec<(String, Tensor, u64)>,
    scalars: Vec<(String, f64)>,
    times: [Duration; 4],
    since: Instant,
    paused: Duration,
    last: Instant,
    steps: u64,
    images: usize,
    rates: Rates,
}

/// Units of speed beside images a second.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rates {
    /// Codes of one image, for codes a second.
    pub codes_per_image: Option<u64>,
    /// Seconds for an image at the device's peak, for MFU.
    pub peak_seconds_per_image: Option<f64>,
}

impl StepTimer {
    pub fn new(rates: Rates) -> Self {
        let now = Instant::now();
        StepTimer {
            terms: vec![],
            scalars: vec![],
            times: Default::default(),
            since: now,
            paused: Duration::ZERO,
            last: now,
            steps: 0,
            images: 0,
            rates,
        }
    }

    /// Adds a scalar tensor to the average under `name`.
    pub fn term(&mut self, name: String, value: &Tensor) {
        let value = value.to_kind(Kind::Double);
        match self.terms.iter_mut().find(|(n, ..)| *n == name) {
            Some((_, sum, count)) => {
                *sum += value;
                *count += 1;
            }
            None => self.terms.push((name, value.copy(), 1)),
        }
    }

    /// Sets a scalar; the latest value is logged.
    pub fn scalar(&mut self, name: String, value: f64) {
        match self.scalars.iter_mut().find(|(n, _)| *n == name) {
            Some((_, v)) => *v = value,
            None => self.scalars.push((name, value)),
        }
    }

    /// Adds time to `span`.
    pub fn add(&mut self, span: Span, time: Duration) {
        self.times[span as usize] += time;
    }

    /// Counts a finished step over `n` images.
    pub fn images(&mut self, n: usize) {
        self.steps += 1;
        self.images += n;
        self.last = Instant::now();
    }

    /// Excludes the time since the last step (validation, saving) from the training time.
    pub fn pause_over(&mut self) {
        self.paused += self.last.elapsed();
        self.last = Instant::now();
    }

    /// Returns the averages since the last call and resets them.
    pub fn take(&mut self) -> Vec<(String, f64)> {
        let mean =
            |(n, sum, count): &(String, Tensor, u64)| (n.clone(), sum.double_value(&[]) / *count as f64);
        let mut all: Vec<(String, f64)> = self.terms.iter().map(mean).collect();
        all.append(&mut self.scalars);
        let seconds = self.since.elapsed().saturating_sub(self.paused).as_secs_f64();
        let per_second = |n: f64| n / seconds.max(1e-9);
        all.push(("images_per_second".into(), per_second(self.images as f64)));
        if let Some(codes) = self.rates.codes_per_image {
            all.push(("codes_per_second".into(), per_second((self.images as u64 * codes) as f64)));
        }
        if let Some(seconds) = self.rates.peak_seconds_per_image {
            all.push(("mfu".into(), per_second(self.images as f64) * seconds));
        }
        all.push(("data_wait".into(), per_second(self.times[Span::Data as usize].as_secs_f64())));
        for (span, name) in SPANS {
            let each = self.times[span as usize].as_secs_f64() / self.steps.max(1) as f64;
            all.push((format!("seconds/{name}"), each));
        }
        *self = StepTimer::new(self.rates);
        all
    }
}
