//! The Inception network of FID (Heusel et al., arXiv 1706.08500), Inception Score, sFID, precision
//! and recall: TensorFlow's "classify_image" graph of 2015-12-05 (Szegedy et al., arXiv
//! 1512.00567).
//!
//! Weights: `pt_inception-2015-12-05-6726825d.pth`, the port of pytorch-fid and torch-fidelity. It
//! is not torchvision's InceptionV3: average pools divide by the pixels inside the image, the last
//! block's pool is a max pool, there are 1008 classes, and nothing but the input path is between
//! image and network.
//!
//! B batch, C channels, H×W places. Every convolution is followed by a batch norm (inference, eps
//! 1e-3) and a ReLU.

use base::{Build, ImagesU8, Init, Scope, Vars};
use tch::{Device, Kind, Tensor};
use weights::KeyMap;

use crate::conv_bn::{ConvBn, channels_last};
use crate::extractor::INCEPTION;
use crate::inception_blocks::{Block, Pool, conv_bn};
use crate::random::conv_bn_range;
use crate::resize::{half_pixel_bilinear, pillow_bicubic_float, tf1_bilinear};
use crate::source::{Provenance, fill};
use crate::{FeatureExtractor, FeatureId, Features, InputPath, Result, WeightSource};

/// The side of the network's input.
const SIDE: i64 = 299;
/// Number of Mixed_6d's channels that sFID reads.
const SPATIAL_CHANNELS: i64 = 7;

/// Output for a batch, on its device.
#[derive(Debug)]
pub struct InceptionOutput {
    /// `pool_3`, (B, 2048).
    pub pool: Tensor,
    /// The first 7 channels of Mixed_6d's first branch, (B, 17·17·7) in TensorFlow's order: rows,
    /// columns, channels.
    pub spatial: Tensor,
    /// (B, 1008), without the class layer's bias: what the Inception Score reads.
    pub logits: Tensor,
}

/// The network.
#[derive(Debug)]
pub struct InceptionFid {
    stem: Vec<(&'static str, ConvBn)>,
    blocks: Vec<Block>,
    fc_weight: Tensor, // (1008, 2048)
    fc_bias: Tensor,   // (1008)
    device: Device,
}

impl InceptionFid {
    /// The input paths it is used with; the first is the usual one.
    pub const INPUT_PATHS: [InputPath; 3] = [InputPath::Tf, InputPath::Pf, InputPath::Clean];

    /// Variables under the names of the public file.
    pub fn new(p: &Scope) -> Self {
        let conv = |name: &'static str, inputs, outputs, kernel, stride, padding| {
            let size = [kernel, kernel];
            (name, conv_bn(&(p / name), inputs, outputs, size, stride, [padding, padding]))
        };
        let stem = vec![
            conv("Conv2d_1a_3x3", 3, 32, 3, 2, 0),
            conv("Conv2d_2a_3x3", 32, 32, 3, 1, 0),
            conv("Conv2d_2b_3x3", 32, 64, 3, 1, 1),
            conv("Conv2d_3b_1x1", 64, 80, 1, 1, 0),
            conv("Conv2d_4a_3x3", 80, 192, 3, 1, 0),
        ];
        let blocks = vec![
            Block::a(p, "Mixed_5b", 192, 32),
            Block::a(p, "Mixed_5c", 256, 64),
            Block::a(p, "Mixed_5d", 288, 64),
            Block::b(p, "Mixed_6a", 288),
            Block::c(p, "Mixed_6b", 128),
            Block::c(p, "Mixed_6c", 160),
            Block::c(p, "Mixed_6d", 160),
            Block::c(p, "Mixed_6e", 192),
            Block::d(p, "Mixed_7a"),
            Block::e(p, "Mixed_7b", 1280, false),
            Block::e(p, "Mixed_7c", 2048, true),
        ];
        let fc = p / "fc";
        let init = Init::torch_default(2048);
        InceptionFid {
            stem,
            blocks,
            fc_weight: fc.var("weight", &[1008, 2048], init),
            fc_bias: fc.var("bias", &[1008], init),
            device: p.vars().device(),
        }
    }

    /// Fills the network from its file, or at random, in fp32.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or its names or shapes are not exactly the
    /// public file's.
    pub fn open(from: &WeightSource, device: Device) -> Result<Self> {
        Ok(Self::open_named(from, device)?.0)
    }

