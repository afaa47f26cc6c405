//! Resolved sampling settings.

use settings::SamplingSettings;
use tch::Tensor;

use crate::error::{Error, Result};
use crate::filter::{self, Filter, KernelFilters, RowFilters};
use crate::guidance::{Guidance, GuidanceSchedule};

/// Configuration of sampling. The default samples the model's own distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingConfig {
    /// Logits are divided by this, at least 1e-5.
    pub temperature: f64,
    /// Filters, in the order in which they are applied.
    pub filters: Vec<Filter>,
    /// Classifier-free guidance.
    pub guidance: Guidance,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        SamplingConfig { temperature: 1.0, filters: vec![], guidance: Guidance::none() }
    }
}

impl SamplingConfig {
    /// The configuration for `settings`; absent ones default to [`SamplingSettings::published`].
    ///
    /// # Errors
    /// Returns an error if a setting is out of its range, or if a schedule is unknown or has no
    /// such window.
    pub fn from_settings(settings: SamplingSettings) -> Result<Self> {
        let s = settings.or(SamplingSettings::published());
        check("top_k", s.top_k.unwrap_or(0) as f64, "0 or more", |k| k >= 0.0)?;
        let interval = s.cfg_interval.unwrap_or(-1) as f64;
        check("cfg_interval", interval, "-1 for all steps, or 0 or more", |k| k >= -1.0)?;
        let name = s.cfg_schedule.as_deref().unwrap_or("constant");
        let filters = [
            s.top_k.filter(|&k| k > 0).map(Filter::TopK),
            s.top_p.filter(|&p| p != 1.0).map(Filter::TopP),
            s.min_p.filter(|&p| p != 0.0).map(Filter::MinP),
            s.typical_p.filter(|&p| p != 1.0).map(Filter::TypicalP),
        ];
        let config = SamplingConfig {
            temperature: s.temperature.unwrap_or(1.0),
            filters: filters.into_iter().flatten().collect(),
            guidance: Guidance {
                scale: s.cfg.unwrap_or(1.0),
                schedule: GuidanceSchedule::named(name, s.cfg_start, s.cfg_end)?,
                interval: s.cfg_interval.filter(|&k| k >= 0),
            },
        };
        config.validate()?;
        Ok(config)
    }

    /// (B, V) fp32 logits → logits divided by the temperature, with the entries removed by the
    /// filters at -inf.
    pub fn filtered(&self, logits: &Tensor) -> Tensor {
        filter::apply(logits, self.temperature, &self.filters)
    }

    /// Temperature and filters for rows on the CPU; `None` if a filter has no such form.
    pub(crate) fn row_filters(&self) -> Option<RowFilters> {
        RowFilters::new(self.temperature, &self.filters)
    }

    /// Temperature and filters for the GPU's sampling kernel; `None` if it does not support them.
    pub(crate) fn kernel_filters(&self) -> Option<KernelFilters> {
        KernelFilters::new(self.temperature, &self.filters)
    }

    /// Whether the most probable code is taken, without random numbers.
    pub(crate) fn is_greedy(&self) -> bool {
        self.filters.contains(&Filter::TopK(1))
    }

    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// Returns an error that names a setting out of its range.
    pub fn validate(&self) -> Result<()> {
        let unit = 0.0..=1.0;
        let (start, end) = self.guidance.schedule.window();
        let single = |x: f64| x >= 0.0 && (x as f32).is_finite();
        check("cfg", self.guidance.scale, "0 or more, and finite in single precision", single)?;
        check("temperature", self.temperature, "0 or more", |x| x >= 0.0 && x.is_finite())?;
        let share = |what, value| check(what, value, "from 0 to 1", |x| unit.contains(&x));
        for filter in &self.filters {
            match *filter {
                Filter::TopK(_) => {} // any number: 0 or less is all
                Filter::TopP(p) => share("top_p", p)?,
                Filter::MinP(p) => share("min_p", p)?,
                Filter::TypicalP(p) => share("typical_p", p)?,
            }
        }
        share("cfg_start", start.unwrap_or(0.0))?;
        share("cfg_end", end.unwrap_or(0.0))?;
        if let (Some(start), Some(end)) = (start, end) {
            check("cfg_start", start, "at most cfg_end", |x| x <= end)?;
        }
        Ok(())
    }

    /// The same as options of the command line, complete.
    pub fn settings(&self) -> SamplingSettings {
        let (cfg_start, cfg_end) = self.guidance.schedule.window();
        let (mut top_k, mut top_p, mut min_p, mut typical_p) = (0, 1.0, 0.0, None);
        for filter in &self.filters {
            match *filter {
                Filter::TopK(k) => top_k = k,
                Filter::TopP(p) => top_p = p,
                Filter::MinP(p) => min_p = p,
                Filter::TypicalP(p) => typical_p = Some(p),
            }
        }
        SamplingSettings {
            cfg: Some(self.guidance.scale),
            cfg_schedule: Some(self.guidance.schedule.name().into()),
            cfg_start,
            cfg_end,
            cfg_interval: Some(self.guidance.interval.unwrap_or(-1)),
            temperature: Some(self.temperature),
            top_k: Some(top_k),
            top_p: Some(top_p),
            min_p: Some(min_p),
            typical_p,
        }
    }
}

fn check(what: &'static str, found: f64, expected: &'static str, ok: impl Fn(f64) -> bool) -> Result<()> {
    if ok(found) { Ok(()) } else { Err(Error::Setting { what, found, expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_round_trip_through_the_typed_configuration() {
        let s = SamplingSettings {
            cfg: Some(1.75),
            cfg_schedule: Some("step".into()),
            top_k: Some(40),
            typical_p: Some(0.9),
            ..Default::default()
        };
        let config = SamplingConfig::from_settings(s).unwrap();
        assert_eq!(config.guidance.schedule, GuidanceSchedule::Step { start: 0.18 });
        assert_eq!(SamplingConfig::from_settings(config.settings()).unwrap(), config);
    }

    #[test]
    fn a_schedule_of_ones_own_does_not_inherit_a_window() {
        let defaults = SamplingSettings {
            cfg_schedule: Some("step".into()),
            cfg_start: Some(0.3),
            ..Default::default()
        };
        let own = SamplingSettings { cfg_schedule: Some("constant".into()), ..Default::default() };
        let config = SamplingConfig::from_settings(own.or(defaults.clone())).unwrap();
        assert_eq!(config.guidance.schedule, GuidanceSchedule::Constant);
        let later = SamplingSettings { cfg_start: Some(0.5), ..Default::default() };
        let config = SamplingConfig::from_settings(later.or(defaults)).unwrap();
        assert_eq!(config.guidance.schedule, GuidanceSchedule::Step { start: 0.5 });
    }

    #[test]
    fn meaningless_numbers_are_refused_by_name() {
        for (s, name) in [
            (SamplingSettings { top_p: Some(1.5), ..Default::default() }, "top_p"),
            (SamplingSettings { typical_p: Some(-0.1), ..Default::default() }, "typical_p"),
            (SamplingSettings { temperature: Some(-1.0), ..Default::default() }, "temperature"),
            (SamplingSettings { top_k: Some(-5), ..Default::default() }, "top_k"),
            (SamplingSettings { cfg_interval: Some(-2), ..Default::default() }, "cfg_interval"),
            (SamplingSettings { cfg: Some(f64::NAN), ..Default::default() }, "cfg"),
            (SamplingSettings { cfg: Some(1e308), ..Default::default() }, "cfg"),
        ] {
            let message = SamplingConfig::from_settings(s).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }
}
