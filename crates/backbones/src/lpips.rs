//! LPIPS v0.1 (Zhang et al., arXiv 1801.03924): a learned perceptual distance of two images.
//!
//! Features of a frozen classifier, divided at each place by their length, squared difference,
//! weighted channel by channel, averaged over places, summed over taps. Weights are two public
//! files: the classifier's (see the trunks) and the heads', `lin{k}.model.1.weight` (1, C, 1, 1) in
//! `vgg.pth`, `alex.pth` or `squeeze.pth` of v0.1.
//!
//! B batch, C channels, H×W places, K taps

use std::path::Path;

use base::{Build, Images, Init, Scope, Vars, random};
use tch::{Device, Kind, Tensor};
use weights::{KeyMap, TensorSource};

use crate::random::fan_in;
use crate::source::{Provenance, fill, fill_from};
use crate::{AlexNet, Error, FeatureId, Result, SqueezeNet, Vgg16, WeightSource};

/// The classifier whose features are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LpipsNet {
    /// VGG16: "LPIPS" in tokenizer papers, and the training loss.
    Vgg,
    /// AlexNet: the authors' default for judging.
    Alex,
    /// SqueezeNet 1.1.
    Squeeze,
}

impl LpipsNet {
    /// All variants.
    pub const ALL: [LpipsNet; 3] = [LpipsNet::Vgg, LpipsNet::Alex, LpipsNet::Squeeze];

    /// `lpips-vgg`, `lpips-alex`, `lpips-squeeze`.
    pub fn name(self) -> &'static str {
        match self {
            LpipsNet::Vgg => "lpips-vgg",
            LpipsNet::Alex => "lpips-alex",
            LpipsNet::Squeeze => "lpips-squeeze",
        }
    }

    /// The public file of its classifier, among [`crate::files::FILES`]; the heads' is called as
    /// the network is.
    pub fn trunk_file(self) -> &'static str {
        match self {
            LpipsNet::Vgg => "vgg16",
            LpipsNet::Alex => "alexnet",
            LpipsNet::Squeeze => "squeezenet1.1",
        }
    }

    /// Channels of the taps.
    pub fn channels(self) -> &'static [i64] {
        match self {
            LpipsNet::Vgg => &Vgg16::CHANNELS,
            LpipsNet::Alex => &AlexNet::CHANNELS,
            LpipsNet::Squeeze => &SqueezeNet::CHANNELS,
        }
    }

    /// The smallest side that leaves a pixel at the last tap.
    pub fn min_side(self) -> i64 {
        match self {
            LpipsNet::Vgg => 16,
            LpipsNet::Alex => 31,
            LpipsNet::Squeeze => 17,
        }
    }
}

/// Whether values of the squared-difference maps are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeadDropout {
    /// Nothing is: judging.
    #[default]
    Off,
    /// Each with probability 1/2, the others doubled. GigaTok and LlamaGen train so: their training
    /// script puts the whole loss module into training mode, and with it the dropout in front of
    /// each head.
    AsTrained,
}

#[derive(Debug)]
enum Trunk {
    Vgg(Vgg16),
    Alex(AlexNet),
    Squeeze(SqueezeNet),
}

impl Trunk {
    fn taps(&self, x: &Tensor) -> Vec<Tensor> {
        match self {
            Trunk::Vgg(net) => net.taps(x),
            Trunk::Alex(net) => net.taps(x),
            Trunk::Squeeze(net) => net.taps(x),
        }
    }
}

/// The distance, with its weights.
#[derive(Debug)]
pub struct Lpips {
    net: LpipsNet,
    trunk: Trunk,
    heads: Vec<Tensor>, // each (1, C, 1, 1)
    shift: Tensor,      // (1, 3, 1, 1)
    scale: Tensor,      // (1, 3, 1, 1)
}

/// Per channel, for images in [-1, 1].
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

impl Lpips {
    /// Variables `features.*` under `trunk` and `lin{k}.model.1.weight` under `heads`; they may be
    /// one scope.
    pub fn new(trunk: &Scope, heads: &Scope, net: LpipsNet) -> Self {
        let head = |(k, &channels): (usize, &i64)| {
            let p = heads / format!("lin{k}") / "model" / 1;
            p.var("weight", &[1, channels, 1, 1], Init::torch_default(channels))
        };
        let colour = |c: [f32; 3]| Tensor::from_slice(&c).view([1, 3, 1, 1]).to_device(trunk.vars().device());
        Lpips {
            net,
            trunk: match net {
                LpipsNet::Vgg => Trunk::Vgg(Vgg16::new(trunk)),
                LpipsNet::Alex => Trunk::Alex(AlexNet::new(trunk)),
                LpipsNet::Squeeze => Trunk::Squeeze(SqueezeNet::new(trunk)),
            },
            heads: net.channels().iter().enumerate().map(head).collect(),
            shift: colour(SHIFT),
            scale: colour(SCALE),
        }
    }

