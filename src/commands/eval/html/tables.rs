//! Scores and settings.

use eval::Score;
use maud::{Markup, html};

use crate::commands::eval::report::{Report, number, sizes};

pub fn scores(values: &[Score]) -> Markup {
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

pub fn settings(report: &Report) -> Markup {
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
