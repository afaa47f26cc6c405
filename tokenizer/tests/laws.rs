//! Properties of every tokenizer and of the quantizer.

use base::config::Document;
use base::testing::{max_abs, recipe_integers, recipe_tensor};
use base::{Build, Codes, Images, Mode, Vars};
use tch::{Device, Kind, Tensor};
use tokenizer::{
    CodeLayout, Gradient, Model, Quantizer, Tokenizer, TokenizerConfig, VectorQuantizer,
    VectorQuantizerConfig,
};

const CNN: &str = "{ channels: 32, encoder_multipliers: [1, 2], decoder_multipliers: [2, 1], res_blocks: 1, \
     z_channels: 16, attention: false, adaptive_norm: true, upsample: depth_to_space }";
const QUANTIZER: &str = "{ codebook_size: 64, code_dim: 4, l2_normalize: true, gradient: rotation, commitment: 0.25, entropy: 0.01 }";

fn gigatok(latent: &str) -> String {
    format!(
        "type: gigatok\nimage_size: 16\nlatent: {latent}\ncnn: {CNN}\nencoder: {{ width: 32, layers: 2, heads: 2 }}\n\
         decoder: {{ width: 32, layers: 2, heads: 4 }}\nalignment: {{ layer: 1, width: 24 }}\nquantizer: {QUANTIZER}"
    )
}

/// One of each kind.
fn configs() -> Vec<TokenizerConfig> {
    let cnn = CNN
        .replace("attention: false", "attention: true")
        .replace("adaptive_norm: true", "adaptive_norm: false");
    [
        gigatok("{ type: sequence, num_tokens: 16, query_init: multi_level }"),
        gigatok("{ type: sequence, num_tokens: 5, query_init: mean }"),
        gigatok("{ type: sequence, num_tokens: 5, query_init: learned }"),
        gigatok("{ type: grid, layers: standard }"),
        gigatok("{ type: grid, layers: qformer }"),
        gigatok("{ type: grid, layers: standard }").replace(QUANTIZER, "{ type: fsq, levels: [4, 4, 4] }"),
        format!(
            "type: llamagen_vq\nimage_size: 16\ncnn: {}\nquantizer: {QUANTIZER}",
            cnn.replace("depth_to_space", "nearest")
        ),
    ]
    .iter()
    .map(|text| TokenizerConfig::from_document(&Document::parse("test", text).unwrap()).unwrap())
    .collect()
}

fn build(config: &TokenizerConfig) -> Model {
    tch::manual_seed(1);
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
    Model::new(&vars.root(), config).unwrap()
}

fn images(batch: i64, side: i64) -> Images {
    Images::new(recipe_tensor("images", 3, &[batch, 3, side, side], -1.0, 1.0)).unwrap()
}

#[test]
fn shapes_follow_the_layout() {
    for config in configs() {
        let model = build(&config);
        let spec = model.spec();
        let n = match spec.layout {
            CodeLayout::Sequence { len } => len,
            CodeLayout::Grid { height, width } => height * width,
        };
        assert_eq!(n, spec.num_tokens);
        let codes = model.encode(&images(2, 16)).unwrap();
        assert_eq!(codes.tensor().size(), [2, n]);
        assert_eq!(model.features(&images(2, 16)).unwrap().size(), [2, n, spec.code_dim]);
        assert_eq!(model.decode(&codes).unwrap().tensor().size(), [2, 3, 16, 16]);
    }
}

/// A NaN in the encoder, the codebook or the decoder; the code that is refused names the part and
/// the image.
#[test]
fn what_is_not_finite_is_neither_encoded_nor_decoded() {
    let text = gigatok("{ type: grid, layers: standard }");
    let config = TokenizerConfig::from_document(&Document::parse("test", &text).unwrap()).unwrap();
    let with = |name: &str, value: f64| {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
        let model = Model::new(&vars.root(), &config).unwrap();
        let _ = vars.get(name).unwrap().view(-1).narrow(0, 5, 1).fill_(value);
        model
    };
    for name in ["encoder.conv_in.weight", "decoder.conv_out.weight", "quantize.embedding.weight"] {
        for value in [f64::NAN, f64::INFINITY] {
            let model = with(name, value);
            let codes = Codes::new(recipe_integers("codes", 1, &[2, 64], 64)).unwrap();
            let (encoded, decoded) = (model.encode(&images(2, 16)), model.decode(&codes));
            let texts = [encoded.map(drop), decoded.map(drop)].map(|r| r.err().map(|e| e.to_string()));
            match name {
                "encoder.conv_in.weight" => {
                    let error = texts[0].as_deref().unwrap();
                    assert!(error.contains("encoder makes numbers of image 0 of the batch"), "{error}");
                }
                "decoder.conv_out.weight" => {
                    let error = texts[1].as_deref().unwrap();
                    assert!(error.contains("decoder makes numbers of image 0 of the batch"), "{error}");
                    assert_eq!(texts[0], None);
                }
                _ => assert!(texts[0].as_deref().unwrap().contains("codebook"), "{texts:?}"),
            }
        }
    }
    let model = with("encoder.conv_in.bias", 0.0);
    let batch = images(3, 16).into_tensor();
    let _ = batch.get(1).get(0).narrow(0, 2, 1).fill_(f64::NAN);
    let error = model.encode(&Images::new(batch).unwrap()).unwrap_err();
    assert!(error.of_images(|i| format!("`{i}.png`")).to_string().contains("of `1.png` that"));
}

