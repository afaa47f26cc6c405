//! Codes of images at different steps, with different settings, from one batch of logits.
//!
//! B images, R rows (each image's conditional row, under guidance followed by its unconditional
//! one), V vocabulary

use base::SampleStream;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::batch::mix_rows;
use crate::config::SamplingConfig;
use crate::sample::{self, RandomInputs};

/// Draw of one image's next code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowDraw<'a> {
    /// Guidance, temperature and filters.
    pub config: &'a SamplingConfig,
    /// Random numbers of the image.
    pub stream: SampleStream,
    /// Number of the code, from 0.
    pub step: usize,
}

impl RowDraw<'_> {
    fn rows(&self) -> usize {
        if self.config.guidance.active() { 2 } else { 1 }
    }

    /// Scale of this step; `None`: the conditional logits unchanged.
    fn scale(&self, steps: usize) -> Option<f32> {
        let scale = self.config.guidance.at(self.step, steps);
        (self.config.guidance.active() && scale > 1.0).then_some(scale as f32)
    }

    fn uniform(&self) -> f64 {
        sample::uniform(self.stream, self.step)
    }
}

/// Logits (R, V) of images of `steps` codes → a code each, with [`sample::NOT_FINITE`] among them.
pub(crate) fn draw(logits: &Tensor, images: &[RowDraw], steps: usize) -> Vec<i64> {
    match logits.device() {
        Device::Cpu => on_cpu(logits, images, steps),
        _ => by_config(logits, images, steps),
    }
}

/// Each image by itself.
fn on_cpu(logits: &Tensor, images: &[RowDraw], steps: usize) -> Vec<i64> {
    const FEW: usize = 4; // handing rows to other threads takes longer than drawing
    let v = logits.size()[1] as usize;
    let mut values = libtorch_ext::bytes::f32_values(logits);
    let mut rest = &mut values[..];
    let mut parts: Vec<(&mut [f32], &RowDraw)> = vec![];
    for image in images {
        let (rows, after) = rest.split_at_mut(image.rows() * v);
        parts.push((rows, image));
        rest = after;
    }
    let one = |(rows, image): (&mut [f32], &RowDraw)| {
        let (cond, uncond) = rows.split_at_mut(v);
        if let Some(scale) = image.scale(steps) {
            mix_rows(cond, uncond, scale);
        }
        sample::sample_row(cond, image.config, image.uniform())
    };
    match parts.len() {
        ..=FEW => parts.into_iter().map(one).collect(),
        _ => parts.into_par_iter().map(one).collect(),
    }
}

/// Images of equal settings together, by operations on tensors.
fn by_config(logits: &Tensor, images: &[RowDraw], steps: usize) -> Vec<i64> {
    let device = logits.device();
    let first_row = images.iter().scan(0, |row, image| {
        *row += image.rows() as i64;
        Some(*row - image.rows() as i64)
    });
    let mut left: Vec<(usize, i64)> = first_row.enumerate().collect();
    let mut codes = vec![sample::NOT_FINITE; images.len()];
    while let Some(&(first, _)) = left.first() {
        let config = images[first].config;
        let (group, rest) = left.into_iter().partition::<Vec<_>, _>(|(i, _)| images[*i].config == config);
        left = rest;
        let rows: Vec<i64> = group.iter().map(|(_, row)| *row).collect();
        let rows = Tensor::from_slice(&rows).to_device(device);
        let cond = logits.index_select(0, &rows); // (group, V)
        let guided = if config.guidance.active() {
            let scales: Vec<f32> =
                group.iter().map(|(i, _)| config.guidance.at(images[*i].step, steps) as f32).collect();
            let scales = Tensor::from_slice(&scales).to_device(device).unsqueeze(1);
            let uncond = logits.index_select(0, &(rows + 1));
            ((&cond - &uncond) * &scales + uncond).where_self(&scales.gt(1.0), &cond)
        } else {
            cond
        };
        let uniforms: Vec<f64> = group.iter().map(|(i, _)| images[*i].uniform()).collect();
        let uniforms = Tensor::from_slice(&uniforms).to_device(device).unsqueeze(1);
        let drawn = sample::sample(&guided, config, &RandomInputs::Uniforms(uniforms));
        let drawn = Vec::<i64>::try_from(drawn.view(-1).to_kind(Kind::Int64).to_device(Device::Cpu))
            .expect("codes are int64");
        group.iter().zip(drawn).for_each(|((i, _), code)| codes[*i] = code);
    }
    codes
}
