//! Classifier-free guidance scales as pure functions of the step.
//!
//! GigaTok `autoregressive/models/generate.py`. The published numbers depend on these properties of
//! that code, which are kept (each has a test of its name):
//!
//! * **The first code is sampled at full scale**, whatever the schedule: the prefill ignores it.
//!   (The paper calls the first 18% of `step` unguided.)
//! * **The ratio starts at 1/n** with n = codes - 1, because the first code is not counted; it ends
//!   at 1.
//! * **Unguided steps run at 1.0001**, and the ramps carry +1e-4: the official code tests `c > 1`
//!   and its doubled batch needs both halves. The halves are mixed at 1.0001 rather than the
//!   conditional one taken.
//! * **The interval counts decode steps from 0 and includes its end**: with interval k, codes
//!   1..=k+1 are guided and later ones are sampled from the conditional logits; it never applies to
//!   the first code.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Offset of the scale above 1 in unguided steps of a window schedule, and of the ramps.
const KEEP_ALIVE: f64 = 1e-4;

/// Default start of `step`'s guided window (GigaTok `sample_c2i_cfg_search.py`).
pub const STEP_START: f64 = 0.18;
/// Default start of `rectangular`'s window.
pub const RECTANGULAR_START: f64 = 0.05;
/// Default end of `rectangular`'s window.
pub const RECTANGULAR_END: f64 = 1.0;

/// Guidance scale along the sequence. The ratio `r` runs from 1/n to 1, `s` is the full scale.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuidanceSchedule {
    /// `s` throughout.
    Constant,
    /// `1 + (s-1) r + 1e-4`.
    Linear,
    /// `1 + (s-1)(1-r) + 1e-4`: falling.
    LinearRe,
    /// Rises to `s` at the middle and falls again, + 1e-4.
    Triangular,
    /// `s` inside the window, both ends included, 1.0001 outside.
    Rectangular {
        /// Ratio of the first guided step.
        start: f64,
        /// Ratio of the last guided step.
        end: f64,
    },
    /// 1.0001 before `start`, `s` from there on.
    Step {
        /// Ratio of the first guided step.
        start: f64,
    },
    /// `1 + (s-1) (1 + cos(π r)) / 2`: falling. The official function crashes (missing import);
    /// this is its formula.
    Cosine,
    /// `1 + (s-1) σ(12 (r - 1/2))`: rising, S-shaped. The official code accepts the name and has
    /// no formula; the slope is ours, chosen so that the ends come within 0.3% of 1 and `s`.
    Sigmoid,
}

