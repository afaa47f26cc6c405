//! Small tokenizers: every intermediate value, the losses of a training pass and their gradients.

use anyhow::{Context, Result, bail};
use base::{Codes, Images, Mode, Precision, Vars};
use tch::{Device, Kind, Tensor};
use tokenizer::{GigaTok, Loaded, Model, QuantizerConfig, Tokenizer, TokenizerConfig, TrainOutput};
use train::losses::{reconstruction, semantic};
use train::optim::global_norm;

use crate::check::{Check, Near, Rule, value};
use crate::golden::Golden;

/// A code may differ where the two nearest rows are this near to being equally near.
pub const TIE: f64 = 1e-4;

/// Opens the tokenizer that a golden describes, through the ordinary reader.
pub fn open(golden: &Golden) -> Result<Loaded> {
    let config = TokenizerConfig::read(golden.path())?;
    let loaded = tokenizer::open(&config, &golden.checkpoint()?, Device::Cpu, Precision::Fp32)?;
    golden.check_section(loaded.source.as_ref())?;
    Ok(loaded)
}

/// (B, N, D) tokens in the layout of a golden's tensor: (B, D, 1, N), (B, D, h, w) or without the
/// batch.
pub fn as_map(tokens: &Tensor, shape: &[i64]) -> Tensor {
    tokens.transpose(1, 2).reshape(shape)
}

/// Squared distances of all vectors of (B, N, D) to all codebook rows, (B·N, V), by the
/// definition.
pub fn distances(config: &TokenizerConfig, vars: &Vars, z: &Tensor) -> Result<Tensor> {
    let codebook = vars.get("quantize.embedding.weight").context("the codebook has another name")?;
    let QuantizerConfig::Vector(quantizer) = config.quantizer() else { bail!("not a vector quantizer") };
    let normalise = quantizer.l2_normalize;
    let rows = |x: &Tensor| {
        let x = x.reshape([-1, x.size()[x.dim() - 1]]);
        let norm = x.norm_scalaropt_dim(2.0, [1i64], true).clamp_min(1e-12);
        if normalise { x / norm } else { x }
    };
    let (z, e) = (rows(z), rows(&codebook));
    let squares = |x: &Tensor| x.square().sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    Ok(squares(&z).unsqueeze(1) + squares(&e) - z.matmul(&e.transpose(0, 1)) * 2.0)
}

/// Compares codes; one that differs is excused only where both rows are equally near, within
/// [`TIE`].
pub fn compare_codes(check: &mut Check, found: &Tensor, distances: &Tensor) -> Result<()> {
    let expected = check.input("indices")?;
    let (f, e) = (found.reshape([-1, 1]), expected.reshape([-1, 1]));
    let excess = distances.gather(1, &e, false) - distances.gather(1, &f, false);
    let differ = value(&f.ne_tensor(&e).sum(Kind::Int64));
    let worst = value(&(excess.abs() * f.ne_tensor(&e).to_kind(Kind::Float)).max());
    let text = format!("{:?}: {differ} differ, by ties of at most {worst:.1e}", expected.size());
    check.must("indices", worst <= TIE, text);
    Ok(())
}

/// Smallest gap between the nearest and second nearest row.
pub fn gaps(distances: &Tensor) -> Tensor {
    let (two, _) = distances.topk(2, 1, false, true);
    two.select(1, 1) - two.select(1, 0)
}

/// (B, 3, H, W) in [-1, 1] → u8 (B, H, W, 3) by the project's one rounding rule.
pub fn to_u8(images: &Tensor) -> Result<Tensor> {
    Ok(Images::new(images.shallow_clone())?.to_u8().tensor().permute([0, 2, 3, 1]))
}

/// The whole golden.
pub fn check(check: &mut Check) -> Result<()> {
    let loaded = open(check.golden)?;
    let Model::GigaTok(model) = &loaded.model else { bail!("not a GigaTok tokenizer") };
    let image = check.input("image")?;
    tch::no_grad(|| evaluation(check, &loaded, model, &image))?;
    training(check, &loaded, &image)
}

fn evaluation(check: &mut Check, loaded: &Loaded, model: &GigaTok, image: &Tensor) -> Result<()> {
    let images = Images::new(image.shallow_clone())?;
    let latents = model.latents(image);
    check.compare("cnn_feat", Rule::Values, || latents.cnn.shallow_clone())?;
    for (name, tokens) in [("vit_feat", &latents.features), ("pre_quant", &latents.pre_quantized)] {
        let shape = shape(check.golden, name);
        check.compare(name, Rule::Values, || as_map(tokens, &shape))?;
    }
    let distances = distances(&loaded.config, &loaded.vars, &latents.pre_quantized)?;
    let found = loaded.model.encode(&images)?;
    compare_codes(check, found.tensor(), &distances)?;
    check.scalar("min_argmin_gap", Near::Within(1e-5), value(&gaps(&distances).min()))?;
    check.scalar("entropy_loss_unweighted", Near::Loss, value(&tokenizer::entropy_loss(&-&distances)))?;

    // From here on with the official codes, so that an excused tie does not spread.
    let codes = Codes::new(check.input("indices")?)?;
    check.scalar("distinct_codes", Near::Equal, distinct_count(codes.tensor()))?;
    let quantized = model.quantizer().forward(&latents.pre_quantized, Mode::Eval).z;
    let rows = model.quantizer().lookup(&codes);
    let map = shape(check.golden, "quant");
    check.compare("quant", Rule::Values, || as_map(&quantized, &map))?;
    check.compare("code_vectors", Rule::Values, || as_map(&rows, &map))?;
    let apart = value(&(&quantized - &rows).abs().max());
    check.scalar("max_abs_quant_minus_code_vectors", Near::Within(1e-5), apart)?;

    check.compare("decoded_from_codes", Rule::Bounded, || {
        loaded.model.decode(&codes).expect("codes of the golden").into_tensor()
    })?;
    let (grid, tapped) = model.grid_features(&quantized);
    let decoded = model.cnn_decoder().forward(&grid);
    check.compare("rec_spatial", Rule::Values, || grid.shallow_clone())?;
    check.compare("decoded", Rule::Bounded, || decoded.shallow_clone())?;
    let bytes = to_u8(&decoded)?;
    check.compare("decoded_u8", Rule::Pixels, || bytes)?;
    if let Some(tapped) = tapped {
        check.compare("inner_feat_raw", Rule::Values, || tapped.shallow_clone())?;
        let aligned = model.align(&tapped).context("no alignment")?;
        check.compare("inner_feat", Rule::Values, || aligned)?;
    }
    Ok(())
}