    /// [`InceptionFid::open`] with the origin of the weights and whether they look like the public
    /// ones.
    fn open_named(from: &WeightSource, device: Device) -> Result<(Self, Provenance, bool)> {
        let vars = Vars::new(device, Kind::Float, Build::Empty);
        let net = Self::new(&vars.root());
        let provenance = fill(NAME, "inception-fid", &vars, from, &key_map(), random_range)?;
        let public = is_public(&vars);
        Ok((net, provenance, public))
    }

    /// 8-bit images of any size → (B, 3, 299, 299) fp32 on the network's device.
    ///
    /// # Errors
    /// Returns an error if the network has no such input path.
    pub fn prepare(&self, images: &ImagesU8, path: InputPath) -> Result<Tensor> {
        let x = images.tensor().to_device(self.device).to_kind(Kind::Float);
        let tensorflow = |x: Tensor| (x - 128.0) / 128.0;
        Ok(match path.among(&Self::INPUT_PATHS)? {
            InputPath::Pf => half_pixel_bilinear(&(x / 255.0), SIDE, SIDE) * 2.0 - 1.0,
            InputPath::Clean => tensorflow(pillow_bicubic_float(&x, SIDE, SIDE).clamp(0.0, 255.0)),
            _ => tensorflow(tf1_bilinear(&x, SIDE, SIDE)),
        })
    }

    /// (B, 3, 299, 299) as [`InceptionFid::prepare`] makes it → features.
    pub fn forward(&self, x: &Tensor) -> InceptionOutput {
        self.forward_visiting(x, |_, _| {})
    }

    /// [`InceptionFid::forward`] that shows `visit` each stage's name and output (B, C, H, W).
    pub fn forward_visiting(&self, x: &Tensor, mut visit: impl FnMut(&str, &Tensor)) -> InceptionOutput {
        tch::no_grad(|| {
            let mut x = channels_last(x);
            for (name, conv) in &self.stem {
                x = conv.forward(&x).relu_();
                visit(name, &x);
                let pool = match *name {
                    "Conv2d_2b_3x3" => "MaxPool_1",
                    "Conv2d_4a_3x3" => "MaxPool_2",
                    _ => continue,
                };
                x = Pool::MaxStride2.forward(&x);
                visit(pool, &x);
            }
            let mut spatial = None;
            for block in &self.blocks {
                x = block.forward(&x);
                visit(block.name(), &x);
                if block.name() == "Mixed_6d" {
                    // The first branch's 192 channels are the first of the block's.
                    let nhwc = x.narrow(1, 0, SPATIAL_CHANNELS).permute([0, 2, 3, 1]);
                    spatial = Some(nhwc.reshape([x.size()[0], -1]));
                }
            }
            let pool = x.mean_dim([2i64, 3].as_slice(), false, Kind::Float);
            let logits = pool.linear::<&Tensor>(&self.fc_weight, None);
            InceptionOutput { pool, spatial: spatial.unwrap_or_default(), logits }
        })
    }

    /// The class layer's bias, (1008), which [`InceptionOutput::logits`] leaves out.
    pub fn class_bias(&self) -> &Tensor {
        &self.fc_bias
    }
}

/// The network behind one input path.
#[derive(Debug)]
pub struct InceptionExtractor {
    net: InceptionFid,
    path: InputPath,
    id: FeatureId,
}

impl InceptionExtractor {
    /// Opens the weights; the id records whether they are the public network's.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is of another network, or the input path is
    /// not one of [`InceptionFid::INPUT_PATHS`].
    pub fn open(from: &WeightSource, path: InputPath, device: Device) -> Result<Self> {
        let path = path.among(&InceptionFid::INPUT_PATHS)?;
        let (net, provenance, public) = InceptionFid::open_named(from, device)?;
        let whose = match (provenance.comparable, public) {
            (true, _) => "the public 2015-12-05 network",
            (false, true) => "weights like the public 2015-12-05 network's, in another file",
            (false, false) => "other weights",
        };
        let id = FeatureId {
            network: format!("{INCEPTION} ({whose})"),
            weights_sha256: provenance.sha256,
            input_path: path.to_string(),
            layer: "pool_3".into(),
            comparable: provenance.comparable,
        };
        Ok(InceptionExtractor { net, path, id })
    }
}

impl FeatureExtractor for InceptionExtractor {
    fn id(&self) -> &FeatureId {
        &self.id
    }

    fn extract(&self, images: &ImagesU8) -> Result<Features> {
        let out = self.net.forward(&self.net.prepare(images, self.path)?);
        let cpu = |t: Tensor| t.to_device(Device::Cpu);
        let (logits, spatial) = (Some(cpu(out.logits)), Some(cpu(out.spatial)));
        Ok(Features { pool: cpu(out.pool), logits, spatial })
    }
}

