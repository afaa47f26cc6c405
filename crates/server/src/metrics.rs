//! Counters and histograms for Prometheus.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use engine::{Status, Timing};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, prometheus_text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::models::Models;

type Labels<const N: usize> = [(&'static str, String); N];
type Times<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// Upper bounds of the buckets in seconds.
const SECONDS: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// Everything that `/metrics` tells.
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels<2>, Counter>,
    request_seconds: Times<1>,
    image_seconds: Times<2>,
    /// Open connections.
    pub connections: Gauge,
    /// Connections refused, since there were too many.
    pub connections_refused: Counter,
    /// Requests whose answer is not complete.
    pub in_flight: Gauge,
}

impl Metrics {
    /// All at zero; the models' own figures are asked for at each scrape.
    pub fn new(models: Arc<Models>) -> Self {
        let mut registry = Registry::with_prefix("gen");
        let requests = Family::default();
        let request_seconds: Times<1> = Family::new_with_constructor(seconds);
        let image_seconds: Times<2> = Family::new_with_constructor(seconds);
        let (connections, in_flight) = (Gauge::default(), Gauge::default());
        let connections_refused = Counter::default();
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the program", version);
        registry.register("requests", "Answered requests by route and status", requests.clone());
        let what = "Time from a request's head to the end of its answer, by route";
        registry.register("request_seconds", what, request_seconds.clone());
        let what = "Time of an image by model and phase: queued, sampling, decoding, encoding, and first_picture, \
                    from the request to its first partial or whole image";
        registry.register("image_seconds", what, image_seconds.clone());
        registry.register("connections", "Open connections", connections.clone());
        let what = "Connections refused for their number";
        registry.register("connections_refused", what, connections_refused.clone());
        registry.register("requests_in_flight", "Requests being answered", in_flight.clone());
        registry.register_collector(Box::new(OfModels(models)));
        Metrics {
            registry,
            requests,
            request_seconds,
            image_seconds,
            connections,
            connections_refused,
            in_flight,
        }
    }

    /// Counts a request. `status` is absent where the client left before the answer began.
    pub fn request(&self, route: &str, status: Option<u16>, time: Duration) {
        let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        self.requests.get_or_create(&[("route", route.to_owned()), ("status", status)]).inc();
        self.request_seconds.get_or_create(&[("route", route.to_owned())]).observe(time.as_secs_f64());
    }

    /// Counts a phase of an image.
    pub fn phase(&self, model: &str, phase: &str, time: Duration) {
        let labels = [("model", model.to_owned()), ("phase", phase.to_owned())];
        self.image_seconds.get_or_create(&labels).observe(time.as_secs_f64());
    }

    /// Counts the engine's phases of an image.
    pub fn image(&self, model: &str, timing: &Timing) {
        self.phase(model, "queued", timing.queued);
        self.phase(model, "sampling", timing.sampling);
        self.phase(model, "decoding", timing.decoding);
    }

    /// The text of a scrape.
    ///
    /// # Errors
    /// Returns an error if a figure cannot be written as text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Figures of the models' engines.
struct OfModels(Arc<Models>);

impl fmt::Debug for OfModels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OfModels")
    }
}

type Figure<T> = (&'static str, &'static str, fn(&Status) -> T);

const GAUGES: [Figure<f64>; 4] = [
    ("model_queued_images", "Images that wait for a slot.", |s| s.queued as f64),
    ("model_active_images", "Images in slots.", |s| s.active as f64),
    ("model_slots", "Slots: images drawn at a time.", |s| s.slots as f64),
    ("model_step_seconds", "Moving average of a decoding step's time.", |s| s.step_seconds),
];

const COUNTERS: [Figure<u64>; 6] = [
    ("model_steps", "Decoding steps.", |s| s.steps),
    ("model_rows", "Rows advanced by decoding steps, null rows included.", |s| s.rows_stepped),
    ("model_images", "Finished images.", |s| s.images),
    ("model_images_failed", "Images that failed.", |s| s.failed),
    ("model_images_cancelled", "Images whose client left.", |s| s.cancelled),
    ("model_requests_refused", "Requests that the engine did not take.", |s| s.refused),
];

impl Collector for OfModels {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let all: Vec<_> =
            self.0.all().iter().map(|m| ([("model", m.id.clone())], m.engine.status())).collect();
        for (name, help, figure) in GAUGES {
            let kind = ConstGauge::new(0.0).metric_type();
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for (labels, status) in &all {
                ConstGauge::new(figure(status)).encode(metric.encode_family(labels)?)?;
            }
        }
        for (name, help, figure) in COUNTERS {
            let kind = ConstCounter::new(0u64).metric_type();
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for (labels, status) in &all {
                ConstCounter::new(figure(status)).encode(metric.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}