fn shape(golden: &Golden, name: &str) -> Vec<i64> {
    golden.tensor(name).map(|t| t.size()).unwrap_or_default()
}

/// Number of distinct codes.
pub fn distinct_count(codes: &Tensor) -> f64 {
    let all: std::collections::BTreeSet<i64> =
        Vec::<i64>::try_from(codes.reshape([-1])).expect("int64").into_iter().collect();
    all.len() as f64
}

/// The loss of the decoder's features against the CNN encoder's, as the configuration weighs it.
pub fn feature_loss(golden: &Golden, out: &TrainOutput) -> Result<Tensor> {
    let args = golden.config("init_args");
    let weight = args["fea_rec_loss_weight"].as_f64().unwrap_or(1.0);
    let loss = match args["fea_rec_loss_type"].as_str().unwrap_or("cosine") {
        "mse" => reconstruction::features(&out.cnn_features, &out.decoder_features),
        "cosine" => reconstruction::features_cosine(&out.cnn_features, &out.decoder_features),
        other => bail!("unknown fea_rec_loss_type `{other}`"),
    };
    Ok(loss * weight)
}

fn training(check: &mut Check, loaded: &Loaded, image: &Tensor) -> Result<()> {
    loaded.vars.set_requires_grad(true);
    let out = loaded.model.forward_train(image, Mode::Train, true);
    let direct = out.direct.as_ref().context("no direct reconstruction")?;
    check.compare("train_decoded", Rule::Bounded, || out.reconstruction.shallow_clone())?;
    check.compare("train_direct_decoded", Rule::Bounded, || direct.shallow_clone())?;
    let [codebook, commitment, entropy] = ["codebook", "commitment", "entropy"]
        .map(|name| out.losses.get(name).map_or_else(|| Tensor::from(0f32), Tensor::shallow_clone));
    let rec = reconstruction::l2(image, &out.reconstruction);
    let direct_rec = reconstruction::l2(image, direct);
    let features = feature_loss(check.golden, &out)?;
    let usage = loaded.model.quantizer().usage().context("no record of usage")?;
    for (name, loss) in [
        ("vq_loss", &codebook),
        ("commit_loss", &commitment),
        ("entropy_loss", &entropy),
        ("fea_rec_loss", &features),
        ("rec_loss", &rec),
        ("direct_rec_loss", &direct_rec),
    ] {
        check.scalar(name, Near::Loss, value(loss))?;
    }
    check.scalar("codebook_usage", Near::Within(1e-9), usage)?;

    let mut late = &rec + &codebook + &commitment + &entropy;
    if let Some(aligned) = &out.aligned {
        let teacher = check.input("sem_feat")?;
        let towards = semantic::alignment(aligned, &teacher);
        check.scalar("proj_loss", Near::Loss, value(&towards))?;
        late += towards * projection_weight(check.golden)?;
    }
    let early = &late + &direct_rec + &features;
    check.scalar("total_loss_noaux", Near::Loss, value(&late))?;
    check.scalar("total_loss_aux", Near::Loss, value(&early))?;
    early.backward();
    compare_gradients(check, "grad.", |name| loaded.vars.get(name))?;
    let gradients: Vec<Tensor> = loaded.vars.parameters().iter().map(|v| v.tensor.grad()).collect();
    check.scalar("grad_norm_aux", Near::GradientNorm, value(&global_norm(&gradients)))
}

/// The manifest states it in words: `… + 0.5*proj …`.
fn projection_weight(golden: &Golden) -> Result<f64> {
    let text = golden.meaning("total_loss_aux");
    let (before, _) = text.split_once("*proj").with_context(|| format!("`{text}` has no weight for proj"))?;
    Ok(before.rsplit(' ').next().unwrap_or("").parse()?)
}

/// Compares every tensor whose name is `prefix` and a parameter's name with that parameter's
/// gradient.
pub fn compare_gradients(
    check: &mut Check,
    prefix: &str,
    parameter: impl Fn(&str) -> Option<Tensor>,
) -> Result<()> {
    for name in check.golden.tensor_names() {
        if let Some(path) = name.strip_prefix(prefix) {
            let variable = parameter(path).with_context(|| format!("there is no parameter `{path}`"))?;
            check.compare(name, Rule::Gradient, || variable.grad())?;
        }
    }
    Ok(())
}
