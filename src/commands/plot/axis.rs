//! Units and numbers of axes.

use cli::plot::Axis;

use super::curves::Panel;

/// The horizontal axis in a unit that suits its length.
pub struct XScale {
    /// Length of the unit.
    pub unit: f64,
    /// Its name.
    pub label: &'static str,
}

impl XScale {
    /// For the points of a panel.
    pub fn new(axis: Axis, panel: &Panel) -> XScale {
        let last =
            panel.curves.iter().flat_map(|c| c.points.iter().flatten()).map(|p| p.0).fold(0.0, f64::max);
        let (unit, label) = match (axis, last) {
            (Axis::Steps, _) => (1.0, "step"),
            (Axis::Samples, _) => (1.0, "images seen"),
            (Axis::Time, s) if s < 300.0 => (1.0, "seconds"),
            (Axis::Time, s) if s < 18_000.0 => (60.0, "minutes"),
            (Axis::Time, _) => (3600.0, "hours"),
        };
        XScale { unit, label }
    }
}

/// A number on an axis: `1.2k`, `3M`, `0.05`, `2e-5`.
pub fn number(v: f64) -> String {
    let trimmed = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    match v.abs() {
        0.0 => "0".into(),
        a if a < 1e-3 => format!("{v:.1e}"),
        a if a < 1.0 => trimmed(format!("{v:.4}")),
        a if a < 100.0 => trimmed(format!("{v:.2}")),
        a if a < 1e4 => trimmed(format!("{v:.1}")),
        a if a < 1e6 => format!("{}k", trimmed(format!("{:.1}", v / 1e3))),
        a if a < 1e9 => format!("{}M", trimmed(format!("{:.2}", v / 1e6))),
        _ => format!("{v:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (v, text) in [
            (0.0, "0"),
            (0.05, "0.05"),
            (20.0, "20"),
            (1500.0, "1500"),
            (25_000.0, "25k"),
            (2e-5, "2.0e-5"),
            (1.5e6, "1.5M"),
        ] {
            assert_eq!(number(v), text);
        }
    }
}