const NAME: &str = "the Inception network of FID";

fn key_map() -> KeyMap {
    let because = "counts training steps";
    KeyMap::identity().drop("*.bn.num_batches_tracked", because).drop("*.*.bn.num_batches_tracked", because)
}

/// Sums of tensors of the public file, in float64.
const FINGERPRINTS: [(&str, f64); 9] = [
    ("Conv2d_1a_3x3.conv.weight", -0.409_264_755),
    ("Conv2d_1a_3x3.bn.running_mean", -1.035_948_71),
    ("Conv2d_2a_3x3.bn.running_mean", -16.406_803_7),
    ("Mixed_5c.branch5x5_2.conv.weight", -45.148_499_8),
    ("Mixed_5b.branch1x1.bn.bias", 120.040_960),
    ("Mixed_6b.branch1x1.bn.bias", -36.756_723_4),
    ("Mixed_6d.branch7x7_1.bn.running_var", 57.284_316_5),
    ("Mixed_6e.branch_pool.bn.running_var", 39.419_924_5),
    ("Mixed_7a.branch3x3_1.bn.bias", -154.571_182),
];

/// Whether these look like the public network's weights, however they were stored.
fn is_public(vars: &Vars) -> bool {
    FINGERPRINTS.iter().all(|(name, expected)| {
        vars.get(name).is_some_and(|t| {
            let sum = t.sum(Kind::Double).double_value(&[]);
            (sum - expected).abs() <= 1e-6 * expected.abs().max(1.0)
        })
    })
}

/// Range of random weights.
fn random_range(name: &str, shape: &[i64]) -> (f64, f64) {
    match name {
        "fc.weight" => (-0.25, 0.25),
        "fc.bias" => (-0.5, 0.5),
        _ => conv_bn_range(name, shape),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use weights::{Origin, TensorInfo, TensorSource};

    use super::*;
    use crate::random::RandomWeights;

    #[test]
    fn variables_are_those_of_the_public_file() {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
        InceptionFid::new(&vars.root());
        // 94 convolutions, of whose six tensors one counts training steps.
        assert_eq!(vars.all().len(), 94 * 5 + 2);
        let shape = |name: &str| vars.get(name).unwrap_or_else(|| panic!("no `{name}`")).size();
        assert_eq!(shape("Conv2d_1a_3x3.conv.weight"), [32, 3, 3, 3]);
        assert_eq!(shape("Mixed_6b.branch7x7dbl_4.conv.weight"), [128, 128, 7, 1]);
        assert_eq!(shape("Mixed_7c.branch3x3dbl_3b.bn.running_var"), [384]);
        for (name, _) in FINGERPRINTS {
            shape(name);
        }
    }

    /// The public file also has a counter in each batch norm.
    struct WithCounters(RandomWeights);

    const COUNTERS: [&str; 2] =
        ["Conv2d_1a_3x3.bn.num_batches_tracked", "Mixed_7c.branch1x1.bn.num_batches_tracked"];

    impl TensorSource for WithCounters {
        fn names(&self) -> Vec<&str> {
            COUNTERS.into_iter().chain(self.0.names()).collect()
        }
        fn info(&self, name: &str) -> Option<TensorInfo> {
            self.0.info(name)
        }
        fn bytes(&self, name: &str) -> weights::Result<Cow<'_, [u8]>> {
            self.0.bytes(name)
        }
        fn origin(&self) -> &Origin {
            self.0.origin()
        }
    }

    #[test]
    fn the_public_files_counters_are_left_out() {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Empty);
        InceptionFid::new(&vars.root());
        let source = WithCounters(RandomWeights::new(&vars, 1, random_range));
        let report = weights::load(&vars, &source, &key_map()).unwrap();
        assert_eq!((report.applied.len(), report.dropped.len()), (472, 2));
    }

    #[test]
    fn an_average_pool_leaves_ones_alone() {
        let ones = Tensor::ones([1, 2, 5, 5], (Kind::Float, Device::Cpu));
        assert_eq!(Pool::Average.forward(&ones), ones);
    }

    #[test]
    fn foreign_weights_and_paths_are_told() {
        let random: WeightSource = "random:1".parse().unwrap();
        let net = InceptionExtractor::open(&random, InputPath::Pf, Device::Cpu).unwrap();
        assert_eq!(net.id().network, "inception-fid (other weights)");
        assert!(!net.id().comparable);
        let e = InceptionExtractor::open(&random, InputPath::Clip, Device::Cpu).unwrap_err().to_string();
        assert!(e.contains("`clip`") && e.contains("tf, pf, clean"), "{e}");
    }
}