#[test]
fn alignment_projects_a_decoder_layer_or_the_cnn_onto_the_teachers_width() {
    for (layer, grows) in [("1", "s2ddecoder.distill_mlp.0.weight"), ("cnn", "distill_mlp.0.weight")] {
        let text =
            gigatok("{ type: grid, layers: standard }").replace("layer: 1", &format!("layer: {layer}"));
        let config = TokenizerConfig::from_document(&Document::parse("test", &text).unwrap()).unwrap();
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
        let model = Model::new(&vars.root(), &config).unwrap();
        vars.set_requires_grad(true);
        let out = model.forward_train(images(2, 16).tensor(), Mode::Train, false);
        let aligned = out.aligned.unwrap();
        assert_eq!(aligned.size(), [2, 64, 24]);
        aligned.sum(Kind::Float).backward();
        assert!(vars.get(grows).unwrap().grad().defined(), "{layer}");
        let latents = vars.get("quant_conv.weight").unwrap().grad();
        assert_eq!(latents.defined(), layer == "1", "the CNN's features come before the quantizer");
    }
}

#[test]
fn encoding_a_batch_equals_encoding_its_rows() {
    for config in configs() {
        let model = build(&config);
        let batch = images(3, 16);
        let together = model.features(&batch).unwrap();
        for i in 0..3 {
            let row = Images::new(batch.tensor().narrow(0, i, 1)).unwrap();
            assert!(max_abs(&model.features(&row).unwrap(), &together.narrow(0, i, 1)) < 1e-5);
        }
    }
}

/// 64 pixels aside, so that packed convolutions have their own kernel.
#[test]
fn a_packed_tokenizer_agrees_and_gives_an_image_the_same_bits_in_any_batch() {
    let text = gigatok("{ type: grid, layers: standard }").replace("image_size: 16", "image_size: 64");
    let config = TokenizerConfig::from_document(&Document::parse("test", &text).unwrap()).unwrap();
    for (kind, bound) in [(Kind::Float, 1e-5), (Kind::BFloat16, 0.05)] {
        tch::manual_seed(1);
        let vars = Vars::new(Device::Cpu, kind, Build::Random);
        let mut model = Model::new(&vars.root(), &config).unwrap();
        let batch = images(3, 64);
        let codes = Codes::new(recipe_integers("codes", 1, &[3, 1024], 64)).unwrap();
        let off = |a: &Tensor, b: &Tensor| ((a - b).norm() / b.norm()).double_value(&[]);
        let (plain, pixels) = (model.features(&batch).unwrap(), model.decode(&codes).unwrap());
        model.pack(&vars);
        let (together, decoded) = (model.features(&batch).unwrap(), model.decode(&codes).unwrap());
        assert!(off(&together, &plain) < bound && off(decoded.tensor(), pixels.tensor()) < bound, "{kind:?}");
        for i in 0..3 {
            let image = Images::new(batch.tensor().narrow(0, i, 1)).unwrap();
            assert_eq!(model.features(&image).unwrap(), together.narrow(0, i, 1));
            let row = Codes::new(codes.tensor().narrow(0, i, 1)).unwrap();
            assert_eq!(model.decode(&row).unwrap().tensor(), &decoded.tensor().narrow(0, i, 1));
        }
    }
}

#[test]
fn training_and_inference_agree_on_codes_and_nearly_on_pixels() {
    for config in configs() {
        let model = build(&config);
        let batch = images(2, 16);
        let output = model.forward_train(batch.tensor(), Mode::Eval, true);
        let codes = model.encode(&batch).unwrap();
        assert_eq!(codes.tensor(), &output.codes);
        let decoded = model.decode(&codes).unwrap();
        // The rotation trick's 1e-6 terms separate the two.
        assert!(max_abs(decoded.tensor(), &output.reconstruction) < 1e-3);
        assert_eq!(output.aligned.is_some(), matches!(config, TokenizerConfig::Gigatok(_)));
        assert_eq!(output.direct.unwrap().size(), [2, 3, 16, 16]);
    }
}

