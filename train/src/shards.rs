//! Division of a phase's parameters among processes.
//!
//! The parameters, in order, are one vector, in which each begins at a multiple of 64 values. The
//! vector is cut into blocks, whose size depends on the parameters alone, and each process owns a
//! run of blocks: it sums their gradients over all processes, and has their moments and averages.
//! Vectorised loops give the same bits on such pieces as on whole parameters, and norms are taken
//! by block, so that nothing depends on the number of processes.
//!
//! R processes, P parameters, L values of the vector

use base::vars::Var;
use dist::World;
use tch::{Device, Kind, Tensor};
use weights::Slice;

use crate::{Error, Result};

/// Alignment of parameters in the vector.
const ALIGNMENT: i64 = 64;
/// Largest block.
const BLOCK: i64 = 1 << 18;
/// Number of blocks that a small vector is cut into, about.
const BLOCKS: i64 = 64;

/// Division of parameters. With one process each piece is a whole parameter in its own shape, with
/// several a run of its values.
#[derive(Debug)]
pub(crate) struct Shards {
    names: Vec<String>,
    shapes: Vec<Vec<i64>>,
    /// Place of each parameter in the vector.
    offsets: Vec<i64>,
    block: i64,
    /// End of each process's values in the vector; the last is L.
    ends: Vec<i64>,
    /// Beginning of this process's.
    start: i64,
    pieces: Vec<Piece>,
}

/// Part of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    /// Number of the parameter.
    param: usize,
    /// First value, in the parameter.
    start: i64,
    length: i64,
}

impl Shards {
    /// Divides parameters.
    ///
    /// # Errors
    /// Returns an error if several processes share a parameter that is not fp32 or not contiguous.
    pub fn new(params: &[Var], world: &World) -> Result<Self> {
        let unfit = |v: &&Var| v.tensor.kind() != Kind::Float || !v.tensor.is_contiguous();
        if let Some(v) = params.iter().find(unfit).filter(|_| world.size() > 1) {
            let found = format!("`{}` is {:?} with strides {:?}", v.name, v.tensor.kind(), v.tensor.stride());
            return Err(Error::Recipe(format!(
                "several processes share contiguous fp32 parameters; {found}"
            )));
        }
        let (names, shapes) = params.iter().map(|v| (v.name.clone(), v.tensor.size())).unzip();
        Ok(Self::divide(names, shapes, world.rank(), world.size()))
    }

    fn divide(names: Vec<String>, shapes: Vec<Vec<i64>>, rank: usize, ranks: usize) -> Self {
        let (mut offsets, mut total) = (vec![], 0);
        for shape in &shapes {
            offsets.push(total);
            total += aligned(values(shape));
        }
        let block = (total / BLOCKS).max(1).unsigned_abs().next_power_of_two().cast_signed();
        let block = block.clamp(ALIGNMENT, BLOCK);
        let blocks = total.max(1).unsigned_abs().div_ceil(block.unsigned_abs()).cast_signed();
        let each = blocks.unsigned_abs().div_ceil(ranks as u64).cast_signed() * block;
        let ends: Vec<i64> = (1..=ranks as i64).map(|r| (r * each).min(total)).collect();
        let own = if rank == 0 { 0 } else { ends[rank - 1] }..ends[rank];
        let cut = |(param, (at, shape)): (usize, (&i64, &Vec<i64>))| {
            let (start, end) = (own.start.max(*at), own.end.min(at + values(shape)));
            let whole = ranks == 1; // an empty parameter, too
            let piece = Piece { param, start: start - at, length: (end - start).max(0) };
            (whole || end > start).then_some(piece)
        };
        let pieces = offsets.iter().zip(&shapes).enumerate().filter_map(cut).collect();
        Shards { names, shapes, offsets, block, ends, start: own.start, pieces }
    }

    fn is_whole(&self) -> bool {
        self.ends.len() == 1
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.shapes.len()
    }

    /// Names of the parameters that this process has a piece of, piece by piece.
    pub fn piece_names(&self) -> Vec<String> {
        self.pieces.iter().map(|piece| self.names[piece.param].clone()).collect()
    }

    /// This process's pieces of the parameters, as views, with the parameter of each.
    pub fn pieces_of(&self, params: &[Var]) -> Vec<(Var, Tensor)> {
        let tensors: Vec<Tensor> = params.iter().map(|v| v.tensor.shallow_clone()).collect();
        let owners = self.pieces.iter().map(|piece| params[piece.param].shallow_clone());
        owners.zip(self.views_of(&tensors)).collect()
    }

