//! The official GigaTok YAMLs, read as they are.
//!
//! Only `model` matters here; `trainer` and `loss` are the business of training recipes. Keys that
//! no released model uses must have their inactive value. A golden's manifest states the same keys,
//! plus the sizes that the official code keeps in its source (`not_in_config`).

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::{
    AlignedLayer, AlignedPart, Alignment, CnnConfig, GigaTokConfig, GridLayers, Latent, QueryInit,
    TokenizerConfig, Upsample,
};
use crate::error::{Error, Result};
use crate::quantizer::{Gradient, QuantizerConfig, VectorQuantizerConfig};
use crate::sizes::{Size, TransformerSize};

/// The part of a document that holds `model_cls`, if it is an official one.
pub fn recognise(document: &Value) -> Option<Value> {
    [Some(document), document.get("model"), document.get("config")]
        .into_iter()
        .flatten()
        .find(|v| v.get("model_cls").is_some())
        .cloned()
}

#[derive(Deserialize)]
struct OfficialModel {
    model_cls: String,
    init_args: Map<String, Value>,
    #[serde(default)]
    not_in_config: NotInConfig,
}

/// Sizes that upstream fixes in code, at their upstream values unless a manifest overrides them.
#[derive(Deserialize)]
#[serde(default)]
struct NotInConfig {
    image_size: i64,
    cnn_base_channels: i64,
    cnn_num_res_blocks: i64,
    size_table: Map<String, Value>,
}

impl Default for NotInConfig {
    fn default() -> Self {
        NotInConfig { image_size: 256, cnn_base_channels: 128, cnn_num_res_blocks: 2, size_table: Map::new() }
    }
}

/// Keys with an effect that no released model uses, and the value at which they have none.
const INACTIVE: &[(&str, &[&str])] = &[
    ("dropout_p", &["0", "0.0"]),
    ("last_level_2d_query_init", &["false"]),
    ("multi_level_2d_query_init", &["false"]),
    ("learnable_2d_query_init", &["false"]),
    ("use_qk_norm", &["false"]),
    ("use_rope", &["false"]),
    ("rope_1d", &["false"]),
    ("rope_2d", &["false"]),
    ("res_up_down_sample", &["false"]),
    ("downsample_match_channel", &["false"]),
    ("upsample_match_channel", &["false"]),
    ("res_codebook_updown_sample", &["false"]),
    ("downsample_improve", &["false"]),
    ("stochastic", &["false"]),
    ("simvq", &["false"]),
    ("use_lfq", &["false"]),
    ("with_prior_model", &["false"]),
    ("random_mix_reg", &["false"]),
];

/// Keys without an effect on the network itself.
const IGNORED: &[&str] = &[
    "codebook_show_usage", // the buffer exists either way in every released model
    "fea_rec_loss_type",
    "fea_rec_loss_weight",
    "eval_deterministic",
    "stochastic_temperature",
    "codebook_transform",
    "freeze_codebook", // of SimVQ, as the transform is
    "bernoulli_sample",
    "use_flash_attn", // the choice of a kernel
    "prior_model_config",
    "replace_ratio",
];

/// Keys of the sequence's class that the grid's does not have, and which would change a sequence.
const OF_SEQUENCES: &[&str] = &["multi_level_query_init", "learnable_1d_query_init"];

/// Keys of the grid's class alone.
const OF_GRIDS: &[&str] = &["transformer_layer_type"];

const USED: &[&str] = &[
    "codebook_size",
    "codebook_embed_dim",
    "codebook_l2_norm",
    "commit_loss_beta",
    "entropy_loss_ratio",
    "encoder_ch_mult",
    "decoder_ch_mult",
    "model_size",
    "encoder_size",
    "decoder_size",
    "num_latent_tokens",
    "z_channels",
    "multi_level_query_init",
    "learnable_1d_query_init",
    "adaptive_gn",
    "d2s_up",
    "use_attn",
    "rot",
    "distill_depth",
    "encoder_2d_distill",
    "out_inner_dim",
    "transformer_layer_type",
];

/// Converts what [`recognise`] found.
///
/// # Errors
/// Returns an error if a class or key is unknown, an experimental option is on, or a value has the
/// wrong type.
pub fn convert(document: &Value) -> Result<TokenizerConfig> {
    let model: OfficialModel = serde_json::from_value(document.clone())
        .map_err(|e| Error::Settings(format!("official YAML: {e}")))?;
    let args = Args(&model.init_args);
    args.refuse_unsupported()?;
    let extra = &model.not_in_config;
    let latent = match model.model_cls.as_str() {
        "VQVitModelPlus" => {
            args.refuse_of_the_other_class(OF_GRIDS)?;
            args.sequence()?
        }
        "VQVitModel2DPlus" => {
            args.refuse_of_the_other_class(OF_SEQUENCES)?;
            Latent::Grid { layers: args.grid_layers()? }
        }
        other => {
            return Err(Error::Settings(format!(
                "official YAML: model_cls `{other}` is not known; VQVitModelPlus and VQVitModel2DPlus are"
            )));
        }
    };
    let default_size = args.get::<Option<String>>("model_size", Some("small".into()))?;
    let size = |key: &str| -> Result<Size> {
        let name = args.get::<Option<String>>(key, None)?.or(default_size.clone());
        named_size(
            &name.ok_or_else(|| {
                Error::Settings(format!("official YAML: neither model_size nor {key} is set"))
            })?,
            extra,
        )
    };
    Ok(TokenizerConfig::Gigatok(GigaTokConfig {
        image_size: extra.image_size,
        latent,
        cnn: args.cnn(extra)?,
        vision: None,
        encoder: size("encoder_size")?,
        decoder: size("decoder_size")?,
        alignment: args.alignment()?,
        quantizer: args.quantizer()?,
    }))
}

