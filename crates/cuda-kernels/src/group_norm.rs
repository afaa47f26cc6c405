//! Group norm with its SiLU.
//!
//! B images, H×W pixels, C channels

use libtorch_ext::cuda_kernel::{Arg, KernelLauncher};
use tch::{Kind, Tensor};

use crate::sources::GROUP_NORM_THREADS as THREADS;
use crate::{Result, sources};

/// Slices of an image, enough for a few images to occupy a GPU.
const SLICES: i64 = 64;

/// Parameters of a group norm.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// Groups; C is a multiple.
    pub groups: i64,
    /// Added to the variance.
    pub eps: f64,
    /// Scale and shift, fp32, (C) each, or (B, C).
    pub affine: Option<(&'a Tensor, &'a Tensor)>,
    /// Whether a SiLU follows.
    pub silu: bool,
}

/// Whether the kernels support this number of channels.
pub(crate) fn fits(channels: i64, groups: i64) -> bool {
    channels % 8 == 0 && channels <= 8 * THREADS && channels % groups == 0 && channels / groups <= THREADS
}

/// Normalises `pixels` (B, H, W, C), contiguous; `None` if they are not bf16, or the kernels do not
/// support the number of channels.
///
/// # Errors
/// Returns an error if the kernels do not compile or cannot be launched.
pub fn group_norm(launcher: &dyn KernelLauncher, pixels: &Tensor, norm: &Norm) -> Result<Option<Tensor>> {
    let (b, h, w, c) = pixels.size4().expect("pixels are (B, H, W, C)");
    if !fits(c, norm.groups) || pixels.kind() != Kind::BFloat16 {
        return Ok(None);
    }
    let (output, device) = (pixels.empty_like(), launcher.device());
    let slices = SLICES.min(h * w);
    let step = (h * w + slices - 1) / slices;
    let sums = Tensor::empty([b, slices, 2, c], (Kind::Float, device));
    let affine = Tensor::empty([b, 2, c], (Kind::Float, device));
    let [scale, shift] = norm.affine.map_or([None, None], |(scale, shift)| [Some(scale), Some(shift)]);
    let args = [
        Arg::Tensor(pixels),
        Arg::Tensor(&output),
        Arg::Tensor(&sums),
        Arg::Tensor(&affine),
        scale.into(),
        shift.into(),
        Arg::Int(h * w),
        Arg::Int(slices),
        Arg::Int(step),
        Arg::Int(scale.is_some_and(|s| s.dim() == 2).into()),
        Arg::Int(norm.silu.into()),
        Arg::Float(norm.eps),
    ];
    let source = sources::group_norm(c, norm.groups);
    for (kernel, x) in [("sums_of_slices", slices), ("affine_of_groups", norm.groups), ("apply", slices)] {
        launcher.launch(&source, kernel, [x, b], &args)?;
    }
    Ok(Some(output))
}

#[cfg(test)]
mod tests {
    use libtorch_ext::cuda_kernel::CpuEmulator;
    use tch::Device;

    use super::*;

    #[test]
    fn it_is_libtorchs_group_norm_and_silu() {
        tch::manual_seed(2);
        let float = (Kind::Float, Device::Cpu);
        // Fewer pixels than slices; slices that do not divide them; threads beyond the last whole
        // pixel.
        for (channels, side, groups) in [(32, 5, 8), (48, 11, 6), (128, 9, 32)] {
            let x = (Tensor::randn([2, channels, side, side], float) * 2.0 + 3.0).to_kind(Kind::BFloat16);
            let pixels = x.permute([0, 2, 3, 1]).contiguous();
            let [scale, shift] = [1.0, 0.0].map(|mean| Tensor::randn([2, channels], float) * 0.5 + mean);
            let plain =
                x.to_kind(Kind::Float).group_norm(groups, None::<&Tensor>, None::<&Tensor>, 1e-6, false);
            let wide = |t: &Tensor| t.unsqueeze(-1).unsqueeze(-1);
            let first = |t: &Tensor| t.narrow(0, 0, 1).expand_as(&scale).contiguous();
            for (affine, silu, expected) in [
                (None, false, plain.shallow_clone()),
                (Some((scale.copy(), shift.copy())), false, &plain * wide(&scale) + wide(&shift)),
                (
                    Some((scale.get(0), shift.get(0))),
                    true,
                    (&plain * wide(&first(&scale)) + wide(&first(&shift))).silu(),
                ),
            ] {
                let affine = affine.as_ref().map(|(scale, shift)| (scale, shift));
                let norm = Norm { groups, eps: 1e-6, affine, silu };
                let found = group_norm(&CpuEmulator, &pixels, &norm).unwrap().unwrap();
                let found = found.permute([0, 3, 1, 2]).to_kind(Kind::Float);
                let off = (found - &expected).norm().double_value(&[]) / expected.norm().double_value(&[]);
                assert!(off < 3e-3, "{channels} {silu}: {off}");
            }
        }
    }
}
