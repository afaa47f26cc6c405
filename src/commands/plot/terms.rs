//! The terms of logs that are drawn.

use base::hint::nearest;
use cli::plot::Axis;

use super::curves::{Panel, Run};
use crate::error::UserError;

/// The terms asked for, or all losses and validation figures, each with the curves of all runs.
pub fn panels(runs: &[Run], asked: &[String], axis: Axis) -> anyhow::Result<Vec<Panel>> {
    let mut known: Vec<&str> = vec![];
    for term in runs.iter().flat_map(Run::terms) {
        if !known.contains(&term) {
            known.push(term);
        }
    }
    let terms = if asked.is_empty() { usual(&known) } else { chosen(&known, asked)? };
    let panel = |term: &str| {
        let curves = runs.iter().enumerate().filter_map(|(i, r)| r.curve(i, term, axis).transpose());
        Ok(Panel { term: term.to_owned(), curves: curves.collect::<anyhow::Result<_>>()? })
    };
    let panels: Vec<Panel> = terms.into_iter().map(panel).collect::<anyhow::Result<_>>()?;
    let panels: Vec<Panel> =
        panels.into_iter().filter(|p| p.curves.iter().any(|c| !c.points.is_empty())).collect();
    match panels.is_empty() {
        true => Err(UserError::new("none of these terms has a finite value in these runs").into()),
        false => Ok(panels),
    }
}

/// All terms except time, rates and counts.
fn usual<'a>(known: &[&'a str]) -> Vec<&'a str> {
    const OTHERS: [&str; 11] = [
        "step",
        "seconds",
        "samples",
        "images_per_second",
        "codes_per_second",
        "mfu",
        "data_wait",
        "lr",
        "grad_norm",
        "left_out",
        "skipped_steps",
    ];
    let last = |t: &str| t.rsplit('/').next().unwrap_or(t).to_owned();
    known
        .iter()
        .copied()
        .filter(|t| !t.starts_with("seconds/") && !OTHERS.contains(&last(t).as_str()))
        .collect()
}

fn chosen<'a>(known: &[&'a str], asked: &[String]) -> anyhow::Result<Vec<&'a str>> {
    let mut terms = vec![];
    for pattern in asked {
        let before = terms.len();
        for term in known.iter().filter(|t| matches(pattern, t)) {
            if !terms.contains(term) {
                terms.push(*term);
            }
        }
        if terms.len() == before && !known.iter().any(|t| matches(pattern, t)) {
            let error = UserError::new(format!("no run has a term `{pattern}`"));
            let near = nearest(pattern, known.iter().copied(), 3);
            let list = if near.is_empty() { known.to_vec() } else { near };
            return Err(error.hint(format!("there are: {}", list.join(", "))).into());
        }
    }
    Ok(terms)
}

/// Whether a name is what a pattern with `*` describes.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_anchored_and_stars_are_wide() {
        for (pattern, name, is) in [
            ("loss", "loss", true),
            ("loss", "losses", false),
            ("validation/*", "validation/psnr", true),
            ("*/lr", "discriminator/lr", true),
            ("*/lr", "lr", false),
            ("v*/p*r", "validation/psnr", true),
            ("*", "anything", true),
        ] {
            assert_eq!(matches(pattern, name), is, "{pattern} {name}");
        }
    }
}