/// The keys of what [`recognise`] found that change nothing, in their order.
pub fn without_effect(document: &Value) -> Vec<String> {
    let Some(args) = document.get("init_args").and_then(Value::as_object) else { return vec![] };
    let grid = document["model_cls"] == "VQVitModel2DPlus";
    let unused = |key: &str| IGNORED.contains(&key) || grid && key == "num_latent_tokens";
    args.keys().filter(|key| unused(key)).cloned().collect()
}

fn named_size(name: &str, extra: &NotInConfig) -> Result<Size> {
    if let Some(entry) = extra.size_table.get(name) {
        let size: TransformerSize = serde_json::from_value(entry.clone())
            .map_err(|e| Error::Settings(format!("size_table.{name}: {e}")))?;
        return Ok(Size::Custom(size));
    }
    serde_json::from_value(Value::String(name.to_owned())).map(Size::Named).map_err(|_| {
        Error::Settings(format!(
            "unknown transformer size `{name}`; tiny, small, base, large, xl, xxl, xxxl are known"
        ))
    })
}

struct Args<'a>(&'a Map<String, Value>);

impl Args<'_> {
    fn get<T: serde::de::DeserializeOwned>(&self, key: &str, default: T) -> Result<T> {
        match self.0.get(key) {
            None => Ok(default),
            Some(v) => serde_json::from_value(v.clone())
                .map_err(|e| Error::Settings(format!("official YAML: init_args.{key}: {e}"))),
        }
    }

    fn refuse_unsupported(&self) -> Result<()> {
        for (key, value) in self.0 {
            let text = value.to_string();
            if let Some((_, inactive)) = INACTIVE.iter().find(|(k, _)| k == key) {
                if !value.is_null() && !inactive.contains(&text.as_str()) {
                    return Err(Error::Settings(format!(
                        "official YAML: init_args.{key} = {text} is an experiment without a released model and is not supported"
                    )));
                }
            } else if !USED.contains(&key.as_str()) && !IGNORED.contains(&key.as_str()) {
                let near = base::hint::nearest(key, USED.iter().copied(), 1);
                let hint = near.first().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
                return Err(Error::Settings(format!("official YAML: unknown key init_args.{key}{hint}")));
            }
        }
        Ok(())
    }

    /// Upstream's classes have no such argument.
    fn refuse_of_the_other_class(&self, keys: &[&str]) -> Result<()> {
        let set = |key: &&&str| self.0.get(**key).is_some_and(|v| !v.is_null() && v != false);
        match keys.iter().find(set) {
            Some(key) => Err(Error::Settings(format!(
                "official YAML: init_args.{key} belongs to the other model_cls and has no meaning in this one"
            ))),
            None => Ok(()),
        }
    }

    fn sequence(&self) -> Result<Latent> {
        let query_init =
            match (self.get("multi_level_query_init", false)?, self.get("learnable_1d_query_init", false)?) {
                (true, _) => QueryInit::MultiLevel,
                (false, true) => QueryInit::Learned,
                (false, false) => QueryInit::Mean,
            };
        Ok(Latent::Sequence { num_tokens: self.get("num_latent_tokens", 256)?, query_init })
    }

    /// The default is the Q-Former layer, which is how S-S 2-D came to use it.
    fn grid_layers(&self) -> Result<GridLayers> {
        match self.get("transformer_layer_type", "TransformerDecoderLayer".to_owned())?.as_str() {
            "TransformerDecoderLayer" => Ok(GridLayers::Qformer),
            "TransformerLayer" => Ok(GridLayers::Standard),
            other => Err(Error::Settings(format!("official YAML: unknown transformer_layer_type `{other}`"))),
        }
    }

    /// `use_attn` defaults to True upstream; every released YAML sets it to False.
    fn cnn(&self, extra: &NotInConfig) -> Result<CnnConfig> {
        let multipliers = vec![1, 1, 2, 2, 4];
        let depth_to_space = self.get("d2s_up", false)?;
        Ok(CnnConfig {
            channels: extra.cnn_base_channels,
            norm_groups: 32,
            encoder_multipliers: self.get("encoder_ch_mult", multipliers.clone())?,
            decoder_multipliers: self.get("decoder_ch_mult", multipliers)?,
            res_blocks: extra.cnn_num_res_blocks,
            z_channels: self.get("z_channels", 256)?,
            attention: self.get("use_attn", true)?,
            adaptive_norm: self.get("adaptive_gn", false)?,
            upsample: if depth_to_space { Upsample::DepthToSpace } else { Upsample::Nearest },
            stem: 1,
            smooth: false,
        })
    }

    fn alignment(&self) -> Result<Option<Alignment>> {
        let width = self.get("out_inner_dim", 768)?;
        let depth = self.get::<Option<i64>>("distill_depth", None)?.map(AlignedLayer::Decoder);
        let cnn = self.get("encoder_2d_distill", false)?.then_some(AlignedLayer::Named(AlignedPart::Cnn));
        if depth.is_some() && cnn.is_some() {
            let message = "official YAML: distill_depth and encoder_2d_distill exclude each other";
            return Err(Error::Settings(message.into()));
        }
        Ok(depth.or(cnn).map(|layer| Alignment { layer, width }))
    }

    fn quantizer(&self) -> Result<QuantizerConfig> {
        let rotation = self.get("rot", false)?;
        Ok(QuantizerConfig::Vector(VectorQuantizerConfig {
            codebook_size: self.get("codebook_size", 16384)?,
            code_dim: self.get("codebook_embed_dim", 8)?,
            l2_normalize: self.get("codebook_l2_norm", true)?,
            gradient: if rotation { Gradient::Rotation } else { Gradient::StraightThrough },
            commitment: self.get("commit_loss_beta", 0.25)?,
            entropy: self.get("entropy_loss_ratio", 0.0)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The fields of `VQVitModelPlusArgs` and of `VQVitModel2DPlusArgs`, at their defaults.
    #[test]
    fn every_field_of_the_official_arguments_is_understood() {
        let both = json!({
            "codebook_size": 16384, "codebook_embed_dim": 8, "codebook_l2_norm": true,
            "codebook_show_usage": true, "commit_loss_beta": 0.25, "entropy_loss_ratio": 0.0,
            "encoder_ch_mult": [1, 1, 2, 2, 4], "decoder_ch_mult": [1, 1, 2, 2, 4], "model_size": "small",
            "encoder_size": null, "decoder_size": null, "num_latent_tokens": 256, "z_channels": 256,
            "dropout_p": 0.0, "adaptive_gn": false, "d2s_up": false, "use_attn": true, "rot": false,
            "distill_depth": null, "encoder_2d_distill": false, "out_inner_dim": 768,
            "fea_rec_loss_type": "cosine", "fea_rec_loss_weight": 1.0
        });
        let sequence = json!({
            "use_lfq": false, "bernoulli_sample": false, "eval_deterministic": false, "simvq": false,
            "codebook_transform": null, "freeze_codebook": false, "use_rope": false, "use_qk_norm": false,
            "use_flash_attn": true, "multi_level_query_init": false, "learnable_1d_query_init": false,
            "rope_1d": false, "last_level_2d_query_init": false, "multi_level_2d_query_init": false,
            "learnable_2d_query_init": false, "res_up_down_sample": false, "downsample_match_channel": false,
            "upsample_match_channel": false, "res_codebook_updown_sample": false, "downsample_improve": false,
            "rope_2d": false, "stochastic": false, "stochastic_temperature": 0.03, "with_prior_model": false,
            "prior_model_config": null
        });
        let grid = json!({"transformer_layer_type": "TransformerDecoderLayer"});
        for (class, own) in [("VQVitModelPlus", sequence), ("VQVitModel2DPlus", grid)] {
            let model = |args: &Value| json!({"model_cls": class, "init_args": args});
            let mut all = both.clone();
            all.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
            let usual = convert(&model(&json!({}))).unwrap();
            assert_eq!(convert(&model(&all)).unwrap(), usual, "{class}");
            let said = without_effect(&model(&all));
            assert!(said.contains(&"codebook_show_usage".to_owned()), "{said:?}");
            assert_eq!(said.contains(&"num_latent_tokens".to_owned()), class == "VQVitModel2DPlus");
            for (key, value, text) in [
                ("dropout_p", json!(0.1), "dropout_p = 0.1"),
                ("d2s_upp", json!(true), "did you mean `d2s_up`?"),
            ] {
                let mut wrong = all.clone();
                wrong[key] = value;
                let error = convert(&model(&wrong)).unwrap_err().to_string();
                assert!(error.contains(text), "{error}");
            }
        }
        let wrong = json!({"model_cls": "VQVitModel2DPlus", "init_args": {"multi_level_query_init": true}});
        let error = convert(&wrong).unwrap_err().to_string();
        assert!(error.contains("multi_level_query_init belongs to the other model_cls"), "{error}");
    }
}