#[test]
fn wrong_sizes_and_codes_out_of_range_are_refused() {
    for config in configs() {
        let model = build(&config);
        assert!(model.encode(&images(1, 15)).is_err());
        let n = model.spec().num_tokens;
        let codes =
            |value: i64, n: i64| Codes::new(Tensor::full([1, n], value, (Kind::Int64, Device::Cpu))).unwrap();
        let error = model.decode(&codes(64, n)).unwrap_err().to_string();
        assert!(error.contains("0..64") && error.contains("64..=64"), "{error}");
        assert!(model.decode(&codes(-1, n)).is_err());
        assert!(model.decode(&codes(0, n + 2)).is_err());
    }
}

fn quantizer(gradient: Gradient, l2_normalize: bool) -> VectorQuantizer {
    tch::manual_seed(2);
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
    let config = VectorQuantizerConfig {
        codebook_size: 50,
        code_dim: 6,
        l2_normalize,
        gradient,
        commitment: 0.25,
        entropy: 0.1,
    };
    let quantizer = VectorQuantizer::new(&vars.root(), &config);
    let mut codebook = vars.get("embedding.weight").unwrap();
    tch::no_grad(|| codebook.copy_(&recipe_tensor("codebook", 5, &[50, 6], -1.0, 1.0)));
    quantizer
}

#[test]
fn every_code_is_its_own_nearest_code() {
    for l2 in [true, false] {
        let q = quantizer(Gradient::Rotation, l2);
        let codes = Codes::new(recipe_integers("codes", 1, &[3, 40], 50)).unwrap();
        assert_eq!(&q.encode(&q.lookup(&codes)), codes.tensor());
    }
}

#[test]
fn the_choice_is_the_nearest_row_by_brute_force() {
    let q = quantizer(Gradient::StraightThrough, true);
    let z = recipe_tensor("z", 7, &[2, 20, 6], -1.0, 1.0);
    let all = Codes::new(Tensor::arange(50, (Kind::Int64, Device::Cpu)).view([1, 50])).unwrap();
    let rows: Vec<Vec<f64>> = Vec::try_from(q.lookup(&all).squeeze_dim(0).to_kind(Kind::Double)).unwrap();
    let vectors: Vec<Vec<f64>> = Vec::try_from(z.view([40, 6]).to_kind(Kind::Double)).unwrap();
    let codes: Vec<i64> = Vec::try_from(q.encode(&z).view([-1])).unwrap();
    for (v, code) in vectors.iter().zip(codes) {
        // On unit rows the nearest is the one of the largest dot product.
        let dot = |r: &Vec<f64>| r.iter().zip(v).map(|(a, b)| a * b).sum::<f64>();
        let best = (0..50).max_by(|&a, &b| dot(&rows[a]).total_cmp(&dot(&rows[b]))).unwrap();
        assert_eq!(best as i64, code);
    }
}

#[test]
fn straight_through_passes_the_gradient_unchanged() {
    let q = quantizer(Gradient::StraightThrough, false);
    let z = recipe_tensor("z", 9, &[1, 8, 6], -1.0, 1.0).set_requires_grad(true);
    let upstream = recipe_tensor("g", 9, &[1, 8, 6], -1.0, 1.0);
    (q.forward(&z, Mode::Eval).z * &upstream).sum(Kind::Float).backward();
    assert!(max_abs(&z.grad(), &upstream) < 1e-6);
}

#[test]
fn the_rotation_trick_rotates_and_rescales_the_gradient() {
    let q = quantizer(Gradient::Rotation, false);
    let z = recipe_tensor("z", 11, &[1, 8, 6], -1.0, 1.0).set_requires_grad(true);
    let out = q.forward(&z, Mode::Eval);
    let upstream = recipe_tensor("g", 11, &[1, 8, 6], -1.0, 1.0);
    (&out.z * &upstream).sum(Kind::Float).backward();
    // A rotation times |q|/|z| keeps lengths up to that ratio, and the angle to the vector becomes
    // the angle to its code.
    let norm = |t: &Tensor| t.norm_scalaropt_dim(2.0, [2i64], false);
    let ratio = norm(&out.z) / norm(&z);
    assert!(max_abs(&norm(&z.grad()), &(norm(&upstream) * &ratio)) < 1e-4);
    let along = |a: &Tensor, b: &Tensor| {
        (a * b).sum_dim_intlist([2i64].as_slice(), false, Kind::Float) / norm(a) / norm(b)
    };
    assert!(max_abs(&along(&z.grad(), &z), &along(&upstream, &out.z)) < 1e-4);
}

#[test]
fn usage_counts_distinct_codes_of_the_queue() {
    let q = quantizer(Gradient::Rotation, true);
    assert_eq!(q.usage(), Some(1.0 / 50.0)); // zeros only
    let codes = Codes::new(Tensor::arange_start(10, 20, (Kind::Int64, Device::Cpu)).view([1, 10])).unwrap();
    q.forward(&q.lookup(&codes), Mode::Eval);
    assert_eq!(q.usage(), Some(1.0 / 50.0), "evaluation leaves the queue alone");
    q.forward(&q.lookup(&codes), Mode::Train);
    assert_eq!(q.usage(), Some(11.0 / 50.0));
}
