//! Decoding on a GPU with the kernels of [`cuda_kernels`].
//!
//! B sequences, S positions, D width, V vocabulary

use cuda_kernels::{Decoder, Format, KvCache, Shape};
use libtorch_ext::cuda_kernel::Launch;
use tch::{Kind, Tensor};

use crate::conditioning::Conditioning;
use crate::config::{ArConfig, ModulationConfig};
use crate::error::{Error, Result};
use crate::model::Gpt;

/// Weights, and keys and values, as the kernels store them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuFormats {
    /// Of the weights.
    pub weights: Format,
    /// Of the cache.
    pub cache: Format,
}

fn shape(config: &ArConfig) -> Shape {
    Shape {
        width: config.width,
        heads: config.heads,
        kv_heads: config.num_kv_heads(),
        hidden: config.feed_forward_width(),
        vocabulary: config.vocab_size,
        length: config.conditioning.prefix_len() + config.num_tokens,
        eps: config.norm_eps,
    }
}

/// What the kernels cannot do with a transformer, if anything.
fn obstacle(config: &ArConfig) -> Option<String> {
    match config {
        c if c.qk_norm => Some("norms of queries and keys".into()),
        c if c.modulation != ModulationConfig::None => Some("adaptive norms".into()),
        c => shape(c).obstacle(),
    }
}

impl Gpt {
    /// Gives the layers' weights to the kernels that `engine` runs, in their formats, and **gives up the originals**, as
    /// [`Gpt::pack`] does on the CPU. Runs them once, so that what is wrong with them shows here.
    ///
    /// # Errors
    /// The transformer has what no release has and the kernels lack (norms of queries and keys, adaptive norms, odd
    /// sizes), or the kernels cannot be run.
    pub fn pack_on_gpu(&mut self, formats: GpuFormats, engine: &'static dyn Launch) -> Result<()> {
        let _guard = tch::no_grad_guard();
        if let Some(found) = obstacle(self.config()) {
            return Err(Error::Unsupported { by: "the kernels for a GPU", found });
        }
        let shape = shape(self.config());
        let (norm, output, rope) = self.ends();
        let formats = [formats.weights, formats.cache];
        let mut decoder = Decoder::new(shape, formats, norm, output, rope, self.inputs(), engine);
        release([output]);
        for block in self.blocks() {
            let [wqkv, wo, w1, w2, w3] = block.matrices();
            let [attention_norm, ffn_norm] = block.norms();
            decoder.push(cuda_kernels::Block { wqkv, wo, w1, w2, w3, attention_norm, ffn_norm });
            release([wqkv, wo, w1, w2, w3]);
        }
        let nothing = Tensor::zeros([1, 1, shape.width], (Kind::Float, self.device()));
        let cache = decoder.new_cache(1);
        let _ = decoder.forward(&cache, nothing, &cache.position(0), 1)?;
        self.set_packed_on_gpu(decoder);
        Ok(())
    }

    /// Condition → logits of the first code, (B, V).
    pub(crate) fn gpu_prefill(&self, decoder: &Decoder, cond: &Conditioning, cache: &mut KvCache) -> Tensor {
        cache.see(cond.prefix_mask());
        run(decoder, cache, self.prefix(cond), &cache.position(0), 1).squeeze_dim(1)
    }

    /// Teacher-forced inputs (B, T + N − 1, D) → (B, N, V).
    pub(crate) fn gpu_logits(&self, decoder: &Decoder, cond: &Conditioning, x: Tensor) -> Tensor {
        let (b, s, _) = x.size3().expect("inputs are (B, S, D)");
        let mut cache = decoder.new_cache(b);
        cache.see(cond.prefix_mask());
        run(decoder, &cache, x, &cache.position(0), s - self.prefix_len() + 1)
    }
}

/// Codes (B, K) from `position` (1) on → logits of the code after each, (B, K, V).
pub(crate) fn codes(decoder: &Decoder, cache: &KvCache, codes: &Tensor, position: &Tensor) -> Tensor {
    let x = decoder.embed(codes, position).unwrap_or_else(|e| panic!("{e}"));
    run(decoder, cache, x, position, codes.size()[1])
}

/// Inputs (B, S, D) from `position` (1) on → logits of the last `wanted`, (B, wanted, V).
fn run(decoder: &Decoder, cache: &KvCache, x: Tensor, position: &Tensor, wanted: i64) -> Tensor {
    let logits = decoder.forward(cache, x, position, wanted);
    // As tch's own operations do; the kernels ran when the model was packed.
    logits.unwrap_or_else(|e| panic!("{e}"))
}

/// Gives weights' memory back.
fn release<const N: usize>(weights: [&Tensor; N]) {
    for weight in weights {
        weight.shallow_clone().set_data(&Tensor::empty([0], (weight.kind(), weight.device())));
    }
}
