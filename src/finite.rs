//! Values that are not finite never become pictures or scores: they are an error that names image and network.

use anyhow::Result;
use tch::Tensor;

use crate::failure::Failure;

/// Refuses values (B, …) of images that are not finite; `what` they are, and `network` gave them.
pub fn check<'a>(
    values: &Tensor,
    mut images: impl Iterator<Item = &'a str>,
    what: &str,
    network: &str,
) -> Result<()> {
    if values.numel() == 0 {
        return Ok(());
    }
    let rows = values.size().first().copied().unwrap_or(1);
    let bad = values.reshape([rows, -1]).isfinite().all_dim(1, false).logical_not(); // (B)
    let bad = Vec::<i64>::try_from(bad.nonzero().view(-1))?;
    let Some(&first) = bad.first() else { return Ok(()) };
    let image = usize::try_from(first).ok().and_then(|i| images.nth(i)).unwrap_or_default();
    let more = match bad.len() {
        1 => String::new(),
        n => format!(" (and {} more of its batch)", n - 1),
    };
    let message = format!("image `{image}`{more}: {what} by {network} holds values that are not finite");
    Err(Failure::new(message)
        .hint("a weight of the network may be damaged, or its precision too narrow: try `--precision fp32`")
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_image_with_such_a_value_is_named() {
        let names = ["a", "b", "c"];
        let say = |values: &[f32], shape: &[i64]| {
            check(&Tensor::from_slice(values).view(shape), names.into_iter(), "the decoded image", "net")
                .map_err(|e| e.to_string())
        };
        assert_eq!(say(&[0.0, 1.0, 2.0], &[3]), Ok(()));
        assert_eq!(say(&[], &[0, 2]), Ok(()));
        let found = say(&[0.0, 1.0, 2.0, f32::INFINITY, f32::NAN, 0.0], &[3, 1, 2]).unwrap_err();
        let expected = "image `b` (and 1 more of its batch): the decoded image by net holds values";
        assert!(found.starts_with(expected), "{found}");
    }
}
