//! Values that are not finite never become pictures or scores: they are an error that names image
//! and network.

use tch::Tensor;

use crate::Hint;

/// Values of an image that are not finite.
#[derive(Debug, thiserror::Error)]
#[error("image `{image}`{more}: {what} by {network} holds values that are not finite")]
pub struct NonFinite {
    image: String,
    more: String,
    what: String,
    network: String,
}

impl Hint for NonFinite {
    fn hints(&self) -> Vec<String> {
        vec![
            "a weight of the network may be damaged, or its precision too narrow: try `--precision fp32`"
                .into(),
        ]
    }
}

/// Checks values (B, …) of images; `what` they are, and `network` gave them.
///
/// # Errors
/// Returns an error that names the first image with a value that is not finite.
pub fn check<'a>(
    values: &Tensor,
    mut images: impl Iterator<Item = &'a str>,
    what: &str,
    network: &str,
) -> Result<(), NonFinite> {
    if values.numel() == 0 {
        return Ok(());
    }
    let rows = values.size().first().copied().unwrap_or(1);
    let bad = values.reshape([rows, -1]).isfinite().all_dim(1, false).logical_not(); // (B)
    let indices = bad.nonzero().view(-1);
    let count = indices.numel();
    if count == 0 {
        return Ok(());
    }
    let first = usize::try_from(indices.int64_value(&[0])).ok();
    let image = first.and_then(|i| images.nth(i)).unwrap_or_default().to_owned();
    let more = match count {
        1 => String::new(),
        n => format!(" (and {} more of its batch)", n - 1),
    };
    Err(NonFinite { image, more, what: what.to_owned(), network: network.to_owned() })
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
