//! Initial weights other than the published ones.

use base::Vars;
use tokenizer::Model;

use super::recipe::Initialization;

/// Changes random weights to those of the recipe.
pub(super) fn apply(model: &Model, vars: &Vars, init: &Initialization) {
    rescale(vars, init);
    if init.icnr {
        model.tie_sub_pixels();
    }
}

/// Scales random weights to the recipe's standard deviations. The codebook, its projections and the
/// packed attention weights have other distributions and stay.
fn rescale(vars: &Vars, init: &Initialization) {
    const PUBLISHED: f64 = 0.02;
    let _guard = tch::no_grad_guard();
    for mut v in vars.parameters() {
        let width = v.tensor.size().last().copied().unwrap_or(1) as f64;
        let of_quantizer = v.name.contains("quant");
        let factor = if v.name.ends_with("positional_embedding") {
            init.position_std.map(|std| std * width.sqrt())
        } else if v.name.ends_with(".weight") && v.tensor.dim() > 1 && !of_quantizer {
            init.weight_std.map(|std| std / PUBLISHED)
        } else {
            None
        };
        if let Some(factor) = factor {
            let _ = v.tensor.g_mul_scalar_(factor);
        }
    }
}
