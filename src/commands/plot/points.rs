//! Points of curves as they are drawn: smoothed, thinned.

use cli::plot::PlotArgs;

use super::axis::XScale;
use super::curves::Curve;

/// A gapless part of a curve as it is drawn; `smooth` is empty without smoothing.
pub struct Stretch {
    /// Points.
    pub raw: Vec<(f64, f64)>,
    /// Smoothed points.
    pub smooth: Vec<(f64, f64)>,
}

pub fn prepare(curve: &Curve, args: &PlotArgs, scale: &XScale) -> Vec<Stretch> {
    let seen = |points: Vec<(f64, f64)>| {
        let points = points.into_iter().filter(|p| !args.log || p.1 > 0.0);
        let points = points.map(|(x, y)| (x / scale.unit, if args.log { y.log10() } else { y }));
        thin(points.collect())
    };
    let stretch = |points: &Vec<(f64, f64)>| Stretch {
        raw: seen(points.clone()),
        smooth: if args.smooth > 0.0 { seen(smooth(points, args.smooth)) } else { vec![] },
    };
    curve.points.iter().map(stretch).collect()
}

/// The lowest and the highest point of each of [`BUCKETS`] parts, in their order.
fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if points.len() <= 2 * BUCKETS {
        return points;
    }
    let ends = |part: &[(f64, f64)]| {
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (low, high) = (part.iter().min_by(by_value), part.iter().max_by(by_value));
        let mut both: Vec<(f64, f64)> = low.into_iter().chain(high).copied().collect();
        both.sort_by(|a, b| a.0.total_cmp(&b.0));
        both
    };
    points.chunks(points.len().div_ceil(BUCKETS)).flat_map(ends).collect()
}

/// From the least to the greatest with some room on both sides; never empty.
pub fn range(values: impl Iterator<Item = f64>, room: f64) -> std::ops::Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    match high - low {
        d if d > 0.0 => low - room * d..high + room * d,
        _ if low.is_finite() => low - low.abs().max(1.0) / 2.0..low + low.abs().max(1.0) / 2.0,
        _ => 0.0..1.0,
    }
}

/// A curve of more points than twice this is thinned; more could not be seen.
const BUCKETS: usize = 800;

/// An exponential moving average that starts unbiased, as TensorBoard's.
fn smooth(points: &[(f64, f64)], weight: f64) -> Vec<(f64, f64)> {
    let (mut sum, mut norm) = (0.0, 0.0);
    let step = |&(x, y): &(f64, f64)| {
        sum = sum * weight + (1.0 - weight) * y;
        norm = norm * weight + (1.0 - weight);
        (x, sum / norm)
    };
    points.iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_peaks() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (i as f64, (i % 7) as f64)).collect();
        points[54_321].1 = 99.0;
        let thinned = thin(points);
        assert!(thinned.len() <= 2 * BUCKETS && thinned.contains(&(54_321.0, 99.0)));
        assert!(thinned.windows(2).all(|w| w[0].0 <= w[1].0));
    }

    #[test]
    fn a_constant_curve_has_a_range() {
        assert_eq!(range([2.0, 2.0].into_iter(), 0.1), 1.0..3.0);
        assert_eq!(range(std::iter::empty(), 0.1), 0.0..1.0);
    }

    #[test]
    fn smoothing_starts_at_the_first_value_and_lags() {
        let s = smooth(&[(0.0, 2.0), (1.0, 4.0)], 0.5);
        assert_eq!(s[0].1, 2.0);
        assert!((s[1].1 - (0.25 * 2.0 + 0.5 * 4.0) / 0.75).abs() < 1e-12);
        assert_eq!(smooth(&[(0.0, 2.0), (1.0, 4.0)], 0.0)[1].1, 4.0);
    }
}
