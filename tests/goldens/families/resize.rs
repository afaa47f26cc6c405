//! The resizes that metrics depend on. Each tensor's name gives the method and size, its shape the
//! subsampling.

use anyhow::{Context, Result, bail};
use backbones::resize;
use base::ImagesU8;
use tch::{Kind, Tensor};

use super::inception::images;
use crate::check::{Check, Rule};
use crate::run::number_after;

/// The whole golden.
pub fn check(check: &mut Check) -> Result<()> {
    let golden = check.golden;
    let sources: Vec<&str> = golden.tensor_names().into_iter().filter(|n| n.starts_with("img")).collect();
    for source in sources {
        drop(check.input(source)?);
    }
    for name in golden.tensor_names().into_iter().filter(|n| !n.starts_with("img")) {
        compare(check, name)?;
    }
    Ok(())
}

/// u8 (H, W, 3) of the golden → one image.
fn source(check: &Check, name: &str) -> Result<ImagesU8> {
    images(&check.golden.tensor(name)?.unsqueeze(0))
}

fn compare(check: &mut Check, name: &str) -> Result<()> {
    let golden = check.golden;
    let size: i64 = name.split('_').find_map(|part| part.parse().ok()).context("the name tells no size")?;
    // Names of the small image have the method alone; `_big` and Pillow's are of the large one.
    let small = name.starts_with("tf1_") || name.starts_with("torch_") && !name.contains("bicubic");
    let image = if small && !name.ends_with("_big") { "img" } else { "img_big" };
    let stored = source(check, image)?;
    let float = stored.tensor().to_kind(Kind::Float);
    let near = Rule::Within(1e-3);
    let (rule, found) = match name {
        _ if name.starts_with("tf1_") => (near, resize::tf1_bilinear(&float, size, size)),
        _ if name.starts_with("torch_bicubic") => {
            let side = number_after(golden.meaning(name), "img_big[:")? as i64;
            let square = float.narrow(2, 0, side).narrow(3, 0, side) / 127.5 - 1.0;
            (Rule::Within(1e-5), resize::half_pixel_bicubic(&square, size, size))
        }
        _ if name.starts_with("torch_") => (near, resize::half_pixel_bilinear(&float, size, size)),
        _ if name.starts_with("clean_") => {
            (near, resize::pillow_bicubic_float(&float, size, size).clamp(0.0, 255.0))
        }
        _ if name.starts_with("pil_bicubic") => {
            (Rule::Equal, resize::pillow_bicubic(&stored, size, size)?.into_tensor())
        }
        other => bail!("what resize is `{other}`?"),
    };
    let shape = golden.shape(name).context("no shape")?;
    check.compare(name, rule, || thinned(&found, &shape))
}

/// (1, 3, S, S) → every n-th row and column of all channels (h, w, 3), or of the first (h, w).
fn thinned(x: &Tensor, shape: &[i64]) -> Tensor {
    let step = |axis: usize| (x.size()[2 + axis] + shape[axis] - 1) / shape[axis];
    let x = x.get(0).slice(1, None, None, step(0)).slice(2, None, None, step(1));
    if shape.len() == 3 { x.permute([1, 2, 0]) } else { x.get(0) }
}
