//! The evaluation's networks and statistics, on images of noise with random weights.

use anyhow::Result;
use backbones::{FeatureExtractor, InceptionExtractor, InputPath, WeightSource};
use base::{ImagesU8, Precision};
use cli::bench::{BenchArgs, Work};
use eval::{AccumulateSpec, FeatureAccumulator};
use tch::{Device, Kind, Tensor};

use super::machine::Machine;
use super::row::Row;
use super::timing::measure;

/// Side of the images, as for the published scores.
const SIDE: i64 = 256;
/// Operations of Inception at 299×299; everything else is 3 % of them (docs/performance.md).
const OPERATIONS: f64 = 11.4e9;

/// Images in memory → resize, Inception, and what FID, sFID and the Inception Score gather.
pub fn evaluate(
    args: &BenchArgs,
    machine: &Machine,
    device: Device,
    add: &mut dyn FnMut(Row) -> Result<()>,
) -> Result<()> {
    let network = InceptionExtractor::open(&WeightSource::Random { seed: 0 }, InputPath::Tf, device)?;
    for &batch in &args.batch_size {
        let pixels = Tensor::randint(256, [batch, 3, SIDE, SIDE], (Kind::Uint8, Device::Cpu));
        let images = ImagesU8::new(pixels)?;
        let indices: Vec<u64> = (0..batch as u64).collect();
        let gather = AccumulateSpec { groups: 1, spatial: true, ..AccumulateSpec::default() };
        let mut collector = FeatureAccumulator::new(network.id().clone(), gather);
        let measured = measure(device, args.repeat, || {
            collector.update(&network.extract(&images)?, &indices)?;
            Ok(())
        })?;
        let operations = OPERATIONS * batch as f64;
        add(Row::new(Work::Eval, Precision::Fp32, batch, measured, operations, machine))?;
    }
    Ok(())
}
