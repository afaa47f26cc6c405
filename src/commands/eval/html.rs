//! The report as one page: scores, settings, images and plots, with nothing to be loaded from
//! elsewhere.

use anyhow::Result;
use eval::{AGREEMENT, ClassRow, Distribution, Gallery, Score, Thumb};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::plots;
use super::report::{PageData, Report, number, sizes};

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

fn scores(values: &[Score]) -> Markup {
    html! {
        table {
            tr { th { "score" } th { "value" } th { "better" } th { "images" } th { "variant" } th { "network" } }
            @for v in values {
                tr {
                    td { (v.label()) }
                    td.n {
                        b { (number(v)) }
                        @if let Some(std) = v.std { " ± " (format!("{std:.4}")) }
                        @if let Some([low, high]) = v.interval {
                            br; small { "95 %: " (format!("{low:.4} to {high:.4}")) }
                        }
                    }
                    td { (v.better) }
                    td { (sizes(v)) }
                    td {
                        (v.variant)
                        @if let Some(note) = &v.note { br; small { (note) } }
                        @if !v.comparable { br; b { "not comparable" } }
                    }
                    td {
                        @match &v.network {
                            Some(id) => { (id.network) br; small { "input " (id.input_path) ", " (id.layer) } }
                            None => { small { "none" } }
                        }
                    }
                }
            }
        }
    }
}

fn settings(report: &Report) -> Markup {
    let first = report.values.first();
    let mut networks: Vec<_> = report.values.iter().filter_map(|v| v.network.as_ref()).collect();
    networks.dedup_by(|a, b| a == b);
    html! {
        table {
            tr { td { "images" } td { (report.samples.images) @if let Some(d) = &report.samples.digest { ", digest " code { (d) } } } }
            @if !report.samples.made_by.is_null() {
                tr { td { "made by" } td { code { (report.samples.made_by) } } }
            }
            @if let Some(r) = &report.reference {
                tr { td { "reference" } td { code { (r.path.display()) } ", " (r.kind) ", " (r.images) " images read" } }
                @if let Some(sha) = &r.sha256 { tr { td { "reference SHA-256" } td { code { (sha) } } } }
            }
            @for id in networks {
                tr { td { (id.network) } td { "weights " code { (id.weights_sha256) } ", input " (id.input_path) ", " (id.layer) } }
            }
            @if let Some(v) = first {
                tr { td { "resize" } td { (v.resize) } }
                tr { td { "image conversion" } td { (v.image_conversion) } }
            }
            @for (what, n) in &report.converted { tr { td { "not 8-bit RGB" } td { (n) ": " (what) } } }
        }
    }
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

fn images(gallery: &Gallery) -> Markup {
    html! {
        @if !gallery.sheet.is_empty() {
            h2 { "Images" }
            p {
                @if gallery.sheet.iter().any(|t| t.original.is_some()) { "Originals left, what is judged right. " }
                small { "The first images, as small JPEGs." }
            }
            (thumbs(&gallery.sheet))
        }
    }
}

fn thumbs(thumbs: &[Thumb]) -> Markup {
    let uri = |jpeg: &str| format!("data:image/jpeg;base64,{jpeg}");
    html! {
        div.thumbs {
            @for t in thumbs {
                span title=(t.name) {
                    @if let Some(original) = &t.original { img alt="" src=(uri(original)); }
                    img alt=(t.name) src=(uri(&t.image));
                }
            }
        }
    }
}

/// The classes that a classifier recognises best and worst.
fn agreement(report: &Report) -> Markup {
    let (rows, gallery) = (&report.class_agreement, &report.page.gallery);
    let shown = (rows.len() / 2).min(BEST_AND_WORST);
    let best = rows.iter().take(shown.max(1));
    let worst = rows.iter().rev().take(shown);
    let network = report.values.iter().find(|v| v.name == AGREEMENT).map(Score::label).unwrap_or_default();
    html! {
        @if !rows.is_empty() {
            h2 { "Classes by " (network) }
            p { small { "Named right: the classifier's first guess among the classes that are judged. Taken for: its first guess of all." } }
            (part_of_classes("Best", best, gallery))
            @if shown > 0 { (part_of_classes("Worst", worst, gallery)) }
        }
    }
}

/// Classes shown on either end.
const BEST_AND_WORST: usize = 10;

fn part_of_classes<'a>(title: &str, rows: impl Iterator<Item = &'a ClassRow>, gallery: &Gallery) -> Markup {
    html! {
        h3 { (title) }
        @for row in rows {
            p { b { (row.class) " " (row.name) } " " small { (row.summary()) } }
            @if let Some(shown) = gallery.classes.get(&row.class) { (thumbs(shown)) }
        }
    }
}

fn classes(page: &PageData) -> Markup {
    let name = |class: &i64| match page.class_names.get(class) {
        Some(name) => format!("{class} {name}"),
        None => class.to_string(),
    };
    html! {
        @if !page.classes.is_empty() {
            h2 { "By class" }
            @for (place, (class, figures)) in page.classes.iter().enumerate() {
                h3 { (name(class)) " " small { (figures.join(", ")) } }
                @let pictures = page.gallery.classes.get(class).filter(|_| place < WITH_PICTURES);
                @if let Some(shown) = pictures { (thumbs(shown)) }
            }
        }
    }
}

/// Classes of the list of all that are shown with pictures.
const WITH_PICTURES: usize = 100;
