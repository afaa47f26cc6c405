//! Layers through [`cpu_kernels`]: for channels-last maps on the CPU that need no gradient. Results
//! are channels last, too.
//!
//! B images, H×W pixels, C channels

use std::sync::Arc;

use cpu_kernels::{Format, Isa, Map, Norm, ThreadPool, Winograd};
use libtorch_ext::bytes::{Element, f32_values, tensor_of, with_values};
use tch::{Device, Kind, Tensor};

/// `x` (B, C, H, W) as (B, H, W, C), if these kernels can read it.
pub(super) fn pixels(x: &Tensor) -> Option<Tensor> {
    let known = matches!(x.kind(), Kind::Float | Kind::BFloat16);
    let pixels = x.permute([0, 2, 3, 1]);
    let fits = x.device() == Device::Cpu && known && !x.requires_grad() && x.numel() > 0;
    (fits && pixels.is_contiguous()).then_some(pixels)
}

/// The best instructions for fp32.
pub(super) fn isa() -> Isa {
    Isa::best(Format::F32)
}

fn pool() -> Arc<ThreadPool> {
    ThreadPool::shared(usize::try_from(tch::get_num_threads()).unwrap_or(1))
}

/// Group norm and the SiLU that may follow, of `pixels` (B, H, W, C); `affine` (C) each.
pub(super) fn group_norm(
    pixels: &Tensor,
    groups: i64,
    affine: Option<(&Tensor, &Tensor)>,
    eps: f64,
    silu: bool,
) -> Tensor {
    let (scale, shift) = affine.map(|(w, b)| (f32_values(w), f32_values(b))).unzip();
    let norm = Norm {
        groups: usize::try_from(groups).expect("groups are counted"),
        eps,
        scale: scale.as_deref(),
        shift: shift.as_deref(),
        silu,
    };
    let channels = pixels.size()[3];
    match pixels.kind() {
        Kind::BFloat16 => normalized::<u16>(pixels, channels, &norm),
        _ => normalized::<f32>(pixels, channels, &norm),
    }
}

fn normalized<E: Element + cpu_kernels::NormElement>(pixels: &Tensor, channels: i64, norm: &Norm) -> Tensor {
    let (pool, isa, channels) = (pool(), isa(), channels as usize);
    by_image::<E>(pixels, None, channels as i64, |x, _, out| {
        cpu_kernels::group_norm(&pool, isa, x, channels, norm, out);
    })
}

/// A packed convolution of `pixels` (B, H, W, C) to `outputs` channels, plus `residual` (B,
/// outputs, H, W).
pub(super) fn convolution(
    packed: &Winograd,
    pixels: &Tensor,
    outputs: i64,
    residual: Option<&Tensor>,
) -> Tensor {
    let residual = residual.map(|r| r.permute([0, 2, 3, 1]).to_kind(pixels.kind()));
    match pixels.kind() {
        Kind::BFloat16 => convolved::<u16>(packed, pixels, outputs, residual.as_ref()),
        _ => convolved::<f32>(packed, pixels, outputs, residual.as_ref()),
    }
}

fn convolved<E: Element + cpu_kernels::ConvElement>(
    packed: &Winograd,
    pixels: &Tensor,
    outputs: i64,
    residual: Option<&Tensor>,
) -> Tensor {
    let (pool, width) = (pool(), pixels.size()[2] as usize);
    by_image::<E>(pixels, residual, outputs, |x, residual, out| {
        packed.run(&pool, &Map { x, width, residual }, out);
    })
}

/// Calls `f` with each image of `pixels`, that of `residual` and that of the result (B, H, W,
/// `outputs`), which comes back as (B, `outputs`, H, W).
fn by_image<E: Element>(
    pixels: &Tensor,
    residual: Option<&Tensor>,
    outputs: i64,
    f: impl Fn(&[E], Option<&[E]>, &mut [E]),
) -> Tensor {
    let [b, h, w, c] = pixels.size()[..] else { unreachable!("maps have four axes") };
    let (image, result) = ((h * w * c) as usize, (h * w * outputs) as usize);
    let read = |t: &Tensor, f: &mut dyn FnMut(&[E])| {
        with_values(t, f).expect("maps of one layer are of one kind");
    };
    let filled = tensor_of::<E>(&[b, h, w, outputs], |out| {
        read(pixels, &mut |x| match residual {
            None => x.chunks(image).zip(out.chunks_mut(result)).for_each(|(x, out)| f(x, None, out)),
            Some(residual) => read(residual, &mut |r| {
                let images = x.chunks(image).zip(out.chunks_mut(result));
                images.zip(r.chunks(result)).for_each(|((x, out), r)| f(x, Some(r), out));
            }),
        });
    });
    filled.expect("libtorch has memory for one map more").permute([0, 3, 1, 2])
}
