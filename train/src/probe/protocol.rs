//! Comparison of a probe's settings with the published protocol.

use super::config::{ProbeConfig, ProbeOptimizer};
use super::subject::Subject;

/// Name of the published metric, "Acc." in GigaTok's tables.
pub const GIGATOK_ACC: &str = "GigaTok Acc.";

/// ImageNet-1k in the published probes: training and validation images, classes, side of an image.
const IMAGENET: [(&str, usize); 4] = [
    ("training images", 1_281_167),
    ("validation images", 50_000),
    ("classes", 1000),
    ("pixels a side", 256),
];

/// Differences from the protocol of GigaTok's "Acc."; a score may have that name only without
/// differences. `data` is the number of training images, validation images and classes.
pub fn differences(
    subject: &Subject,
    config: &ProbeConfig,
    cached_views: Option<usize>,
    data: [usize; 3],
) -> Vec<String> {
    let mut found = subject.differences();
    let mut note = |differs: bool, text: String| {
        if differs {
            found.push(text);
        }
    };
    let official = ProbeConfig::default();
    note(!config.batch_norm, "no batch norm in the head".into());
    note(config.optimizer != ProbeOptimizer::Lars, "SGD instead of LARS".into());
    if let Some(views) = cached_views {
        note(true, format!("{views} fixed views of each training image instead of fresh crops"));
    }
    let pairs = [
        ("base learning rate", config.base_lr, official.base_lr),
        ("epochs", config.epochs as f64, official.epochs as f64),
        ("epochs of warm-up", config.warmup_epochs as f64, official.warmup_epochs as f64),
        ("images a batch", config.batch_size as f64, official.batch_size as f64),
        ("images a step", config.images_per_step() as f64, official.images_per_step() as f64),
    ];
    for (name, is, should) in pairs {
        note(is != should, format!("{is} {name} instead of {should}"));
    }
    let side = subject.image_size() as usize;
    for ((name, should), is) in IMAGENET.into_iter().zip(data.into_iter().chain([side])) {
        note(is != should, format!("{is} {name} instead of {should}"));
    }
    found
}