    /// This process's pieces of tensors in the parameters' shapes, as views.
    pub fn views_of(&self, tensors: &[Tensor]) -> Vec<Tensor> {
        self.pieces.iter().map(|piece| self.piece(piece, &tensors[piece.param].detach())).collect()
    }

    /// This process's piece of a tensor in the shape of the parameter `name`; `None` if it has none
    /// of it, or the shape is another.
    pub fn piece_of(&self, name: &str, tensor: &Tensor) -> Option<Tensor> {
        let piece = self.pieces.iter().find(|piece| self.names[piece.param] == name)?;
        (tensor.size() == self.shapes[piece.param]).then(|| self.piece(piece, tensor))
    }

    fn piece(&self, piece: &Piece, tensor: &Tensor) -> Tensor {
        match self.is_whole() {
            true => tensor.shallow_clone(),
            false => tensor.reshape([-1]).narrow(0, piece.start, piece.length),
        }
    }

    /// Gradients of all parameters as one vector (L) fp32 on the CPU. Undefined ones are -0, which
    /// changes no sum.
    pub fn flatten(&self, gradients: &[Tensor]) -> Tensor {
        let flat = Tensor::full([self.total()], -0.0, (Kind::Float, Device::Cpu));
        let _guard = tch::no_grad_guard();
        for (gradient, (at, shape)) in gradients.iter().zip(self.offsets.iter().zip(&self.shapes)) {
            if gradient.defined() {
                flat.narrow(0, *at, values(shape)).copy_(&gradient.reshape([-1]));
            }
        }
        flat
    }

    /// Sums the processes' gradients of this process's values, in the order of ranks, onto `sum`.
    ///
    /// # Errors
    /// Returns an error if another process fails.
    pub fn add_round(&self, sum: &mut Option<Tensor>, flat: Tensor, world: &World) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let parts = world.exchange_slices(flat, &self.ends)?; // (R, own length)
        for part in parts.unbind(0) {
            match sum {
                Some(sum) => *sum += part,
                None => *sum = Some(part.copy()),
            }
        }
        Ok(())
    }

    /// This process's pieces of its summed values; undefined ones of parameters that took no part.
    pub fn pieces_of_sum(&self, sum: &Tensor, took_part: &[bool], device: Device) -> Vec<Tensor> {
        let piece = |piece: &Piece| match took_part[piece.param] {
            true => {
                let at = self.offsets[piece.param] + piece.start - self.start;
                sum.narrow(0, at, piece.length).to_device(device)
            }
            false => Tensor::new(),
        };
        self.pieces.iter().map(piece).collect()
    }

    fn total(&self) -> i64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The norm of all pieces together, fp32 on their device: of the norms of their blocks, those of
    /// all processes. Undefined pieces do not count.
    ///
    /// # Errors
    /// Returns an error if another process fails.
    pub fn norm(&self, pieces: &[Tensor], world: &World) -> Result<Tensor> {
        let own: Vec<Tensor> = self.pieces.iter().zip(pieces).flat_map(|(p, g)| self.norms(p, g)).collect();
        let own = if own.is_empty() { None } else { Some(Tensor::stack(&own, 0)) };
        if self.is_whole() {
            return Ok(own.map_or_else(|| Tensor::from(0f32), |norms| norms.norm()));
        }
        let bits = own.map_or(Ok(vec![]), |norms| Vec::<f32>::try_from(norms.to_device(Device::Cpu)))?;
        let bits: Vec<u32> = bits.into_iter().map(f32::to_bits).collect();
        let all: Vec<f32> = world.all_gather_values(bits)?.concat().into_iter().map(f32::from_bits).collect();
        Ok(if all.is_empty() { Tensor::from(0f32) } else { Tensor::from_slice(&all).norm() })
    }

    /// Norms of a piece, block by block.
    fn norms(&self, piece: &Piece, gradient: &Tensor) -> Vec<Tensor> {
        if !gradient.defined() {
            return vec![];
        }
        let flat = gradient.to_kind(Kind::Float).reshape([-1]);
        let first = self.offsets[piece.param] + piece.start;
        let mut norms = vec![];
        let mut at = 0;
        while at < piece.length {
            let length = (self.block - (first + at) % self.block).min(piece.length - at);
            norms.push(flat.narrow(0, at, length).norm());
            at += length;
        }
        norms
    }

    /// Makes the parameters whole again after each process changed its pieces.
    ///
    /// # Errors
    /// Returns an error if another process fails.
    pub fn spread(&self, params: &[Tensor], world: &World) -> Result<()> {
        if self.is_whole() {
            return Ok(());
        }
        let _guard = tch::no_grad_guard();
        let mut flat = self.flatten(params);
        world.gather_in_place(&mut flat, &self.ends)?;
        for (param, (at, shape)) in params.iter().zip(self.offsets.iter().zip(&self.shapes)) {
            param.detach().copy_(&flat.narrow(0, *at, values(shape)).view(shape.as_slice()));
        }
        Ok(())
    }

    /// Name and slice of each piece; no slice for a whole parameter.
    pub fn slices(&self) -> impl Iterator<Item = (&str, Option<Slice>)> {
        self.pieces.iter().map(|piece| {
            let slice = Slice { shape: self.shapes[piece.param].clone(), start: piece.start };
            (self.names[piece.param].as_str(), (!self.is_whole()).then_some(slice))
        })
    }

    /// One number for each parameter, of which each process has those of its pieces; all processes
    /// that share a parameter have the same.
    ///
    /// # Errors
    /// Returns an error if another process fails.
    pub fn assemble_numbers(&self, own: &[i64], world: &World) -> Result<Vec<i64>> {
        let mut all = vec![0f64; self.parameters()];
        for (piece, number) in self.pieces.iter().zip(own) {
            all[piece.param] = *number as f64;
        }
        let gathered = world.all_gather(&all)?;
        let largest = |i: usize| gathered.iter().map(|numbers| numbers[i]).fold(0.0, f64::max);
        Ok((0..all.len()).map(|i| largest(i) as i64).collect())
    }
}

