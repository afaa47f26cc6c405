use kernels::{Format, Isa, Norm, Team};
use libtorch_ext::bytes::{Element, tensor_of, with_values};
use tch::{Device, Kind, Tensor};

/// Group norm and the swish that may follow, by [`kernels::group_norm`]: for maps that lie channels last on the CPU and
/// need no gradient. The result lies so too. `None` where that does not hold.
///
/// `x` (B, C, H, W), fp32 or bf16; `affine` (C) each, fp32
pub(super) fn group_norm(
    x: &Tensor,
    groups: i64,
    affine: Option<(&Tensor, &Tensor)>,
    eps: f64,
    swish: bool,
) -> Option<Tensor> {
    let pixels = x.permute([0, 2, 3, 1]);
    let trained = x.requires_grad() || affine.is_some_and(|(w, b)| w.requires_grad() || b.requires_grad());
    if x.device() != Device::Cpu || trained || x.numel() == 0 || !pixels.is_contiguous() {
        return None;
    }
    let values = |t: &Tensor| with_values(t, <[f32]>::to_vec).expect("scale and shift are fp32");
    let (scale, shift) = affine.map(|(w, b)| (values(w), values(b))).unzip();
    let norm = Norm {
        groups: usize::try_from(groups).expect("groups are counted"),
        eps,
        scale: scale.as_deref(),
        shift: shift.as_deref(),
        silu: swish,
    };
    let y = match x.kind() {
        Kind::Float => images::<f32>(&pixels, &norm),
        Kind::BFloat16 => images::<u16>(&pixels, &norm),
        _ => return None,
    };
    Some(y.permute([0, 3, 1, 2]))
}

/// `pixels` (B, H, W, C), one image after the other.
fn images<E: Element + kernels::Element>(pixels: &Tensor, norm: &Norm) -> Tensor {
    let shape = pixels.size();
    let (channels, image) = (shape[3] as usize, (shape[1] * shape[2] * shape[3]) as usize);
    let team = Team::shared(usize::try_from(tch::get_num_threads()).unwrap_or(1));
    let isa = Isa::best(Format::F32);
    let filled = tensor_of::<E>(&shape, |out| {
        with_values::<E, _>(pixels, |x| {
            for (x, out) in x.chunks(image).zip(out.chunks_mut(image)) {
                kernels::group_norm(&team, isa, x, channels, norm, out);
            }
        })
        .expect("the caller has looked at the kind");
    });
    filled.expect("libtorch has memory for one map more")
}
