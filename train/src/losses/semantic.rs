//! Semantic regularisation (GigaTok, section 3.2): features of the tokenizer are aligned to a
//! frozen teacher's.

use backbones::resize::half_pixel_bilinear;
use backbones::{DinoTeacher, EfficientNetLite, FeatureCnn, enlarged};
use base::{Images, Mode};
use nn::l2_normalize;
use tch::{Kind, Tensor};

/// A frozen network whose features the tokenizer's are aligned to.
pub trait SemanticTeacher: std::fmt::Debug {
    /// Width of its features.
    fn width(&self) -> i64;

    /// Images (B, 3, H, W) in [-1, 1] → its features on its own grid (B, width, h, w), without
    /// gradient.
    fn map(&self, images: &Tensor) -> Tensor;
}

impl SemanticTeacher for DinoTeacher {
    fn width(&self) -> i64 {
        self.width()
    }

    fn map(&self, images: &Tensor) -> Tensor {
        let images = Images::new(images.detach()).expect("images are (B, 3, H, W), floating");
        let patches = self.patches(&images); // (B, P, W)
        let (b, p, w) = patches.size3().expect("patches are (B, P, W)");
        let side = (p as f64).sqrt() as i64;
        patches.transpose(1, 2).reshape([b, w, side, side])
    }
}

/// One block of EfficientNet-Lite.
#[derive(Debug)]
pub struct EfficientNetTeacher {
    /// The network.
    pub network: EfficientNetLite,
    /// The block, from 0.
    pub block: usize,
    /// Its output channels.
    pub width: i64,
    /// Factor by which images are first enlarged.
    pub upsample: i64,
}

impl SemanticTeacher for EfficientNetTeacher {
    fn width(&self) -> i64 {
        self.width
    }

    fn map(&self, images: &Tensor) -> Tensor {
        let x = EfficientNetLite::scaled(&enlarged(&images.detach(), self.upsample));
        tch::no_grad(|| self.network.features(&x, &[self.block])).remove(0)
    }
}

/// One stage of a network trained by `gen train-features`.
#[derive(Debug)]
pub struct FeatureCnnTeacher {
    /// The network.
    pub network: FeatureCnn,
    /// The stage, from 0.
    pub stage: usize,
    /// Its channels.
    pub width: i64,
    /// Dtype of its weights and activations.
    pub kind: Kind,
}

impl SemanticTeacher for FeatureCnnTeacher {
    fn width(&self) -> i64 {
        self.width
    }

    fn map(&self, images: &Tensor) -> Tensor {
        let x = images.detach().to_kind(self.kind);
        tch::no_grad(|| self.network.features(&x, Mode::Eval)).swap_remove(self.stage)
    }
}

/// Features (B, C, h, w) resized bilinearly to the aligned features' grid → (B, grid², C),
/// row-major.
pub fn on_grid(map: &Tensor, grid: i64) -> Tensor {
    let (_, _, h, w) = map.size4().expect("features are (B, C, h, w)");
    let resized =
        if (h, w) == (grid, grid) { map.shallow_clone() } else { half_pixel_bilinear(map, grid, grid) };
    resized.flatten(2, 3).transpose(1, 2)
}

/// `-mean cos(student, teacher)` over batch and positions, in fp32: (B, N, C) each. In [-1, 1];
/// upstream adds no 1.
pub fn alignment(student: &Tensor, teacher: &Tensor) -> Tensor {
    let unit = |x: &Tensor| l2_normalize(&x.to_kind(Kind::Float), -1);
    let cosine =
        (unit(student) * unit(&teacher.detach())).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
    -cosine.mean(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_teachers_grid_is_resized_to_the_students() {
        let map = Tensor::arange(8, (Kind::Float, tch::Device::Cpu)).view([1, 2, 2, 2]);
        assert_eq!(on_grid(&map, 2), map.flatten(2, 3).transpose(1, 2));
        let finer = on_grid(&map, 4);
        assert_eq!(finer.size(), [1, 16, 2]);
        assert_eq!(finer.double_value(&[0, 0, 0]), 0.0);
        assert_eq!(finer.double_value(&[0, 15, 1]), 7.0);
    }

    #[test]
    fn it_is_minus_the_mean_cosine_and_gives_the_teacher_no_gradient() {
        let student = Tensor::from_slice(&[3.0f32, 4.0, 1.0, 0.0]).view([1, 2, 2]).set_requires_grad(true);
        let teacher = Tensor::from_slice(&[6.0f32, 8.0, 0.0, -2.0]).view([1, 2, 2]).set_requires_grad(true);
        let loss = alignment(&student, &teacher);
        assert!((loss.double_value(&[]) + 0.5).abs() < 1e-6);
        loss.backward();
        assert!(student.grad().defined() && !teacher.grad().defined());
        // The cosine does not change along the student itself.
        assert!((student.grad() * &student).sum(Kind::Float).double_value(&[]).abs() < 1e-6);
    }
}
