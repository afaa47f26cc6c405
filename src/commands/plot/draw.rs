//! Panels → one SVG.

use anyhow::{Result, anyhow};
use cli::plot::{Axis, PlotArgs};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::curves::{Curve, Panel, Run, smooth};

/// Okabe and Ito's colours, which most colour-blind people tell apart; black is left to the axes.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
];
const PANEL: (u32, u32) = (460, 300);
const LEGEND_ROW: u32 = 22;
const MARGIN: u32 = 12;
/// A curve of more points than twice this is thinned; more could not be seen.
const BUCKETS: usize = 800;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The whole picture.
pub fn svg(panels: &[Panel], runs: &[Run], args: &PlotArgs) -> Result<String> {
    let columns = (1..=3).find(|c| c * c >= panels.len()).unwrap_or(3);
    let rows = panels.len().div_ceil(columns);
    let width = columns as u32 * PANEL.0;
    let legend = legend_places(runs, width);
    let legend_height = legend.last().map_or(0, |(_, y)| y + LEGEND_ROW);
    let mut svg = String::new();
    {
        let size = (width, legend_height + rows as u32 * PANEL.1);
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        let (top, rest) = area.split_vertically(legend_height);
        draw_legend(&top, runs, &legend)?;
        for (panel, place) in panels.iter().zip(rest.split_evenly((rows, columns))) {
            draw_panel(&place, panel, args)?;
        }
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

fn colour(run: usize) -> RGBColor {
    COLOURS[run % COLOURS.len()]
}

/// Where each run's name goes: left edge and top, in rows as wide as the picture.
fn legend_places(runs: &[Run], width: u32) -> Vec<(u32, u32)> {
    let (mut x, mut y) = (MARGIN, MARGIN);
    let place = |run: &Run| {
        let need = 44 + 8 * run.name.chars().count() as u32;
        if x + need > width && x > MARGIN {
            (x, y) = (MARGIN, y + LEGEND_ROW);
        }
        let here = (x, y);
        x += need;
        here
    };
    runs.iter().map(place).collect()
}

fn draw_legend(area: &Area<'_>, runs: &[Run], places: &[(u32, u32)]) -> Result<()> {
    for (i, (run, &(x, y))) in runs.iter().zip(places).enumerate() {
        let (x, y) = (x as i32, y as i32);
        let line = PathElement::new(vec![(x, y + 7), (x + 22, y + 7)], colour(i).stroke_width(3));
        area.draw(&line).map_err(failed)?;
        let style = ("sans-serif", 14).into_font().color(&BLACK);
        area.draw(&Text::new(run.name.clone(), (x + 28, y), style)).map_err(failed)?;
    }
    Ok(())
}

fn draw_panel(area: &Area<'_>, panel: &Panel, args: &PlotArgs) -> Result<()> {
    let scale = XScale::new(args.x, panel);
    let prepared: Vec<(usize, Vec<Stretch>)> =
        panel.curves.iter().map(|c| (c.run, prepare(c, args, &scale))).collect();
    let shown = || prepared.iter().flat_map(|(_, stretches)| stretches);
    let points = || shown().flat_map(|s| s.raw.iter().chain(&s.smooth));
    let x = range(points().map(|p| p.0), 0.0);
    let y = range(points().map(|p| p.1), 0.06);
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.term, ("sans-serif", 15))
        .margin(8)
        .margin_right(22) // half of the last number
        .x_label_area_size(36)
        .y_label_area_size(58)
        .build_cartesian_2d(x, y)
        .map_err(failed)?;
    let y_label = |v: &f64| number(if args.log { 10f64.powf(*v) } else { *v });
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .axis_style(BLACK.mix(0.5))
        .label_style(("sans-serif", 12))
        .x_desc(scale.label)
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|v| number(*v))
        .y_label_formatter(&y_label)
        .draw()
        .map_err(failed)?;
    let smoothed = args.smooth > 0.0;
    for (run, stretches) in &prepared {
        for Stretch { raw, smooth } in stretches {
            let faint = if smoothed { 0.25 } else { 1.0 };
            let width = if smoothed { 1 } else { 2 };
            let style = colour(*run).mix(faint).stroke_width(width);
            chart.draw_series(lines(raw, style)).map_err(failed)?;
            chart.draw_series(lines(smooth, colour(*run).stroke_width(2))).map_err(failed)?;
            if let [only] = raw[..] {
                chart.draw_series([Circle::new(only, 3, colour(*run).filled())]).map_err(failed)?;
            }
        }
    }
    Ok(())
}

fn lines<'a>(points: &[(f64, f64)], style: ShapeStyle) -> LineSeries<SVGBackend<'a>, (f64, f64)> {
    LineSeries::new(points.iter().copied(), style)
}

/// A gapless part of a curve as it is drawn; `smooth` is empty without smoothing.
struct Stretch {
    raw: Vec<(f64, f64)>,
    smooth: Vec<(f64, f64)>,
}

fn prepare(curve: &Curve, args: &PlotArgs, scale: &XScale) -> Vec<Stretch> {
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
fn range(values: impl Iterator<Item = f64>, room: f64) -> std::ops::Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    match high - low {
        d if d > 0.0 => low - room * d..high + room * d,
        _ if low.is_finite() => low - low.abs().max(1.0) / 2.0..low + low.abs().max(1.0) / 2.0,
        _ => 0.0..1.0,
    }
}

/// The horizontal axis in a unit that suits its length.
struct XScale {
    unit: f64,
    label: &'static str,
}

impl XScale {
    fn new(axis: Axis, panel: &Panel) -> XScale {
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
fn number(v: f64) -> String {
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

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw the curves: {error}")
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
}
