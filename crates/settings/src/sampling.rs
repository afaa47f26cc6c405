//! Sampling: guidance, filters, randomness.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// Names of the guidance schedules, the values of `--cfg-schedule`.
pub const GUIDANCE_SCHEDULES: &[&str] =
    &["constant", "linear", "linear_re", "triangular", "rectangular", "step", "cosine", "sigmoid"];

fn schedule_help() -> String {
    let (last, others) = GUIDANCE_SCHEDULES.split_last().unwrap_or((&"", &[]));
    format!("Guidance schedule: {} or {last} [published: constant]", others.join(", "))
}

/// Sampling settings in the words of the command line, each optional. `sampling.yaml`
/// beside a model holds them, an image remembers them, and benchmarks state them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Args)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingSettings {
    /// Classifier-free guidance scale; 1 disables guidance [published: 2.0; prompts: 7.5]
    #[arg(long, value_name = "SCALE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cfg: Option<f64>,

    /// Guidance schedule, one of [`GUIDANCE_SCHEDULES`]
    #[arg(long, value_name = "NAME", help = schedule_help())]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cfg_schedule: Option<String>,

    /// Start of the guided window of step (0.18) or rectangular (0.05), as a fraction of the steps
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cfg_start: Option<f64>,

    /// End of the guided window of rectangular (1.0)
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cfg_end: Option<f64>,

    /// Last guided step after the first code; -1 for all [published: -1]
    #[arg(long, value_name = "STEP", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cfg_interval: Option<i64>,

    /// Softmax temperature [published: 1]
    #[arg(long, value_name = "T")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,

    /// Sample from the K most probable codes; 0 for all, 1 for greedy decoding [published: 0;
    /// prompts: 1000]
    #[arg(long, value_name = "K", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(0..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i64>,

    /// Sample from the smallest set of codes whose probability exceeds P; 1 for all [published: 1]
    #[arg(long, value_name = "P")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,

    /// Sample from codes at least P times as probable as the best; 0 for all [published: 0]
    #[arg(long, value_name = "P")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,

    /// Sample from the most typical codes, whose information content is closest to the entropy, up
    /// to a probability of P; 1 for all [published: 1]
    #[arg(long, value_name = "P")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub typical_p: Option<f64>,
}

impl SamplingSettings {
    /// GigaTok's published settings (`sample_c2i_cfg_search.py`): guidance 2.0, constant, no
    /// filters.
    pub fn published() -> Self {
        SamplingSettings {
            cfg: Some(2.0),
            cfg_schedule: Some("constant".into()),
            cfg_interval: Some(-1),
            temperature: Some(1.0),
            top_k: Some(0),
            top_p: Some(1.0),
            min_p: Some(0.0),
            typical_p: Some(1.0),
            ..Default::default()
        }
    }

    /// LlamaGen's published settings for text to image, where they differ from
    /// [`SamplingSettings::published`].
    pub fn published_for_prompts() -> Self {
        SamplingSettings { cfg: Some(7.5), top_k: Some(1000), ..Default::default() }
    }

    /// These settings, and `defaults` where they are silent. A given schedule brings its own
    /// window: the defaults' window belongs to the defaults' schedule.
    pub fn or(self, defaults: Self) -> Self {
        let own_schedule = self.cfg_schedule.is_some();
        let window = |own: Option<f64>, default: Option<f64>| own.or(default.filter(|_| !own_schedule));
        SamplingSettings {
            cfg: self.cfg.or(defaults.cfg),
            cfg_start: window(self.cfg_start, defaults.cfg_start),
            cfg_end: window(self.cfg_end, defaults.cfg_end),
            cfg_schedule: self.cfg_schedule.or(defaults.cfg_schedule),
            cfg_interval: self.cfg_interval.or(defaults.cfg_interval),
            temperature: self.temperature.or(defaults.temperature),
            top_k: self.top_k.or(defaults.top_k),
            top_p: self.top_p.or(defaults.top_p),
            min_p: self.min_p.or(defaults.min_p),
            typical_p: self.typical_p.or(defaults.typical_p),
        }
    }
}

/// Source of a run's random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Rng {
    /// One stream per image, from (seed, index): the same image at any batch size
    #[default]
    Image,
    /// Like image, with one Gumbel number per candidate code (Gumbel-max); used by --speculative
    Gumbel,
    /// libtorch's global generator, one call per step for the whole batch, like the official
    /// scripts
    Torch,
}
