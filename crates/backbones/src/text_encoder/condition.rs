//! Text features as the text-to-image transformer takes them.
//!
//! B batch, T tokens, C width

use tch::{Kind, Tensor};

/// A batch of texts as a transformer's condition.
#[derive(Debug)]
pub struct TextFeatures {
    /// (B, T, C), the text at the end, zeros before it.
    pub features: Tensor,
    /// (B, T) bool: where there is text.
    pub mask: Tensor,
}

impl TextFeatures {
    /// Rows of text only, (L, C) each, in the order of the batch.
    pub fn texts(&self) -> Vec<Tensor> {
        let t = self.mask.size()[1];
        let lengths = self.mask.sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
        (0..self.mask.size()[0])
            .map(|i| {
                let length = lengths.int64_value(&[i]);
                self.features.select(0, i).narrow(0, t - length, length)
            })
            .collect()
    }

    /// The reverse: (L, C) each → the batch, padded to `length` positions on the left.
    pub fn from_texts(texts: &[Tensor], length: i64) -> TextFeatures {
        let one = |text: &Tensor| {
            let (l, c) = text.size2().expect("texts are (L, C)");
            let l = l.min(length);
            let options = (text.kind(), text.device());
            let features = Tensor::cat(&[Tensor::zeros([length - l, c], options), text.narrow(0, 0, l)], 0);
            let mask = Tensor::arange(length, (Kind::Int64, text.device())).ge(length - l);
            (features, mask)
        };
        let (features, masks): (Vec<Tensor>, Vec<Tensor>) = texts.iter().map(one).unzip();
        TextFeatures { features: Tensor::stack(&features, 0), mask: Tensor::stack(&masks, 0) }
    }
}

/// Features (B, T, C) of right-padded texts and their mask (B, T), one or zero: the padding goes to
/// the front and becomes zero (LlamaGen's `sample_t2i.py`).
pub fn left_pad(features: &Tensor, mask: &Tensor) -> TextFeatures {
    let (_, t, c) = features.size3().expect("features are (B, T, C)");
    let lengths = mask.to_kind(Kind::Int64).sum_dim_intlist([1i64].as_slice(), true, Kind::Int64); // (B, 1)
    let at = Tensor::arange(t, (Kind::Int64, features.device())).unsqueeze(0); // (1, T)
    let from = (&at + &lengths).remainder(t).unsqueeze(-1).expand([-1, -1, c], false);
    let mask = at.ge_tensor(&(-lengths + t)); // (B, T)
    let features = features.gather(1, &from, false) * mask.unsqueeze(-1).to_kind(features.kind());
    TextFeatures { features, mask }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_goes_to_the_front_and_texts_come_back() {
        let features = Tensor::from_slice(&[1f32, 2., 9., 9., 3., 4., 5., 6.]).view([2, 4, 1]);
        let mask = Tensor::from_slice(&[1i64, 1, 0, 0, 1, 1, 1, 1]).view([2, 4]);
        let padded = left_pad(&features, &mask);
        let values = Vec::<f32>::try_from(padded.features.view(-1)).unwrap();
        assert_eq!(values, [0., 0., 1., 2., 3., 4., 5., 6.]);
        let again = TextFeatures::from_texts(&padded.texts(), 4);
        assert_eq!(again.features, padded.features);
        assert_eq!(again.mask, padded.mask);
    }
}
