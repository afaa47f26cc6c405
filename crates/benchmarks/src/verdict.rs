//! Comparison of measured and published values.

use serde::Serialize;

use crate::quantity::Quantity;
use crate::schema::Expected;

/// One figure, measured and published.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// The quantity.
    pub metric: Quantity,
    /// The measured value; none if the run does not measure it.
    pub measured: Option<f64>,
    /// The published value.
    pub published: f64,
    /// Largest allowed difference.
    pub tolerance: Option<f64>,
    /// Origin of the tolerance.
    #[serde(rename = "because")] // key of `report.json`
    pub reason: String,
    /// The verdict.
    pub verdict: Verdict,
}

/// Result of comparing a measured value with the published one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Within the tolerance.
    Within,
    /// Outside it.
    Outside,
    /// Not the same quantity, or not the same number of images.
    NotComparable,
    /// Not measured.
    Missing,
}

impl Verdict {
    /// Text for display.
    pub fn shown(self) -> &'static str {
        match self {
            Verdict::Within => "within",
            Verdict::Outside => "OUTSIDE",
            Verdict::NotComparable => "not comparable",
            Verdict::Missing => "not measured",
        }
    }
}

/// Compares measured with published values; all measured ones are [`Verdict::NotComparable`] if the
/// run is not `comparable`.
pub fn judge(
    expected: &[Expected],
    measured: impl Fn(Quantity) -> Option<f64>,
    comparable: bool,
) -> Vec<Figure> {
    let one = |e: &Expected| {
        let found = measured(e.metric);
        let verdict = match (found, e.tolerance) {
            (None, _) => Verdict::Missing,
            (Some(_), None) => Verdict::NotComparable,
            (Some(_), _) if !comparable => Verdict::NotComparable,
            // NaN counts as outside; rounding does not cost the last digit of a published figure.
            (Some(m), Some(t)) if (m - e.value).abs() <= t * (1.0 + 1e-9) => Verdict::Within,
            _ => Verdict::Outside,
        };
        Figure {
            metric: e.metric,
            measured: found,
            published: e.value,
            tolerance: e.tolerance,
            reason: e.reason.clone(),
            verdict,
        }
    };
    expected.iter().map(one).collect()
}

/// Whether every figure that can be judged was measured and is within its tolerance.
pub fn agrees(figures: &[Figure]) -> bool {
    figures.iter().all(|f| match f.verdict {
        Verdict::Within | Verdict::NotComparable => true,
        Verdict::Outside => false,
        Verdict::Missing => f.tolerance.is_none(),
    })
}

/// Text table with a heading.
pub fn table(figures: &[Figure]) -> String {
    let mut lines =
        vec![format!("{:<16} {:>10} {:>10} {:>10}  verdict", "metric", "measured", "published", "tolerance")];
    for f in figures {
        let number = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{v:.4}"));
        let (measured, tolerance) = (number(f.measured), number(f.tolerance));
        lines.push(format!(
            "{:<16} {measured:>10} {:>10} {tolerance:>10}  {}",
            f.metric.title(),
            f.published,
            f.verdict.shown()
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use settings::Metric;

    use super::*;
    use crate::quantity::GFID;

    fn expect(metric: Quantity, value: f64, tolerance: Option<f64>) -> Expected {
        Expected { metric, value, tolerance, reason: "test".into() }
    }

    #[test]
    fn verdicts() {
        let all = [
            expect(GFID, 3.15, Some(0.05)),
            expect(Quantity::Score(Metric::Is), 224.0, Some(1.0)),
            expect(Quantity::Score(Metric::Recall), 0.55, None),
            expect(Quantity::Score(Metric::Sfid), 7.0, Some(0.1)),
        ];
        let measured = |gfid: f64| {
            move |q: Quantity| match q {
                GFID => Some(gfid),
                Quantity::Score(Metric::Is) => Some(224.5),
                Quantity::Score(Metric::Recall) => Some(0.9),
                _ => None,
            }
        };
        let verdicts = |f: &[Figure]| f.iter().map(|f| f.verdict).collect::<Vec<_>>();
        use Verdict::{Missing, NotComparable, Outside, Within};
        let figures = judge(&all, measured(3.20), true);
        assert_eq!(verdicts(&figures), [Within, Within, NotComparable, Missing]);
        assert!(!agrees(&figures) && agrees(&figures[..3]), "what should be measured must be");
        let figures = judge(&all, measured(3.21), true);
        assert_eq!(figures[0].verdict, Outside);
        assert!(!agrees(&figures[..3]));
        assert_eq!(judge(&all, measured(f64::NAN), true)[0].verdict, Outside);
        let dry = judge(&all[..3], measured(99.0), false);
        assert!(agrees(&dry) && dry.iter().all(|f| f.verdict == NotComparable));
    }
}
