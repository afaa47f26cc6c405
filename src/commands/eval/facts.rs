//! Facts about sources, for reports and saved states.

use anyhow::Result;
use cli::eval::RunArgs;
use eval::{ImageSet, ImageSource, SourceFacts};
use serde_json::{Value as Json, json};
use settings::ReferenceKind;

use super::source::Source;

impl Source {
    /// Facts for reports and saved states; `content` of the images only where it is compared.
    pub fn facts(&self, args: &RunArgs, content: bool) -> Result<SourceFacts> {
        let live = !matches!(self, Source::Files(_));
        Ok(SourceFacts {
            description: self.describe()?,
            content: if content { self.identity()? } else { None },
            precision: live.then(|| args.compute.precision.to_string()),
            resize: self.resize(args),
            image_conversion: self.conversion(),
            codebook_size: match self {
                Source::Reconstruct(tokenizer, _) => Some(tokenizer.codebook_size()),
                Source::Files(_) | Source::Generate(_) | Source::Predict(_) => None,
            },
            has_originals: matches!(self, Source::Reconstruct(..)),
        })
    }

    /// Paths, settings and weights, for reports and saved states.
    pub fn describe(&self) -> Result<Json> {
        Ok(match self {
            Source::Files(set) => json!({"path": set.path, "images": set.len()}),
            Source::Reconstruct(tokenizer, set) => {
                json!({"path": set.path, "images": set.len(), "tokenizer": tokenizer.fingerprint()?})
            }
            Source::Generate(generator) => {
                let settings = serde_json::to_value(generator.settings())?;
                json!({"images": generator.num_images(), "classes": generator.draws(), "settings": settings})
            }
            Source::Predict(predictor) => predictor.describe()?,
        })
    }

    /// Content of the images, if they are in files: see [`ImageSet::identity`].
    fn identity(&self) -> Result<Option<String>> {
        match self {
            Source::Files(set) | Source::Reconstruct(_, set) => Ok(Some(set.identity())),
            Source::Generate(_) => Ok(None),
            Source::Predict(predictor) => predictor.identity().map(Some),
        }
    }

    /// The rFID or gFID protocol, if the options or the source determine it.
    pub fn protocol(&self, args: &RunArgs) -> Option<ReferenceKind> {
        args.protocol.or(match self {
            Source::Files(_) | Source::Predict(_) => None,
            Source::Reconstruct(..) => Some(ReferenceKind::Rfid),
            Source::Generate(_) => Some(ReferenceKind::Gfid),
        })
    }

    /// Conversion of the images to 8-bit RGB.
    fn conversion(&self) -> &'static str {
        match self {
            Source::Files(_) | Source::Predict(_) => "8-bit RGB as stored",
            _ => "trunc(clamp(127.5 x + 128, 0, 255))",
        }
    }

    /// Resize method of the images.
    fn resize(&self, args: &RunArgs) -> String {
        let crop = |side: Option<u32>| side.map_or("none".into(), |s| format!("ADM centre crop to {s}x{s}"));
        match (self, args.score_size) {
            (Source::Reconstruct(_, set), Some(side)) if set.side() != Some(side) => format!(
                "{}, then both to {side}x{side} by PyTorch's bicubic without antialias",
                crop(set.side())
            ),
            (Source::Reconstruct(_, set), _) => crop(set.side()),
            (Source::Predict(predictor), _) => crop(predictor.images().and_then(ImageSet::side)),
            _ => crop(args.resize),
        }
    }
}