fn values(shape: &[i64]) -> i64 {
    shape.iter().product()
}

fn aligned(n: i64) -> i64 {
    n.unsigned_abs().next_multiple_of(ALIGNMENT.unsigned_abs()).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(rank: usize, ranks: usize) -> Shards {
        let shapes = vec![vec![70, 3], vec![], vec![0], vec![1000], vec![64, 64]];
        let names = (0..shapes.len()).map(|i| format!("p{i}")).collect();
        Shards::divide(names, shapes, rank, ranks)
    }

    #[test]
    fn every_value_has_one_owner_and_cuts_are_aligned() {
        let whole = shards(0, 1);
        for ranks in 1..9 {
            let all: Vec<Shards> = (0..ranks).map(|rank| shards(rank, ranks)).collect();
            for param in 0..whole.parameters() {
                let mut pieces: Vec<Piece> = all.iter().flat_map(|s| s.pieces.clone()).collect();
                pieces.retain(|piece| piece.param == param);
                let ends = pieces.iter().fold(0, |end, piece| {
                    assert!(piece.start == end && piece.start % ALIGNMENT == 0, "{ranks}: {pieces:?}");
                    end + piece.length
                });
                assert_eq!(ends, values(&whole.shapes[param]), "{ranks} processes, parameter {param}");
            }
        }
    }

    #[test]
    fn norms_by_block_do_not_depend_on_the_division() {
        tch::manual_seed(1);
        let whole = shards(0, 1);
        let of = |shape: &Vec<i64>| Tensor::randn(shape.as_slice(), (Kind::Float, Device::Cpu));
        let gradients: Vec<Tensor> = whole.shapes.iter().map(of).collect();
        let norms = |s: &Shards, pieces: &[Tensor]| -> Vec<f64> {
            let all = s.pieces.iter().zip(pieces).flat_map(|(p, g)| s.norms(p, g));
            all.map(|norm| norm.double_value(&[])).collect()
        };
        let one = norms(&whole, &gradients);
        for ranks in 2..7 {
            let mut many = vec![];
            for rank in 0..ranks {
                let s = shards(rank, ranks);
                let own = s.flatten(&gradients).narrow(0, s.start, s.ends[rank] - s.start);
                many.extend(norms(&s, &s.pieces_of_sum(&own, &[true; 5], Device::Cpu)));
            }
            assert_eq!(one, many, "{ranks} processes");
        }
        let norm = whole.norm(&gradients, &World::default()).unwrap().double_value(&[]);
        let expected = gradients.iter().map(|g| g.square().sum(Kind::Double).double_value(&[])).sum::<f64>();
        assert!((norm / expected.sqrt() - 1.0).abs() < 1e-6);
    }
}
