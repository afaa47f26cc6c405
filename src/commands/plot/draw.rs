//! Panels → one SVG.

use anyhow::{Result, anyhow};
use cli::plot::PlotArgs;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::axis::{XScale, number};
use super::curves::{Panel, Run};
use super::points::{Stretch, prepare, range};

/// Okabe and Ito's colours, which most colour-blind readers can distinguish; black is for the axes.
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

/// Position of each run's name: left edge and top, in rows as wide as the image.
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

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw the curves: {error}")
}
