//! Families of goldens, and the check of each.

mod diffaug;
mod dino_discriminator;
mod dinov2;
mod efficientnet_lite;
mod filters;
mod full_gpt;
mod full_tokenizer;
mod gpt;
mod gpt_options;
mod image_files;
mod inception;
mod linear_probe;
mod lpips;
mod metrics;
mod patchgan;
mod psnr_ssim;
mod resize;
mod text;
mod tokenizer;
mod tokenizer_losses;
mod training_steps;

use anyhow::Result;

use crate::check::Check;
use crate::golden::Golden;

/// One family of goldens.
pub struct Family {
    /// Name for messages.
    pub name: &'static str,
    /// Whether a golden belongs to this family, by its content.
    pub recognise: fn(&Golden) -> bool,
    /// Compares everything in it.
    pub check: fn(&mut Check) -> Result<()>,
}

/// All of them. A golden must be recognised by exactly one.
pub const ALL: &[Family] = &[
    Family { name: "tokenizer", recognise: |g| g.config("model_cls").is_string(), check: tokenizer::check },
    Family { name: "text encoder", recognise: |g| g.config("t5").is_object(), check: text::encoder },
    Family { name: "text tokenizer", recognise: |g| g.get("texts").is_array(), check: text::tokenizer },
    Family {
        name: "cleaning of captions",
        recognise: |g| g.get("cases").as_array().is_some_and(|c| c.iter().all(|c| c["once"].is_string())),
        check: text::cleaning,
    },
    Family {
        name: "full-size tokenizer",
        recognise: |g| g.config("yaml").is_string() && g.get("recipe_table").is_object(),
        check: full_tokenizer::check,
    },
    Family {
        name: "transformer",
        recognise: |g| g.config("model_args").is_object() && g.config("options").is_null(),
        check: gpt::check,
    },
    Family {
        name: "transformer with options",
        recognise: |g| g.config("model_args").is_object() && g.config("options").is_object(),
        check: gpt_options::check,
    },
    Family {
        name: "full-size transformer",
        recognise: |g| g.config("model").is_string() && g.get("recipe_table").is_object(),
        check: full_gpt::check,
    },
    Family {
        name: "training steps of a transformer",
        recognise: |g| g.config("model").is_string() && g.config("ema_decay").is_number(),
        check: training_steps::check,
    },
    Family {
        name: "sampling filters",
        recognise: |g| g.get("cases").as_array().is_some_and(|c| c.iter().all(|c| c["top_p"].is_number())),
        check: filters::check,
    },
    Family {
        name: "image files",
        recognise: |g| g.config("image_size").is_number() && g.config("pillow").is_string(),
        check: image_files::check,
    },
    Family {
        name: "PSNR and SSIM as published",
        recognise: |g| g.has("gt0") && g.has("sample0"),
        check: psnr_ssim::check,
    },
    Family {
        name: "Inception of FID",
        recognise: |g| g.tensor_names().iter().any(|n| n.ends_with(".tf.pool") || n.ends_with(".pf.pool")),
        check: inception::check,
    },
    Family {
        name: "resizes of feature networks",
        recognise: |g| g.has("img") && g.has("tf1_299"),
        check: resize::check,
    },
    Family {
        name: "EfficientNet-Lite",
        recognise: |g| efficientnet_lite::size(g).is_some(),
        check: efficientnet_lite::check,
    },
    Family {
        name: "DINOv2",
        recognise: |g| g.get("state_dict").is_object() && g.config("antialias").is_boolean(),
        check: dinov2::check,
    },
    Family {
        name: "DINOv2 as a teacher",
        recognise: |g| g.has("x_norm_patchtokens") && g.has("preprocessed_top"),
        check: dinov2::check_teacher,
    },
    Family {
        name: "LPIPS as a loss",
        recognise: |g| g.has("lpips") && g.has("grad_b") && g.get("recipe_table").is_object(),
        check: lpips::check_loss,
    },
    Family {
        name: "LPIPS as a metric",
        recognise: |g| g.has("img0") && (g.has("vgg.distance") || g.has("alex.distance")),
        check: lpips::check_metric,
    },
    Family {
        name: "PatchGAN and adversarial losses",
        recognise: |g| g.config("ndf").is_number() && g.config("n_layers").is_number(),
        check: patchgan::check,
    },
    Family {
        name: "linear probes",
        recognise: |g| g.has("features") && g.scalar_names().contains(&"warmup_epochs"),
        check: linear_probe::check,
    },
    Family {
        name: "losses of the tokenizer's training",
        recognise: |g| g.config("tokenizer_weights").is_string() && g.config("disc_dim").is_number(),
        check: tokenizer_losses::check,
    },
    Family {
        name: "DINO discriminator",
        recognise: |g| g.config("embed_dim").is_number() && g.config("key_depths").is_array(),
        check: dino_discriminator::check,
    },
    Family {
        name: "differentiable augmentation",
        recognise: |g| g.has("case0.rand01") && g.has("case0.flags"),
        check: diffaug::check,
    },
    Family {
        name: "Fréchet distance of features",
        recognise: |g| g.scalar_names().iter().any(|n| n.ends_with(".fid_truncated_eigh")),
        check: metrics::frechet::check,
    },
    Family {
        name: "Fréchet distance of statistics",
        recognise: |g| g.scalar_names().iter().any(|n| n.ends_with(".fid")) && g.has("two.sigma1"),
        check: metrics::closed_form::check,
    },
    Family {
        name: "merged moments",
        recognise: |g| g.has("bounds") && g.has("shard_mean"),
        check: metrics::merge::check,
    },
    Family {
        name: "Inception Score",
        recognise: |g| g.scalar_names().iter().any(|n| n.contains("adm_split")),
        check: metrics::inception_score::check,
    },
    Family {
        name: "precision, recall, density, coverage",
        recognise: |g| g.has("real") && g.has("fake") && g.has("fake_in_real"),
        check: metrics::neighbours::check,
    },
    Family { name: "kernel distance", recognise: |g| g.has("mmd2_per_subset"), check: metrics::kernel::kid },
    Family {
        name: "CMMD",
        recognise: |g| g.scalar_names().contains(&"cmmd_f64"),
        check: metrics::kernel::cmmd,
    },
    Family {
        name: "codebook usage",
        recognise: |g| g.has("indices") && g.scalar_names().contains(&"perplexity"),
        check: metrics::codebook::check,
    },
    Family {
        name: "PSNR and SSIM of stored images",
        recognise: |g| g.scalar_names().iter().any(|n| n.ends_with(".psnr_u8")),
        check: metrics::pixels::check,
    },
    Family {
        name: "scores of reconstructions",
        recognise: |g| g.has("rec") && g.has("lpips_vgg"),
        check: metrics::reconstruction::check,
    },
    Family {
        name: "ADM's evaluation of images",
        recognise: |g| g.has("ref") && g.has("sample") && g.scalar_names().contains(&"sfid"),
        check: metrics::adm::check,
    },
    Family {
        name: "files of other programs",
        recognise: |g| g.has("npz.arr_0"),
        check: metrics::files::check,
    },
];
