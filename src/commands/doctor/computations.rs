//! Computations of the self-test; each returns the largest error.

use ar_model::{ArConfig, AutoregressiveModel, Conditioning, Gpt};
use base::config::Document;
use base::{Build, Precision, Vars};
use libtorch_ext::cuda_graph::CudaGraphs;
use settings::GpuOptions;
use tch::{Device, Kind, Tensor};

/// Values in [-1, 1] that need no random generator.
fn values(shape: &[i64], phase: f64) -> Tensor {
    let n = shape.iter().product::<i64>();
    (Tensor::arange(n, (Kind::Double, Device::Cpu)) * 0.7 + phase).sin().view(shape)
}

fn largest_error(found: &Tensor, expected: &Tensor) -> f64 {
    let found = found.to_device(Device::Cpu).to_kind(Kind::Double);
    (found - expected).abs().max().double_value(&[])
}

pub fn matmul(device: Device, kind: Kind) -> f64 {
    let (a, b) = (values(&[48, 64], 0.1), values(&[64, 32], 0.2));
    let found = a.to_kind(kind).to_device(device).matmul(&b.to_kind(kind).to_device(device));
    let products = a.unsqueeze(2) * b.unsqueeze(0); // (48, 64, 32)
    largest_error(&found, &products.sum_dim_intlist([1i64].as_slice(), false, Kind::Double))
}

pub fn attention(device: Device) -> f64 {
    let [q, k, v] = [0.1, 0.2, 0.3].map(|phase| values(&[1, 2, 16, 8], phase));
    let on = |t: &Tensor| t.to_kind(Kind::Float).to_device(device);
    let found = Tensor::scaled_dot_product_attention(
        &on(&q),
        &on(&k),
        &on(&v),
        None::<&Tensor>,
        0.0,
        true,
        None,
        false,
    );
    let future = Tensor::ones([16, 16], (Kind::Bool, Device::Cpu)).triu(1);
    let scores = q.matmul(&k.transpose(2, 3)) / 8f64.sqrt();
    let weights = scores.masked_fill(&future, f64::NEG_INFINITY).softmax(3, Kind::Double);
    largest_error(&found, &weights.matmul(&v))
}

pub fn convolution(device: Device) -> f64 {
    let (x, w) = (values(&[1, 4, 10, 10], 0.1), values(&[6, 4, 3, 3], 0.2));
    let on = |t: &Tensor| t.to_kind(Kind::Float).to_device(device);
    let found = on(&x).conv2d(&on(&w), None::<&Tensor>, 1, 0, 1, 1);
    let columns = x.unfold(2, 3, 1).unfold(3, 3, 1); // (1, 4, 8, 8, 3, 3)
    let products = columns.unsqueeze(1) * w.view([1i64, 6, 4, 1, 1, 3, 3].as_slice());
    largest_error(&found, &products.sum_dim_intlist([2i64, 5, 6].as_slice(), false, Kind::Double))
}

/// Records `y = 2x + 1` and replays it on another x.
pub fn graph(device: Device) -> f64 {
    let Device::Cuda(index) = device else { return f64::INFINITY };
    let (x, y) = (values(&[64], 0.1).to_device(device), values(&[64], 0.0).to_device(device));
    let second = values(&[64], 0.2);
    let work = || y.shallow_clone().copy_(&(&x * 2.0 + 1.0));
    let replayed = CudaGraphs::open(index).and_then(|graphs| {
        graphs.on_stream(|stream| {
            work();
            let graph = stream.capture(work)?;
            x.shallow_clone().copy_(&second);
            stream.replay(&graph)
        })
    });
    replayed.map_or(f64::INFINITY, |()| largest_error(&y, &(second * 2.0 + 1.0)))
}

/// Logits of a small transformer by the GPU kernels, with weights and cache of 8 bits, compared
/// with libtorch's in fp32: the largest error as a share of the largest logit.
pub fn kernels(device: Device) -> f64 {
    let error = || -> anyhow::Result<f64> {
        let text = "{type: gpt, width: 128, layers: 2, heads: 2, vocab_size: 64, num_tokens: 16, position: rope_2d, \
                    conditioning: {type: class, num_classes: 4}}";
        let config = ArConfig::from_document(&Document::parse("self-test", text)?)?;
        let vars = Vars::new(device, Kind::Float, Build::Random);
        let gpt = Gpt::new(&vars.root(), &config)?;
        tch::no_grad(|| {
            for (i, mut var) in vars.all().into_iter().enumerate() {
                var.tensor.copy_(&(values(&var.tensor.size(), i as f64) * 0.2));
            }
        });
        let codes = Tensor::arange(16, (Kind::Int64, device)).view([1, 16]);
        let cond = Conditioning::Class(codes.narrow(1, 3, 1).view(-1));
        let expected = gpt.logits(&cond, &codes).to_device(Device::Cpu).to_kind(Kind::Double);
        let flags = GpuOptions { gpu_kernels: true, int8_cache: true };
        let decoder = generate::decoder(gpt, device, Precision::Int8, flags)?;
        let mut cache = decoder.new_cache(1);
        let mut found = vec![decoder.prefill(&cond, &mut cache)];
        found.extend((0..15).map(|t| decoder.decode_step(&codes.narrow(1, t, 1), 1 + t, &mut cache)));
        let found = Tensor::stack(&found, 1);
        Ok(largest_error(&found, &expected) / expected.abs().max().double_value(&[]))
    };
    error().unwrap_or(f64::INFINITY)
}
