//! The report as one page: scores, settings, images and plots, with nothing to be loaded from
//! elsewhere.

mod pictures;
mod tables;

use anyhow::Result;
use eval::Distribution;
use maud::{DOCTYPE, PreEscaped, html};

use self::pictures::{agreement, classes, images};
use self::tables::{scores, settings};
use super::plots;
use super::report::Report;

const STYLE: &str = "
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 0.6em 0 1.4em }
th, td { text-align: left; padding: 0.25em 0.9em 0.25em 0; border-bottom: 1px solid #ddd; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
code { font-size: 0.86em; overflow-wrap: anywhere }
.thumbs { display: flex; flex-wrap: wrap; gap: 4px }
.thumbs span { display: inline-flex }
.thumbs img { display: block; width: 84px; height: 84px; object-fit: contain; background: #eee }
.warning { background: #fff4d6; padding: 0.4em 0.8em; margin: 0.3em 0 }
.plots svg { margin-right: 1em }
small { color: #666 }
";

/// The page.
pub fn page(report: &Report) -> Result<String> {
    let plots = plots(report)?;
    let body = html! {
        h1 { "Evaluation" }
        p { (report.program) @if let Some(path) = &report.samples.path { ", images of " code { (path.display()) } } }
        @for warning in &report.warnings { p.warning { (warning) } }
        @if !report.skipped.is_empty() {
            p.warning { (report.skipped.len()) " images could not be read and are in no score." }
        }
        h2 { "Scores" }
        (scores(&report.values))
        h2 { "Settings" }
        (settings(report))
        @if !plots.is_empty() {
            h2 { "Plots" }
            div.plots { @for plot in &plots { (PreEscaped(plot)) } }
        }
        (images(&report.page.gallery)) (agreement(report)) (classes(&report.page))
        @if !report.skipped.is_empty() {
            h2 { "Left out" }
            ul { @for s in &report.skipped { li { code { (s.input) } ": " (s.error) } } }
        }
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { "Evaluation" }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    Ok(page.into_string())
}

fn plots(report: &Report) -> Result<Vec<String>> {
    let mut all = vec![];
    for distribution in &report.page.distributions {
        match distribution {
            Distribution::Images { name, unit, histogram } => {
                all.extend(plots::spread(name, unit, histogram)?);
            }
            Distribution::Codes(counts) => all.push(plots::codebook(counts)?),
        }
    }
    for (name, values) in report.series.iter().filter(|(_, values)| values.len() > 1) {
        let part = if name == "kid" || name.starts_with("kernel") { "subset" } else { "chunk" };
        all.push(plots::series(&format!("{name} by {part}"), part, values)?);
    }
    Ok(all)
}
