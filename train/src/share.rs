//! Validation by several processes.

use dist::World;

use crate::Result;

/// The processes that share a validation: each takes every R-th batch.
#[derive(Debug, Clone, Copy)]
pub struct Share<'a>(&'a World);

impl<'a> Share<'a> {
    /// That of these processes.
    pub fn new(world: &'a World) -> Self {
        Share(world)
    }

    /// Sums over all batches, in their order, of the sums over each of this process's batches.
    ///
    /// # Errors
    /// Returns an error if another process fails.
    pub fn sum<const N: usize>(self, own: &[[f64; N]]) -> Result<[f64; N]> {
        let bits = |row: &[f64; N]| row.map(f64::to_bits).to_vec();
        let all = self.0.all_gather_values(own.iter().map(bits).collect::<Vec<_>>())?;
        let mut sums = [0.0; N];
        for batch in 0..all.iter().map(Vec::len).sum() {
            let row = &all[batch % all.len()][batch / all.len()];
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from_bits(*value));
        }
        Ok(sums)
    }

    /// The largest of each number among all processes, which have as many.
    ///
    /// # Errors
    /// Returns an error if another process fails.
    pub fn largest(self, own: &[f64]) -> Result<Vec<f64>> {
        let all = self.0.all_gather(own)?;
        Ok((0..own.len()).map(|i| all.iter().map(|row| row[i]).fold(f64::MIN, f64::max)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_sums_in_order() {
        let world = World::default();
        let share = Share::new(&world);
        assert_eq!(share.sum(&[[1.0, 0.1], [2.0, 0.2], [0.0, 0.3]]).unwrap(), [3.0, 0.1 + 0.2 + 0.3]);
        assert_eq!(share.sum::<2>(&[]).unwrap(), [0.0, 0.0]);
        assert_eq!(share.largest(&[1.0, -2.0]).unwrap(), [1.0, -2.0]);
    }
}
