//! Pixel and feature distances; means over all elements, in fp32.

use tch::{Kind, Reduction, Tensor};

/// Mean squared error between target and reconstruction.
pub fn l2(target: &Tensor, reconstruction: &Tensor) -> Tensor {
    reconstruction.to_kind(Kind::Float).mse_loss(&target.to_kind(Kind::Float), Reduction::Mean)
}

/// Mean absolute error between target and reconstruction.
pub fn l1(target: &Tensor, reconstruction: &Tensor) -> Tensor {
    reconstruction.to_kind(Kind::Float).l1_loss(&target.to_kind(Kind::Float), Reduction::Mean)
}

/// Feature reconstruction (GigaTok `fea_rec_loss`, "mse"): the transformer decoder's output is
/// aligned to the CNN encoder's, which gets no gradient from it.
pub fn features(cnn: &Tensor, decoder: &Tensor) -> Tensor {
    l2(&cnn.detach(), decoder)
}

/// Feature reconstruction, "cosine": mean of one minus the cosine over channels (axis 1).
pub fn features_cosine(cnn: &Tensor, decoder: &Tensor) -> Tensor {
    let cosine =
        Tensor::cosine_similarity(&cnn.detach().to_kind(Kind::Float), &decoder.to_kind(Kind::Float), 1, 1e-8);
    (cosine * -1.0 + 1.0).mean(Kind::Float)
}
