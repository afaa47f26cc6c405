//! Decoding on the CPU with the kernels of [`kernels`]: weights packed once, keys and values in place.
//!
//! B sequences, T prefix positions, N codes, D width, V vocabulary

use base::Precision;
use kernels::{Decoder, Format, Token};
use libtorch_ext::bytes::tensor_of;
use tch::{Device, Kind, Tensor};

use crate::conditioning::Conditioning;
use crate::model::Gpt;

/// How weights of `precision` are packed; `None` where there is no kernel for it.
fn format(precision: Precision) -> Option<Format> {
    match precision {
        Precision::Fp32 => Some(Format::F32),
        Precision::Bf16 => Some(Format::Bf16),
        Precision::Int8 => Some(Format::Int8),
        Precision::Fp16 => None,
    }
}

/// All values of a tensor in fp32, row after row.
pub(crate) fn values(t: &Tensor) -> Vec<f32> {
    let flat = t.to_kind(Kind::Float).contiguous().view(-1);
    Vec::<f32>::try_from(flat).expect("fp32 tensors are copied to fp32 vectors")
}

impl Gpt {
    /// Packs the layers' weights for decoding on the CPU and **gives up the originals**: from then on the model decodes
    /// and evaluates ([`crate::AutoregressiveModel::logits`] with `Mode::Eval`), many times faster with few rows, but can
    /// neither be trained nor asked for hidden states. Activations between products are fp32 in every format. The process
    /// keeps the memory of one step for the next: a row of logits is so large that the C library would give it back.
    ///
    /// Does nothing on other devices, and for fp16, which has no kernel.
    pub fn pack(&mut self, precision: Precision) {
        let Some(format) = format(precision).filter(|_| self.device() == Device::Cpu) else { return };
        let _guard = tch::no_grad_guard();
        libtorch_ext::runtime::keep_freed_memory();
        let c = self.config();
        let shape = kernels::Shape {
            width: c.width as usize,
            heads: c.heads as usize,
            kv_heads: c.num_kv_heads() as usize,
            hidden: c.feed_forward_width() as usize,
            vocabulary: c.vocab_size as usize,
            eps: c.norm_eps as f32,
        };
        let (norm, output, rotary) = self.ends();
        let (norm, output) = (values(norm), release(output));
        // Heads are what attention is shared out by; far more threads than those would only wait.
        let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).min(shape.heads);
        let mut decoder = Decoder::new(shape, format, &norm, &output, rotary.map(values), threads);
        for block in self.blocks() {
            let [wqkv, wo, w1, w2, w3] = block.matrices().map(release);
            let [attention_norm, ffn_norm] = block.norms().map(values);
            let qk_norm = block.qk_norm().map(|parts| parts.map(values));
            decoder.push(kernels::Block {
                wqkv: &wqkv,
                wo: &wo,
                w1: &w1,
                w2: &w2,
                w3: &w3,
                attention_norm: &attention_norm,
                ffn_norm: &ffn_norm,
                qk_norm: qk_norm.as_ref().map(|parts| parts.each_ref().map(Vec::as_slice)),
            });
        }
        self.set_packed(decoder);
    }

    /// Condition → logits of the first code, (B, V).
    pub(crate) fn packed_prefill(
        &self,
        decoder: &Decoder,
        cond: &Conditioning,
        cache: &mut kernels::KvCache,
    ) -> Tensor {
        let x = self.prefix(cond); // (B, T, D)
        self.prepare(cond, &x, cache);
        let (b, t, _) = x.size3().expect("prefixes are (B, T, D)");
        run(decoder, cache, &x, 0, |i| i + 1 == t, b)
    }

    /// Inputs (B, K, D) from `position` on → logits of the code after each, (B, K, V).
    pub(crate) fn packed_block(
        decoder: &Decoder,
        x: &Tensor,
        position: i64,
        cache: &mut kernels::KvCache,
    ) -> Tensor {
        let (b, k, _) = x.size3().expect("inputs are (B, K, D)");
        run(decoder, cache, x, position, |_| true, b * k).view([b, k, -1])
    }

    /// Teacher-forced inputs (B, T + N − 1, D) → (B, N, V).
    pub(crate) fn packed_logits(&self, decoder: &Decoder, cond: &Conditioning, x: &Tensor) -> Tensor {
        let (b, s, _) = x.size3().expect("inputs are (B, S, D)");
        let mut cache = decoder.new_cache(b as usize, s as usize);
        let t = self.prefix_len();
        self.prepare(cond, &x.narrow(1, 0, t), &mut cache);
        run(decoder, &mut cache, x, 0, |i| i + 1 >= t, b * (s - t + 1)).view([b, s - t + 1, -1])
    }

    /// Gives a cache what the layers need of the condition.
    fn prepare(&self, cond: &Conditioning, prefix: &Tensor, cache: &mut kernels::KvCache) {
        cache.hide(match cond {
            Conditioning::Class(_) => vec![],
            Conditioning::Text { mask, .. } => {
                let (_, t) = mask.size2().expect("masks are (B, T)");
                let seen = Vec::<bool>::try_from(mask.to_kind(Kind::Bool).contiguous().view(-1))
                    .expect("bool tensors are copied to bool vectors");
                seen.chunks(t as usize).map(|row| row.iter().map(|seen| !seen).collect()).collect()
            }
        });
        if let Some((layers, last)) = self.modulations(prefix) {
            cache.modulate(layers.iter().map(values).collect(), values(&last));
        }
    }
}

/// Runs (B, S, D) from position `from` on; logits of the positions that are `wanted`, `rows` in all.
fn run(
    decoder: &Decoder,
    cache: &mut kernels::KvCache,
    x: &Tensor,
    from: i64,
    wanted: impl Fn(i64) -> bool,
    rows: i64,
) -> Tensor {
    let (b, s, _) = x.size3().expect("inputs are (B, S, D)");
    let all = (0..b).flat_map(|sequence| (0..s).map(move |i| (sequence, i)));
    let token = |(sequence, i)| Token { sequence: sequence as usize, position: (from + i) as usize };
    let tokens: Vec<Token> = all.clone().map(token).collect();
    let wanted: Vec<usize> = all.enumerate().filter(|(_, (_, i))| wanted(*i)).map(|(n, _)| n).collect();
    let size = [rows, decoder.shape().vocabulary as i64];
    tensor_of(&size, |logits| decoder.forward(cache, &tokens, &values(x), &wanted, logits))
        .expect("libtorch has memory for logits")
}

/// The values of a weight, whose memory is given back.
fn release(weight: &Tensor) -> Vec<f32> {
    let values = values(weight);
    weight.shallow_clone().set_data(&Tensor::empty([0], (weight.kind(), weight.device())));
    values
}
