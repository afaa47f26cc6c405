//! Public files of weights (and CLIP's vocabulary): what they are called, how to know them, and where to get them.

use std::path::{Path, PathBuf};

use base::hint::nearest;

pub use crate::source::sha256;
use crate::{Error, Result};

/// A repository of the model hub that has a network's weights, and the file in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubFile {
    /// `owner/name`.
    pub repository: &'static str,
    /// The file's name there.
    pub file: &'static str,
}

/// One public weight file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicFile {
    /// What it is asked for by: the network's name, or the part of it.
    pub name: &'static str,
    /// Its name in the models folder. A `.safetensors` file of the same stem is taken too.
    pub file: &'static str,
    /// Its size, where known.
    pub bytes: Option<u64>,
    /// The first digits of its SHA-256, or all of them, where known.
    pub sha256: Option<&'static str>,
    /// The licence of the weights.
    pub licence: &'static str,
    /// Who publishes it.
    pub publisher: &'static str,
    /// Where `gen fetch` gets it, where there is such a place.
    pub hub: Option<HubFile>,
}

const fn file(
    name: &'static str,
    file: &'static str,
    sha256: Option<&'static str>,
    licence: &'static str,
    publisher: &'static str,
) -> PublicFile {
    PublicFile { name, file, bytes: None, sha256, licence, publisher, hub: None }
}

const fn on_hub(public: PublicFile, repository: &'static str, file: &'static str) -> PublicFile {
    PublicFile { hub: Some(HubFile { repository, file }), ..public }
}

const fn dino(name: &'static str, pth: &'static str) -> PublicFile {
    file(name, pth, None, "Apache-2.0", "the DINOv2 repository, `facebookresearch/dinov2`")
}

const fn clip(name: &'static str, stored: &'static str, repository: &'static str) -> PublicFile {
    let public = file(name, stored, None, "MIT", "OpenAI, on the model hub");
    on_hub(public, repository, "pytorch_model.bin")
}

const fn torchvision(name: &'static str, pth: &'static str, digits: &'static str) -> PublicFile {
    file(name, pth, Some(digits), "BSD-3-Clause", "torchvision, the pretrained model's state dict")
}

const fn heads(name: &'static str, pth: &'static str, digest: &'static str, bytes: u64) -> PublicFile {
    let from = "the LPIPS repository (`lpips/weights/v0.1`) and its Python package";
    PublicFile { bytes: Some(bytes), ..file(name, pth, Some(digest), "BSD-2-Clause", from) }
}

/// All of them. torchvision's and pytorch-fid's files carry the first eight digits of their SHA-256 in their names.
pub const FILES: [PublicFile; 19] = [
    PublicFile {
        bytes: Some(95_628_359),
        ..file(
            "inception-fid",
            "pt_inception-2015-12-05-6726825d.pth",
            Some("6726825d"),
            "Apache-2.0",
            "the releases of pytorch-fid and torch-fidelity",
        )
    },
    on_hub(
        dino("dinov2-s14", "dinov2_vits14_pretrain.pth"),
        "timm/vit_small_patch14_dinov2.lvd142m",
        "model.safetensors",
    ),
    on_hub(
        dino("dinov2-b14", "dinov2_vitb14_pretrain.pth"),
        "timm/vit_base_patch14_dinov2.lvd142m",
        "model.safetensors",
    ),
    on_hub(
        dino("dinov2-l14", "dinov2_vitl14_pretrain.pth"),
        "timm/vit_large_patch14_dinov2.lvd142m",
        "model.safetensors",
    ),
    dino("dinov2-g14", "dinov2_vitg14_pretrain.pth"),
    dino("dinov2-s14-reg", "dinov2_vits14_reg4_pretrain.pth"),
    dino("dinov2-b14-reg", "dinov2_vitb14_reg4_pretrain.pth"),
    dino("dinov2-l14-reg", "dinov2_vitl14_reg4_pretrain.pth"),
    dino("dinov2-g14-reg", "dinov2_vitg14_reg4_pretrain.pth"),
    clip("clip-b32", "clip-vit-base-patch32.bin", "openai/clip-vit-base-patch32"),
    clip("clip-l14", "clip-vit-large-patch14.bin", "openai/clip-vit-large-patch14"),
    clip("clip-l14-336", "clip-vit-large-patch14-336.bin", "openai/clip-vit-large-patch14-336"),
    on_hub(
        file("clip-text", "clip-tokenizer.json", None, "MIT", "OpenAI, on the model hub"),
        "openai/clip-vit-large-patch14",
        "tokenizer.json",
    ),
    on_hub(torchvision("vgg16", "vgg16-397923af.pth", "397923af"), "timm/vgg16.tv_in1k", "model.safetensors"),
    torchvision("alexnet", "alexnet-owt-7be5be79.pth", "7be5be79"),
    torchvision("squeezenet1.1", "squeezenet1_1-b8a52dc0.pth", "b8a52dc0"),
    heads(
        "lpips-vgg",
        "lpips_v0.1/vgg.pth",
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        7_289,
    ),
    heads(
        "lpips-alex",
        "lpips_v0.1/alex.pth",
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        6_009,
    ),
    heads(
        "lpips-squeeze",
        "lpips_v0.1/squeeze.pth",
        "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
        10_811,
    ),
];

