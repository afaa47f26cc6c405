//! Frozen, pretrained networks, exact to the code that published numbers were made with: losses in
//! training and features in evaluation are then the same arithmetic. Each file opens with its paper
//! and the public weight file it reads. This crate trains nothing and computes no metric.

mod alexnet;
mod clip;
mod conv_bn;
mod dino_vit;
mod dinov2;
mod efficientnet_lite;
mod error;
mod extractor;
mod feature_cnn;
pub mod files;
mod imagenet;
mod inception_blocks;
mod inception_fid;
mod input_path;
mod lpips;
mod network;
mod perceptual;
mod public_file;
mod random;
pub mod resize;
mod source;
mod squeezenet;
pub mod text_encoder;
mod vgg16;

pub use alexnet::AlexNet;
pub use clip::{Clip, ClipConfig, ClipExtractor, ClipModel, ClipTokenizer, TowerConfig};
pub use dino_vit::{DinoVit, DinoVitConfig};
pub use dinov2::{
    DinoConfig, DinoExtractor, DinoSize, DinoTeacher, DinoTokens, DinoV2, FeedForward, Positions,
};
pub use efficientnet_lite::{
    EfficientNetExtractor, EfficientNetLite, EfficientNetOutput, EfficientNetSize, EfficientNetTrunk,
};
pub use error::{Error, Result};
pub use extractor::{FeatureExtractor, FeatureId, Features};
pub use feature_cnn::{FeatureCnn, FeatureCnnConfig};
pub use imagenet::{IMAGENET_MEAN, IMAGENET_STD};
pub use inception_fid::{InceptionExtractor, InceptionFid, InceptionOutput};
pub use input_path::InputPath;
pub use lpips::{HeadDropout, Lpips, LpipsNet};
pub use network::Network;
pub use perceptual::{PerceptualConfig, PerceptualDistance, efficientnet_weights, enlarged, unit_distance};
pub use source::WeightSource;
pub use squeezenet::SqueezeNet;
pub use vgg16::Vgg16;