impl GuidanceSchedule {
    /// Names of all schedules, the values of `--cfg-schedule`.
    pub const NAMES: &'static [&'static str] = settings::GUIDANCE_SCHEDULES;

    /// The schedule `name`, with the bounds of its window if it has one.
    ///
    /// # Errors
    /// Returns an error if the name is unknown, or a bound is given that the schedule does not
    /// have.
    pub fn named(name: &str, start: Option<f64>, end: Option<f64>) -> Result<Self> {
        use GuidanceSchedule as S;
        let schedule = match name {
            "constant" => S::Constant,
            "linear" => S::Linear,
            "linear_re" => S::LinearRe,
            "triangular" => S::Triangular,
            "rectangular" => S::Rectangular {
                start: start.unwrap_or(RECTANGULAR_START),
                end: end.unwrap_or(RECTANGULAR_END),
            },
            "step" => S::Step { start: start.unwrap_or(STEP_START) },
            "cosine" => S::Cosine,
            "sigmoid" => S::Sigmoid,
            _ => return Err(Error::UnknownSchedule { given: name.into(), known: Self::NAMES }),
        };
        let (found_start, found_end) = schedule.window();
        for (what, given, found) in [("cfg_start", start, found_start), ("cfg_end", end, found_end)] {
            if given.is_some() && found.is_none() {
                return Err(Error::NoWindow { what, schedule: schedule.name() });
            }
        }
        Ok(schedule)
    }

    /// Name of the schedule.
    pub fn name(self) -> &'static str {
        use GuidanceSchedule as S;
        match self {
            S::Constant => "constant",
            S::Linear => "linear",
            S::LinearRe => "linear_re",
            S::Triangular => "triangular",
            S::Rectangular { .. } => "rectangular",
            S::Step { .. } => "step",
            S::Cosine => "cosine",
            S::Sigmoid => "sigmoid",
        }
    }

    /// Start and end of the window, if the schedule has them.
    pub fn window(self) -> (Option<f64>, Option<f64>) {
        match self {
            GuidanceSchedule::Rectangular { start, end } => (Some(start), Some(end)),
            GuidanceSchedule::Step { start } => (Some(start), None),
            _ => (None, None),
        }
    }

    /// Scale at ratio `r` of the decode steps, for full scale `s`.
    pub fn scale(self, r: f64, s: f64) -> f64 {
        let ramp = |share: f64| 1.0 + (s - 1.0) * share + KEEP_ALIVE;
        let window = |inside: bool| if inside { s } else { 1.0 + KEEP_ALIVE };
        match self {
            GuidanceSchedule::Constant => s,
            GuidanceSchedule::Linear => ramp(r),
            GuidanceSchedule::LinearRe => ramp(1.0 - r),
            GuidanceSchedule::Triangular if r < 0.5 => ramp(r / 0.5),
            GuidanceSchedule::Triangular => ramp((1.0 - r) / 0.5),
            GuidanceSchedule::Rectangular { start, end } => window(start <= r && r <= end),
            // The official function does not change a scale of exactly 1.
            GuidanceSchedule::Step { start } => window(r >= start || s == 1.0),
            GuidanceSchedule::Cosine => 1.0 + (s - 1.0) * 0.5 * (1.0 + (std::f64::consts::PI * r).cos()),
            GuidanceSchedule::Sigmoid => 1.0 + (s - 1.0) / (1.0 + (-12.0 * (r - 0.5)).exp()),
        }
    }
}

/// Classifier-free guidance: logits become `uncond + (cond - uncond) · c` if c > 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    /// Full scale. 1 or less disables guidance, and the null condition is not computed.
    pub scale: f64,
    /// Schedule along the sequence.
    pub schedule: GuidanceSchedule,
    /// Last guided decode step (the first is 0 and samples the second code). `None` or a negative
    /// number, as in the published scripts: all.
    pub interval: Option<i64>,
}

impl Guidance {
    /// No guidance: samples of the conditional model.
    pub fn none() -> Self {
        Self::constant(1.0)
    }

    /// The same scale at every step.
    pub fn constant(scale: f64) -> Self {
        Guidance { scale, schedule: GuidanceSchedule::Constant, interval: None }
    }

    /// Whether the null condition must be computed too.
    pub fn active(&self) -> bool {
        self.scale > 1.0
    }

    /// Scale for code number `step`, from 0, of `steps` codes. 1 or less means the conditional
    /// logits unchanged.
    pub fn at(&self, step: usize, steps: usize) -> f64 {
        if !self.active() || step == 0 {
            return self.scale; // the prefill ignores schedule and interval
        }
        let decode_step = step as i64 - 1;
        if self.interval.is_some_and(|k| k >= 0 && decode_step > k) {
            return 1.0;
        }
        let r = step as f64 / (steps - 1) as f64; // (i + 1) / n with i = step - 1, n = steps - 1
        self.schedule.scale(r, self.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [GuidanceSchedule; 8] = [
        GuidanceSchedule::Constant,
        GuidanceSchedule::Linear,
        GuidanceSchedule::LinearRe,
        GuidanceSchedule::Triangular,
        GuidanceSchedule::Rectangular { start: 0.2, end: 0.7 },
        GuidanceSchedule::Step { start: 0.18 },
        GuidanceSchedule::Cosine,
        GuidanceSchedule::Sigmoid,
    ];

    fn guidance(schedule: GuidanceSchedule) -> Guidance {
        Guidance { scale: 3.0, schedule, interval: None }
    }

    #[track_caller]
    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "found {found}, expected {expected}");
    }

