//! Metrics and kinds of references as arguments.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use settings::{Metric, ReferenceKind};

/// Reads the name of a metric; the help lists all of them.
pub fn metric() -> impl TypedValueParser<Value = Metric> {
    let value = |metric: &Metric| PossibleValue::new(metric.name()).help(metric.help());
    PossibleValuesParser::new(Metric::ALL.iter().map(value)).try_map(|name| name.parse::<Metric>())
}

/// Reads which published number a score is to stand beside.
pub fn protocol() -> impl TypedValueParser<Value = ReferenceKind> {
    kinds(vec![
        (ReferenceKind::Rfid, "Reconstructions against the validation images"),
        (ReferenceKind::Gfid, "Generated images against statistics of the training set"),
    ])
}

/// Reads what a file of statistics is for.
pub fn stats_kind() -> impl TypedValueParser<Value = ReferenceKind> {
    kinds(vec![
        (ReferenceKind::Rfid, "Validation images, for reconstructions"),
        (ReferenceKind::Gfid, "A training set, for generated images"),
        (ReferenceKind::Other, "Anything else"),
    ])
}

fn kinds(choices: Vec<(ReferenceKind, &'static str)>) -> impl TypedValueParser<Value = ReferenceKind> {
    let value = |(kind, help): (ReferenceKind, &'static str)| PossibleValue::new(kind.name()).help(help);
    PossibleValuesParser::new(choices.into_iter().map(value)).try_map(|name| name.parse::<ReferenceKind>())
}
