//! The teacher-forced pass in pieces, so that training can recompute layers instead of storing
//! activations, and split the output layer.

use base::{Mode, random, rng};
use nn::dropout;
use tch::{Kind, Tensor};

use super::{Gpt, prefix_lm_mask};
use crate::attention::AttentionInput;
use crate::conditioning::Conditioning;
use crate::modulation::ModelCondition;
use crate::position::Positions;

/// State of a forward pass that all layers share.
#[derive(Debug)]
pub struct TeacherForced<'a> {
    gpt: &'a Gpt,
    condition: Option<Tensor>,
    modulation: ModelCondition,
    mask: Option<Tensor>,
    train: bool,
    /// Seed of dropout in all layers; `None` without dropout.
    seed: Option<u64>,
}

impl Gpt {
    /// Starts a pass over codes (B, N). Returns its state, and the first layer's input,
    /// (B, T + N − 1, D).
    pub fn teacher_forced(
        &self,
        cond: &Conditioning,
        codes: &Tensor,
        mode: Mode,
    ) -> (TeacherForced<'_>, Tensor) {
        let train = mode.is_train();
        let rates = &self.config.dropout;
        let drop = (train && rates.condition > 0.0).then(|| {
            random::uniform(&[cond.batch_size()], (Kind::Float, self.embeddings.device())).lt(rates.condition)
        });
        let x = self.embeddings.sequence(cond, codes, drop.as_ref());
        let condition = self.modulation.needs_condition().then(|| x.narrow(1, 0, self.spec.prefix_len));
        let in_layers = [rates.attention, rates.residual, rates.feed_forward, rates.drop_path];
        let drops = train && in_layers.iter().any(|&rate| rate > 0.0);
        let pass = TeacherForced {
            gpt: self,
            modulation: self.modulation.condition(condition.as_ref()),
            condition,
            mask: cond.prefix_mask().map(|m| prefix_lm_mask(m, x.size()[1])),
            train,
            seed: drops.then(random::draw_seed),
        };
        (pass, dropout(&x, rates.token, train))
    }

    /// Weight of the output layer (V, D); the logits are `head_input · weightᵀ`.
    pub fn output_weight(&self) -> &Tensor {
        assert!(
            !self.config.options().act_behind_output(),
            "a loss in parts misses an option of the network"
        );
        self.output.weight()
    }
}

impl TeacherForced<'_> {
    /// Number of layers.
    pub fn num_layers(&self) -> usize {
        self.gpt.layers.len()
    }

    /// Runs layer `index`, from 0: (B, S, D) → (B, S, D). A second run has the same dropout mask,
    /// since each layer of a pass has its own seed.
    pub fn layer(&self, index: usize, x: &Tensor) -> Tensor {
        if let Some(seed) = self.seed {
            random::seed(rng::hash(seed, &[index as u64]).cast_signed());
        }
        let gpt = self.gpt;
        let input = AttentionInput {
            positions: Positions::Range(0),
            rows: None,
            rope: gpt.rope.as_ref(),
            mask: self.mask.as_ref(),
            dropout: if self.train { gpt.config.dropout.attention } else { 0.0 },
        };
        gpt.layers[index].forward(x, &self.modulation, &input, None, &gpt.config.dropout, self.train)
    }

    /// Runs the first `depth` layers.
    pub fn layers(&self, x: Tensor, depth: usize) -> Tensor {
        (0..depth).fold(x, |x, i| self.layer(i, &x))
    }

    /// Input of the output layer for each code, (B, N, D), from the last layer's output.
    pub fn head_input(&self, x: &Tensor) -> Tensor {
        let x = x.narrow(1, self.gpt.spec.prefix_len - 1, self.gpt.spec.num_tokens);
        self.gpt.final_norm(&x, self.condition.as_ref())
    }
}