impl PublicFile {
    /// The file of this name.
    ///
    /// # Errors
    /// There is none; the error names the nearest.
    pub fn named(name: &str) -> Result<&'static PublicFile> {
        FILES.iter().find(|f| f.name == name).ok_or_else(|| {
            let near = nearest(name, FILES.iter().map(|f| f.name), 3);
            let all = FILES.iter().map(|f| f.name).collect::<Vec<_>>();
            let choices = if near.is_empty() { all } else { near };
            Error::Unknown { what: "weight file", found: name.into(), choices: choices.join(", ") }
        })
    }

    /// Where it is in a models folder.
    ///
    /// # Errors
    /// It is not there: the error says what it is called, how to know it, where it was looked for and how to get it.
    pub fn locate(&self, models: &Path) -> Result<PathBuf> {
        let path = models.join(self.file);
        let converted = path.with_extension("safetensors");
        if path.is_file() {
            self.check(&path)?;
            return Ok(path);
        }
        if converted.is_file() {
            return Ok(converted);
        }
        Err(Error::Missing { wanted: *self, folder: models.to_owned() })
    }

    /// Compares a file with the size and digest that are known of it.
    ///
    /// # Errors
    /// It is another file, or cannot be read.
    pub fn check(&self, path: &Path) -> Result<()> {
        let other = |expected: String, found: String| Error::OtherFile {
            path: path.to_owned(),
            name: self.name,
            expected,
            found,
        };
        if let Some(bytes) = self.bytes {
            let found =
                path.metadata().map_err(|source| Error::Read { path: path.to_owned(), source })?.len();
            if found != bytes {
                return Err(other(format!("{bytes} bytes"), format!("{found}")));
            }
        }
        if let Some(digits) = self.sha256 {
            let found = sha256(path)?;
            if !found.starts_with(digits) {
                return Err(other(format!("a SHA-256 that begins with {digits}"), found));
            }
        }
        Ok(())
    }

    /// Size and digest as a sentence shows them.
    pub fn known(&self) -> String {
        let size = self.bytes.map_or("size not recorded".into(), |b| format!("{b} bytes"));
        match self.sha256 {
            Some(digits) if digits.len() == 64 => format!("{size}, SHA-256 {digits}"),
            Some(digits) => format!("{size}, SHA-256 {digits}…"),
            None => format!("{size}, digest not recorded"),
        }
    }
}

/// The models folder: what was asked for, else `GEN_MODELS`, else `gen/models` in the user's cache folder.
pub fn models_folder(asked: Option<&Path>) -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(folder) = asked.map(Path::to_owned).or_else(|| from("GEN_MODELS")) {
        return folder;
    }
    let cache = from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")));
    cache.unwrap_or_else(|| ".cache".into()).join("gen/models")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_files_are_unique() {
        for (i, a) in FILES.iter().enumerate() {
            assert!(FILES[..i].iter().all(|b| a.name != b.name && a.file != b.file), "{}", a.name);
        }
    }

    #[test]
    fn a_missing_file_is_told_with_all_that_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let e = PublicFile::named("inception-fid").unwrap().locate(dir.path()).unwrap_err();
        let text = format!("{e} {}", base::Hint::hints(&e).join(" "));
        for part in ["pt_inception-2015-12-05-6726825d.pth", "95628359 bytes", "6726825d", "gen fetch"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains(&dir.path().display().to_string()), "{text}");
        let e = PublicFile::named("dinov2-s13").unwrap_err().to_string();
        assert!(e.contains("dinov2-s14"), "{e}");
    }

    #[test]
    fn another_file_under_the_name_is_refused_and_a_converted_one_taken() {
        let dir = tempfile::tempdir().unwrap();
        let heads = PublicFile::named("lpips-alex").unwrap();
        std::fs::create_dir(dir.path().join("lpips_v0.1")).unwrap();
        std::fs::write(dir.path().join(heads.file), b"short").unwrap();
        let e = heads.locate(dir.path()).unwrap_err().to_string();
        assert!(e.contains("6009 bytes") && e.contains("found 5"), "{e}");
        std::fs::write(dir.path().join(heads.file), vec![0; 6009]).unwrap();
        assert!(heads.locate(dir.path()).unwrap_err().to_string().contains("df73285e"));

        let dino = PublicFile::named("dinov2-s14").unwrap();
        let converted = dir.path().join("dinov2_vits14_pretrain.safetensors");
        std::fs::write(&converted, b"").unwrap();
        assert_eq!(dino.locate(dir.path()).unwrap(), converted);
    }
}
