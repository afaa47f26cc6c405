//! Scores as a table.

use eval::{Score, grouped};

/// A line for each score.
pub fn table(scores: &[Score]) -> String {
    let labels: Vec<String> = scores.iter().map(Score::label).collect();
    let width = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    let lines = scores.iter().zip(&labels).map(|(v, label)| {
        let mut line = format!("{label:<width$}  {:>12}", number(v));
        if let Some([low, high]) = v.interval {
            line.push_str(&format!("  95 % in {low:.4} to {high:.4}"));
        }
        if let Some(std) = v.std {
            line.push_str(&format!("  ± {std:.4}"));
        }
        let mark = if v.comparable { "" } else { "  (not comparable)" };
        format!("{line}  {}{mark}", sizes(v))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A score as it is shown.
pub fn number(value: &Score) -> String {
    match value.value {
        None => "infinite".into(),
        Some(v) if v != 0.0 && v.abs() < 1e-2 => format!("{v:.4e}"),
        Some(v) => format!("{v:.4}"),
    }
}

/// `1,120 images` or `1,120 against 50,000`.
pub fn sizes(value: &Score) -> String {
    match value.reference {
        Some(n) => format!("{} against {}", grouped(value.samples), grouped(n)),
        None => format!("{} images", grouped(value.samples)),
    }
}
