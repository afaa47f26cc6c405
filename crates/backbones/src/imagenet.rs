//! Statistics of ImageNet's pixels, by which most networks normalise their input.

/// Mean of each channel, for values in [0, 1].
pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of each channel, for values in [0, 1].
pub const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];
