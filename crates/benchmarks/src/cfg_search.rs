//! The hill climbing by which GigaTok finds guidance scales (`sample_c2i_cfg_search.py`).

use serde::{Deserialize, Serialize};

/// Distance of neighbouring scales.
const STEP: f64 = 0.25;
/// No guidance, the lowest scale.
const LOWEST: f64 = 1.0;

/// A scale and the FID it gave.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Guidance scale.
    pub cfg: f64,
    /// Its FID.
    pub fid: f64,
}

/// The best scale tried so far.
pub fn best(trials: &[Trial]) -> Option<Trial> {
    trials.iter().copied().min_by(|a, b| a.fid.total_cmp(&b.fid))
}

/// Returns the scale to try next: `start`, then the best one's upper neighbour, then its lower one,
/// then no guidance, since the published values are the minimum of both.
/// `None` when all these have been tried.
pub fn next(trials: &[Trial], start: f64) -> Option<f64> {
    let Some(best) = best(trials) else { return Some(start) };
    let untried = |cfg: &f64| *cfg >= LOWEST && trials.iter().all(|t| (t.cfg - cfg).abs() > STEP / 2.0);
    [best.cfg + STEP, best.cfg - STEP, LOWEST].into_iter().find(untried)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The scales tried, in order, where `fid` is what they give.
    fn path(start: f64, fid: impl Fn(f64) -> f64) -> Vec<f64> {
        let mut trials = vec![];
        while let Some(cfg) = next(&trials, start) {
            trials.push(Trial { cfg, fid: fid(cfg) });
            assert!(trials.len() < 50);
        }
        trials.into_iter().map(|t| t.cfg).collect()
    }

    #[test]
    fn it_climbs_up_or_down_and_stops_when_both_neighbours_are_worse() {
        let valley = |at: f64| move |cfg: f64| 3.0 + (cfg - at).abs();
        assert_eq!(path(1.75, valley(2.25)), [1.75, 2.0, 2.25, 2.5, 1.0]);
        assert_eq!(path(2.5, valley(2.0)), [2.5, 2.75, 2.25, 2.0, 1.75, 1.0]);
    }

    #[test]
    fn it_does_not_go_below_no_guidance() {
        assert_eq!(path(1.25, |cfg| cfg), [1.25, 1.5, 1.0]);
        // No guidance is tried even if the climb ends elsewhere; if it is best, the climb continues
        // there.
        let two_valleys = |cfg: f64| if cfg < 1.1 { 1.0 } else { 2.0 + (cfg - 2.0).abs() };
        assert_eq!(path(2.0, two_valleys), [2.0, 2.25, 1.75, 1.0, 1.25]);
    }
}