    /// Fills trunk and heads from the two public files, in fp32.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, or its tensors are not exactly what is looked
    /// for.
    pub fn open(trunk: &Path, heads: &Path, net: LpipsNet, device: Device) -> Result<Self> {
        let (trunk, heads) = (WeightSource::File(trunk.into()), WeightSource::File(heads.into()));
        Ok(Self::open_with_id(&trunk, &heads, net, device)?.0)
    }

    /// [`Lpips::open`] from files or at random, with the identity of the values.
    ///
    /// # Errors
    /// Returns an error as [`Lpips::open`] does.
    pub fn open_with_id(
        trunk: &WeightSource,
        heads: &WeightSource,
        net: LpipsNet,
        device: Device,
    ) -> Result<(Self, FeatureId)> {
        let (lpips, trunk_vars, head_vars) = Self::empty(net, device);
        let t = fill(trunk_name(net), net.trunk_file(), &trunk_vars, trunk, &trunk_map(), random_range)?;
        let h = fill(HEADS, net.name(), &head_vars, heads, &heads_map(), random_range)?;
        let id = lpips.id(&t, &h);
        Ok((lpips, id))
    }

    /// Fills trunk and heads from named tensors: torchvision's, or those of a saved LPIPS module
    /// (`net.slice*`).
    ///
    /// # Errors
    /// Returns an error if names or shapes are not exactly what is looked for.
    pub fn load(
        trunk: &dyn TensorSource,
        heads: &dyn TensorSource,
        net: LpipsNet,
        device: Device,
    ) -> Result<Self> {
        let (lpips, trunk_vars, head_vars) = Self::empty(net, device);
        fill_from(trunk_name(net), &trunk_vars, trunk, &trunk_map())?;
        fill_from(HEADS, &head_vars, heads, &heads_map())?;
        Ok(lpips)
    }

    fn empty(net: LpipsNet, device: Device) -> (Self, Vars, Vars) {
        let vars = || Vars::new(device, Kind::Float, Build::Empty);
        let (trunk, heads) = (vars(), vars());
        (Self::new(&trunk.root(), &heads.root(), net), trunk, heads)
    }

    fn id(&self, trunk: &Provenance, heads: &Provenance) -> FeatureId {
        FeatureId {
            network: self.net.name().into(),
            weights_sha256: format!("{}+{}", trunk.sha256, heads.sha256),
            input_path: "[-1, 1], as given".into(),
            layer: "LPIPS v0.1".into(),
            comparable: trunk.comparable && heads.comparable,
        }
    }

    /// The trunk it was built with.
    pub fn net(&self) -> LpipsNet {
        self.net
    }

    /// The distance of each pair, (B): images of one shape, at least [`LpipsNet::min_side`] high
    /// and wide, nominally in [-1, 1] (a decoder's output is compared unclamped).
    ///
    /// # Errors
    /// Returns an error if shapes differ, or the images are too small.
    pub fn distance(&self, a: &Images, b: &Images) -> Result<Tensor> {
        let (a, b) = (a.tensor(), b.tensor());
        let wrong = |expected: String| Error::Input {
            what: "images for LPIPS",
            expected,
            found: format!("{:?} and {:?}", a.size(), b.size()),
        };
        if a.size() != b.size() {
            return Err(wrong("two batches of one shape".into()));
        }
        let side = self.net.min_side();
        if a.size()[2..].iter().any(|&s| s < side) {
            return Err(wrong(format!("at least {side}x{side} pixels")));
        }
        Ok(self.forward(a, b))
    }

    /// (B, 3, H, W) twice → (B), without dropout. Differentiable in both.
    pub fn forward(&self, a: &Tensor, b: &Tensor) -> Tensor {
        self.per_tap(a, b, HeadDropout::Off).sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
    }

    /// [`Lpips::forward`] with the dropout of training.
    pub fn forward_with(&self, a: &Tensor, b: &Tensor, dropout: HeadDropout) -> Tensor {
        self.per_tap(a, b, dropout).sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
    }

    /// (B, 3, H, W) twice → (B, K): what each tap adds to the distance.
    pub fn per_tap(&self, a: &Tensor, b: &Tensor, dropout: HeadDropout) -> Tensor {
        let (a, b) = (self.taps(a), self.taps(b));
        let taps = self.heads.iter().zip(a.iter().zip(&b));
        let each: Vec<Tensor> = taps.map(|(head, (a, b))| tap_distance(head, a, b, dropout)).collect();
        Tensor::stack(&each, 1)
    }