    #[test]
    fn the_first_code_is_sampled_at_full_scale_whatever_the_schedule() {
        for s in ALL {
            close(guidance(s).at(0, 256), 3.0);
        }
    }

    #[test]
    fn the_ratio_starts_at_one_over_n_and_ends_at_one() {
        close(guidance(GuidanceSchedule::Linear).at(1, 256), 1.0 + 2.0 / 255.0 + 1e-4);
        close(guidance(GuidanceSchedule::Linear).at(255, 256), 3.0 + 1e-4);
    }

    #[test]
    fn unguided_steps_run_at_1_0001() {
        let step = guidance(GuidanceSchedule::Step { start: 0.18 });
        assert!((1..=45).all(|i| step.at(i, 256) == 1.0001));
        // With start 0.18 and 255 decode steps, decode step i = 45 is the first guided one.
        assert!((46..256).all(|i| step.at(i, 256) == 3.0));
        let window = guidance(GuidanceSchedule::Rectangular { start: 0.2, end: 0.7 });
        let guided: Vec<usize> = (1..101).filter(|&i| window.at(i, 101) == 3.0).collect();
        assert_eq!((guided[0], guided[guided.len() - 1], guided.len()), (20, 70, 51));
        close(window.at(71, 101), 1.0001);
    }

    #[test]
    fn ramps_carry_one_ten_thousandth_and_meet_their_ends() {
        close(GuidanceSchedule::LinearRe.scale(1.0, 3.0), 1.0001);
        close(GuidanceSchedule::LinearRe.scale(0.25, 3.0), 2.5001);
        close(GuidanceSchedule::Triangular.scale(0.25, 3.0), 2.0001);
        close(GuidanceSchedule::Triangular.scale(0.5, 3.0), 3.0001);
        close(GuidanceSchedule::Triangular.scale(1.0, 3.0), 1.0001);
    }

    #[test]
    fn cosine_and_sigmoid_work_here() {
        close(GuidanceSchedule::Cosine.scale(0.0, 3.0), 3.0);
        close(GuidanceSchedule::Cosine.scale(0.5, 3.0), 2.0);
        close(GuidanceSchedule::Cosine.scale(1.0, 3.0), 1.0);
        close(GuidanceSchedule::Sigmoid.scale(0.5, 3.0), 2.0);
        assert!((GuidanceSchedule::Sigmoid.scale(0.0, 3.0) - 1.0).abs() < 0.01);
        assert!((GuidanceSchedule::Sigmoid.scale(1.0, 3.0) - 3.0).abs() < 0.01);
    }

    #[test]
    fn the_interval_counts_decode_steps_from_0_and_includes_its_end() {
        let g = Guidance { interval: Some(5), ..guidance(GuidanceSchedule::Constant) };
        let guided: Vec<usize> = (0..64).filter(|&i| g.at(i, 64) > 1.0).collect();
        assert_eq!(guided, [0, 1, 2, 3, 4, 5, 6]);
        let off = Guidance { interval: Some(-1), ..g };
        assert!((0..64).all(|i| off.at(i, 64) == 3.0));
    }

    #[test]
    fn all_variants_have_their_names() {
        let error = serde_json::from_str::<GuidanceSchedule>("\"?\"").unwrap_err().to_string();
        let variants: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert_eq!(variants, GuidanceSchedule::NAMES, "{error}");
        for &name in GuidanceSchedule::NAMES {
            assert_eq!(GuidanceSchedule::named(name, None, None).unwrap().name(), name);
        }
        assert_eq!(ALL.map(GuidanceSchedule::name).as_slice(), GuidanceSchedule::NAMES);
    }

    #[test]
    fn names_round_trip_and_windows_are_refused_where_there_is_none() {
        for s in ALL {
            let (start, end) = s.window();
            assert_eq!(GuidanceSchedule::named(s.name(), start, end).unwrap(), s);
        }
        assert!(GuidanceSchedule::named("constant", Some(0.1), None).is_err());
        assert!(GuidanceSchedule::named("step", None, Some(0.1)).is_err());
        assert!(GuidanceSchedule::named("stp", None, None).is_err());
    }
}
