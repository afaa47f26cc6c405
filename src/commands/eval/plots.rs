//! Plots of a report, as SVG.

use std::ops::Range;

use anyhow::{Result, anyhow};
use eval::Histogram;
use plotters::prelude::*;

const SIZE: (u32, u32) = (360, 220);
const INK: RGBColor = RGBColor(52, 101, 164);

/// Bars of equal width over `x`.
struct Bars<'a> {
    title: &'a str,
    x_label: &'a str,
    y_label: &'a str,
    x: Range<f64>,
    heights: Vec<f64>,
}

impl Bars<'_> {
    fn draw(&self) -> Result<String> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            area.fill(&WHITE).map_err(failed)?;
            let top = self.heights.iter().copied().fold(0.0, f64::max).max(1e-12) * 1.05;
            let mut chart = ChartBuilder::on(&area)
                .caption(self.title, ("sans-serif", 14))
                .margin(6)
                .margin_right(16) // half of the last number
                .x_label_area_size(30)
                .y_label_area_size(52)
                .build_cartesian_2d(self.x.clone(), 0.0..top)
                .map_err(failed)?;
            chart
                .configure_mesh()
                .disable_x_mesh()
                .x_desc(self.x_label)
                .y_desc(self.y_label)
                .x_labels(6)
                .y_labels(5)
                .x_label_formatter(&tick)
                .y_label_formatter(&tick)
                .draw()
                .map_err(failed)?;
            let width = (self.x.end - self.x.start) / self.heights.len().max(1) as f64;
            let bar = |(i, &h): (usize, &f64)| {
                let left = self.x.start + i as f64 * width;
                Rectangle::new([(left, 0.0), (left + 0.9 * width, h)], INK.filled())
            };
            chart.draw_series(self.heights.iter().enumerate().map(bar)).map_err(failed)?;
            area.present().map_err(failed)?;
        }
        Ok(svg)
    }
}

/// A number without zeros behind its point.
fn tick(value: &f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.to_owned() }
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw a plot: {error}")
}

/// Distribution of the scores of single images: the bins between the first and the last that hold
/// something.
pub fn spread(name: &str, unit: &str, histogram: &Histogram) -> Result<Option<String>> {
    let Some(first) = histogram.counts.iter().position(|&n| n > 0) else { return Ok(None) };
    let last = histogram.counts.iter().rposition(|&n| n > 0).unwrap_or(first);
    let width = (histogram.high - histogram.low) / histogram.counts.len() as f64;
    let bars = Bars {
        title: &format!("{name} of single images"),
        x_label: unit,
        y_label: "images",
        x: histogram.low + first as f64 * width..histogram.low + (last + 1) as f64 * width,
        heights: histogram.counts[first..=last].iter().map(|&n| n as f64).collect(),
    };
    Ok(Some(bars.draw()?))
}

/// Scores of chunks or subsets, one bar each.
pub fn series(title: &str, x_label: &str, values: &[f64]) -> Result<String> {
    let x = 0.0..values.len() as f64;
    Bars { title, x_label, y_label: "score", x, heights: values.to_vec() }.draw()
}

/// Shares of the codes, the most frequent first.
pub fn codebook(counts: &[u64]) -> Result<String> {
    const BARS: usize = 120;
    let mut sorted = counts.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let total = sorted.iter().sum::<u64>().max(1) as f64;
    let mean = |chunk: &[u64]| chunk.iter().sum::<u64>() as f64 / chunk.len() as f64 / total;
    let heights: Vec<f64> = sorted.chunks(sorted.len().div_ceil(BARS).max(1)).map(mean).collect();
    let x = 0.0..sorted.len() as f64;
    let title = "How often each code occurs";
    Bars { title, x_label: "codes, most frequent first", y_label: "share", x, heights }.draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_are_svg_and_empty_ones_are_left_out() {
        let svg = series("KID", "subset", &[0.1, 0.2, 0.15]).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("KID"), "{svg}");
        assert_eq!(
            [0.0, -0.000_01, 1000.0, 0.0005, 0.25].map(|v| tick(&v)),
            ["0", "0", "1000", "0.0005", "0.25"]
        );
        assert_eq!(svg.matches("<rect").count(), 4, "the ground and three bars");
        let empty = Histogram { low: 0.0, high: 1.0, counts: vec![0; 4] };
        assert!(spread("psnr", "dB", &empty).unwrap().is_none());
        assert!(codebook(&[0; 4]).unwrap().contains("<svg"));
    }
}