    /// (B, 3, H, W) in [-1, 1] → K maps (B, C, H', W'), not yet normalised.
    pub fn taps(&self, images: &Tensor) -> Vec<Tensor> {
        self.trunk.taps(&self.scaled(images))
    }

    /// The scaling layer: from [-1, 1] to what the classifiers were trained on, about.
    pub fn scaled(&self, images: &Tensor) -> Tensor {
        (images.to_kind(Kind::Float) - &self.shift) / &self.scale
    }
}

/// Maps (B, C, H, W) of both images → (B).
fn tap_distance(head: &Tensor, a: &Tensor, b: &Tensor, dropout: HeadDropout) -> Tensor {
    let mut difference = (unit(a) - unit(b)).square(); // (B, C, H, W)
    if dropout == HeadDropout::AsTrained {
        difference = random::dropout(&difference, 0.5);
    }
    let weighted = difference.conv2d(head, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1); // (B, 1, H, W)
    weighted.mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float)
}

/// Each place's channels divided by their length. The clamp changes no value; it keeps the gradient
/// finite where all channels are zero (the official one is NaN there).
fn unit(features: &Tensor) -> Tensor {
    let squares = features.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Float);
    features / (squares.clamp_min(1e-30).sqrt() + 1e-10)
}

const HEADS: &str = "the heads of LPIPS";

fn trunk_name(net: LpipsNet) -> &'static str {
    match net {
        LpipsNet::Vgg => "LPIPS's VGG16",
        LpipsNet::Alex => "LPIPS's AlexNet",
        LpipsNet::Squeeze => "LPIPS's SqueezeNet",
    }
}

/// torchvision's classifiers, timm's copy of VGG16, and saved LPIPS modules, whose slices keep
/// torchvision's indices.
fn trunk_map() -> KeyMap {
    let slices = (1..=7)
        .fold(KeyMap::identity(), |map, slice| map.rename(&format!("net.slice{slice}.**"), "features.**"));
    let classifier = ["classifier.**", "pre_logits.**", "head.**"];
    let map = classifier.iter().fold(slices, |map, part| {
        map.drop(part, "part of the classifier behind the convolutions, which LPIPS does not use")
    });
    drop_heads(map).drop("scaling_layer.**", "its constants are known")
}

fn drop_heads(map: KeyMap) -> KeyMap {
    let map = map.drop("lins.**", "the second name of the heads");
    (0..7).fold(map, |map, k| map.drop(&format!("lin{k}.**"), "a head, which the heads' file gives"))
}

fn heads_map() -> KeyMap {
    KeyMap::identity()
        .drop("net.**", "a trunk, which the trunk's file gives")
        .drop("lins.**", "the second name of the heads")
        .drop("scaling_layer.**", "its constants are known")
}

