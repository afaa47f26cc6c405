//! Images, and classes with theirs.

use eval::{AGREEMENT, ClassRow, Gallery, Score, Thumb};
use maud::{Markup, html};

use crate::commands::eval::report::{PageData, Report};

pub fn images(gallery: &Gallery) -> Markup {
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
pub fn agreement(report: &Report) -> Markup {
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

/// All classes with their figures.
pub fn classes(page: &PageData) -> Markup {
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
