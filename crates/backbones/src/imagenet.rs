//! Normalisation of ImageNet's images.

/// Mean of ImageNet's channels on [0, 1].
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];

/// Standard deviation of ImageNet's channels on [0, 1].
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