/// Range of random weights.
fn random_range(name: &str, shape: &[i64]) -> (f64, f64) {
    if name.starts_with("lin") {
        (0.0, 0.2)
    } else if name.ends_with("bias") {
        (-0.05, 0.05)
    } else {
        let bound = (6.0 / fan_in(shape)).sqrt();
        (-bound, bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(net: LpipsNet) -> Lpips {
        let source = WeightSource::Random { seed: 3 };
        Lpips::open_with_id(&source, &source, net, Device::Cpu).unwrap().0
    }

    fn images(seed: i64, side: i64) -> Images {
        tch::manual_seed(seed);
        Images::new(Tensor::rand([2, 3, side, side + 1], (Kind::Float, Device::Cpu)) * 2.0 - 1.0).unwrap()
    }

    fn near(a: &Tensor, b: &Tensor) -> bool {
        a.allclose(b, 1e-5, 1e-7, false)
    }

    #[test]
    fn equal_images_are_at_distance_zero_and_order_does_not_matter() {
        for net in LpipsNet::ALL {
            let lpips = random(net);
            let (a, b) = (images(1, net.min_side()), images(2, net.min_side()));
            assert_eq!(lpips.distance(&a, &a).unwrap().abs().max().double_value(&[]), 0.0, "{net:?}");
            let (ab, ba) = (lpips.distance(&a, &b).unwrap(), lpips.distance(&b, &a).unwrap());
            assert!(near(&ab, &ba) && ab.min().double_value(&[]) > 0.0, "{net:?}");
            // Each pair alone gives what the batch gives.
            let row = |x: &Images| Images::new(x.tensor().narrow(0, 1, 1)).unwrap();
            assert!(near(&lpips.distance(&row(&a), &row(&b)).unwrap(), &ab.narrow(0, 1, 1)), "{net:?}");
        }
    }

    #[test]
    fn one_hot_heads_give_the_mean_squared_difference_of_a_channel() {
        let lpips = random(LpipsNet::Alex);
        for head in &lpips.heads {
            let _ = head.shallow_clone().zero_();
        }
        let (a, b) = (images(1, 40), images(2, 40));
        assert_eq!(lpips.distance(&a, &b).unwrap().abs().max().double_value(&[]), 0.0);
        let _ = lpips.heads[1].get(0).get(7).fill_(1.0);
        let taps = |x: &Images| unit(&lpips.taps(x.tensor())[1]).select(1, 7);
        let expected = (taps(&a) - taps(&b)).square().mean_dim([1i64, 2].as_slice(), false, Kind::Float);
        assert!(near(&lpips.distance(&a, &b).unwrap(), &expected));
    }

    #[test]
    fn dropout_of_the_heads_changes_values_but_not_their_mean() {
        let lpips = random(LpipsNet::Alex);
        let (a, b) = (images(1, 31).into_tensor(), images(2, 31).into_tensor());
        let plain = lpips.forward(&a, &b);
        tch::manual_seed(5);
        let draws: Vec<Tensor> =
            (0..60).map(|_| lpips.forward_with(&a, &b, HeadDropout::AsTrained)).collect();
        let draws = Tensor::stack(&draws, 0);
        assert!(!near(&draws.get(0), &plain));
        let mean = draws.mean_dim([0i64].as_slice(), false, Kind::Float);
        let off = ((mean - &plain) / &plain).abs().max().double_value(&[]);
        assert!(off < 0.05, "{off}");
    }

    #[test]
    fn gradients_are_finite_even_where_a_place_has_no_feature() {
        let lpips = random(LpipsNet::Vgg);
        let bias = lpips.taps(images(1, 16).tensor()); // the network runs
        assert_eq!(bias.len(), 5);
        let zero = Tensor::zeros([1, 4, 2, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        unit(&zero).sum(Kind::Float).backward();
        assert_eq!(zero.grad().isfinite().all().int64_value(&[]), 1);
    }

    #[test]
    fn what_cannot_be_compared_is_refused_with_what_was_found() {
        let lpips = random(LpipsNet::Squeeze);
        let e = lpips.distance(&images(1, 20), &images(1, 21)).unwrap_err().to_string();
        assert!(e.contains("[2, 3, 20, 21] and [2, 3, 21, 22]"), "{e}");
        let e = lpips.distance(&images(1, 16), &images(1, 16)).unwrap_err().to_string();
        assert!(e.contains("17x17"), "{e}");
    }

    #[test]
    fn the_public_files_forms_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let (trunk, heads) = (dir.path().join("trunk.safetensors"), dir.path().join("heads.safetensors"));
        let (lpips, trunk_vars, head_vars) = Lpips::empty(LpipsNet::Alex, Device::Cpu);
        for vars in [&trunk_vars, &head_vars] {
            fill("", "", vars, &WeightSource::Random { seed: 3 }, &KeyMap::identity(), random_range).unwrap();
        }
        let mut tensors = weights::named_tensors(&trunk_vars);
        // torchvision's file has the classifier too.
        tensors.push(("classifier.1.weight".into(), Tensor::zeros([4, 4], (Kind::Float, Device::Cpu))));
        weights::save_safetensors(&trunk, &tensors, &Default::default()).unwrap();
        weights::save_safetensors(&heads, &weights::named_tensors(&head_vars), &Default::default()).unwrap();
        let read = Lpips::open(&trunk, &heads, LpipsNet::Alex, Device::Cpu).unwrap();
        let (a, b) = (images(1, 31), images(2, 31));
        assert_eq!(read.distance(&a, &b).unwrap(), lpips.distance(&a, &b).unwrap());
        // They fit, and are the public files nonetheless not.
        let [trunk_source, heads_source] = [&trunk, &heads].map(|f| WeightSource::File(f.clone()));
        let (_, id) = Lpips::open_with_id(&trunk_source, &heads_source, LpipsNet::Alex, Device::Cpu).unwrap();
        assert!(!id.comparable && !id.weights_sha256.contains("random"), "{id}");
        let e = Lpips::open(&trunk, &heads, LpipsNet::Vgg, Device::Cpu).unwrap_err();
        assert!(e.to_string().contains("LPIPS's VGG16"), "{e}");
    }

    #[test]
    fn random_weights_say_so() {
        let source: WeightSource = "random:3".parse().unwrap();
        let (_, id) = Lpips::open_with_id(&source, &source, LpipsNet::Alex, Device::Cpu).unwrap();
        assert!(!id.comparable && id.to_string().ends_with("(not comparable)"), "{id}");
    }
}
