//! Names of scores: FID and its like belong to Inception's features, and other networks' scores say
//! whose they are.

use backbones::FeatureId;

/// A name that belongs to Inception, what the same score is called over other features, and that in
/// words.
const OVER_OTHERS: [(&str, &str, &str); 5] = [
    ("fid", "frechet_distance", "Fréchet distance"),
    ("sfid", "frechet_distance_of_places", "Fréchet distance of places"),
    ("is", "classifier_score", "classifier score"),
    ("is_fidelity", "classifier_score_fidelity", "classifier score, ten shuffled chunks"),
    ("kid", "kernel_distance", "kernel distance"),
];
/// Scores whose names say nothing of a network, and which are of Inception's features where nothing
/// is said.
const OF_ANY: [&str; 8] =
    ["precision", "recall", "density", "coverage", "precision_prdc", "recall_prdc", "mmd2", "mmd2_biased"];

/// The name of a score over the features of `network`.
pub fn name<'a>(of_inception: &'a str, network: Option<&FeatureId>) -> &'a str {
    let other = OVER_OTHERS.iter().find(|(theirs, ..)| *theirs == of_inception);
    match (other, network) {
        (Some((_, general, _)), Some(id)) if !id.is_inception() => general,
        _ => of_inception,
    }
}

/// Display name of a score, with its network if the name does not imply it.
pub fn label(of_inception: &str, network: Option<&FeatureId>) -> String {
    let name = name(of_inception, network);
    let Some(id) = network else { return name.to_owned() };
    let words = OVER_OTHERS.iter().find(|(_, general, _)| *general == name).map(|(.., words)| *words);
    let says_nothing =
        OF_ANY.contains(&name) && !id.is_inception() || name.contains(AGREEMENT) || name == PERCEPTUAL;
    match words {
        Some(words) => format!("{words} ({})", id.network),
        None if says_nothing => format!("{name} ({})", id.network),
        None => name.to_owned(),
    }
}

/// The distance of pairs by a network's features.
pub const PERCEPTUAL: &str = "perceptual";
/// Class agreement in all its forms.
pub const AGREEMENT: &str = "class_agreement";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scores_of_inception_are_called_fid() {
        let id = |network: &str| FeatureId {
            network: network.into(),
            weights_sha256: String::new(),
            input_path: String::new(),
            layer: String::new(),
            comparable: true,
        };
        let (own, other) = (id("inception-fid (other weights)"), id("efficientnet-lite0"));
        let labels = |network| ["fid", "kid", "recall", "fdd", "class_agreement"].map(|n| label(n, network));
        assert_eq!(labels(None), ["fid", "kid", "recall", "fdd", "class_agreement"]);
        assert_eq!(labels(Some(&own))[..4], ["fid", "kid", "recall", "fdd"]);
        assert_eq!(
            labels(Some(&other)),
            [
                "Fréchet distance (efficientnet-lite0)",
                "kernel distance (efficientnet-lite0)",
                "recall (efficientnet-lite0)",
                "fdd",
                "class_agreement (efficientnet-lite0)"
            ]
        );
        assert_eq!((name("fid", Some(&own)), name("fid", Some(&other))), ("fid", "frechet_distance"));
    }
}
