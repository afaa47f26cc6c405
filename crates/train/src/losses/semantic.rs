//! Semantic regularisation (GigaTok, section 3.2): features of the tokenizer are drawn to a frozen teacher's.

use backbones::DinoTeacher;
use base::Images;
use base::nn::l2_normalize;
use tch::{Kind, Tensor};

/// A frozen network whose features of an image the tokenizer's are drawn to.
pub trait SemanticTeacher: std::fmt::Debug {
    /// Width of its features.
    fn width(&self) -> i64;

    /// Features of an image: a grid, in raster order.
    fn positions(&self) -> i64;

    /// Images (B, 3, H, W) in [-1, 1] → (B, positions, width), without gradient.
    fn features(&self, images: &Tensor) -> Tensor;
}

impl SemanticTeacher for DinoTeacher {
    fn width(&self) -> i64 {
        self.width()
    }

    fn positions(&self) -> i64 {
        self.patches_per_image()
    }

    fn features(&self, images: &Tensor) -> Tensor {
        let images = Images::new(images.detach()).expect("images are (B, 3, H, W), floating");
        self.patches(&images)
    }
}

/// `-mean cos(student, teacher)` over batch and positions, in fp32: (B, N, C) each. In [-1, 1]; upstream adds no 1.
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
