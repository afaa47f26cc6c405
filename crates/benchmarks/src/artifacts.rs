//! The files a benchmark needs, which of them are there, and where to get the others.

use std::path::{Path, PathBuf};

use backbones::files::{PublicFile, weights_folder};
use serde::Serialize;
use settings::Metric;

use crate::error::Result;
use crate::quantity::{Quantity, RFID};
use crate::schema::{Benchmark, Checkpoint, Task};

/// Something a benchmark cannot run without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Artifact {
    /// Purpose of the artifact.
    pub what: &'static str,
    /// Name of the file or data set.
    pub name: String,
    /// Source, or the option that names it.
    pub from: String,
    /// Path, if it was found.
    pub found: Option<PathBuf>,
}

/// Folders to search for artifacts.
#[derive(Debug, Clone, Default)]
pub struct SearchDirs {
    /// Folders of published files; their subfolders count too.
    pub folders: Vec<PathBuf>,
    /// Held-out images.
    pub data: Option<PathBuf>,
    /// Training images.
    pub train_data: Option<PathBuf>,
}

/// Names of the artifacts by their role in a task.
pub const TOKENIZER: &str = "tokenizer";
/// See [`TOKENIZER`].
pub const TRANSFORMER: &str = "transformer";
/// See [`TOKENIZER`].
pub const REFERENCE: &str = "reference";
/// See [`TOKENIZER`].
pub const DATA: &str = "images";
/// See [`TOKENIZER`].
pub const TRAIN_DATA: &str = "training images";
/// See [`TOKENIZER`].
pub const INCEPTION: &str = "FID network";
/// See [`TOKENIZER`].
pub const VGG: &str = "LPIPS trunk";
/// See [`TOKENIZER`].
pub const LPIPS: &str = "LPIPS head";

/// See [`TOKENIZER`].
pub const TEXT_ENCODER: &str = "text encoder";
/// See [`TOKENIZER`].
pub const PROMPTS: &str = "prompts";
/// See [`TOKENIZER`].
pub const CLIP: &str = "CLIP";
/// See [`TOKENIZER`].
pub const CLIP_TEXT: &str = "vocabulary of CLIP";

/// Returns all artifacts of a benchmark, searched for in `dirs`.
///
/// # Errors
/// Returns an error if a network's weights are not the file that their name denotes.
pub fn locate(benchmark: &Benchmark, dirs: &SearchDirs) -> Result<Vec<Artifact>> {
    let file = |what, name: &str, from: &str| Artifact {
        what,
        name: name.to_owned(),
        from: from.to_owned(),
        found: find(name, &dirs.folders),
    };
    let checkpoint = |what, c: &Checkpoint| file(what, &c.file, &c.from);
    let data = |what, name: &str, flag: &str, given: &Option<PathBuf>| Artifact {
        what,
        name: name.to_owned(),
        from: format!("give it with `{flag} PATH`"),
        found: given.clone(),
    };
    let network = |what, name| public(what, name, &dirs.folders);
    Ok(match &benchmark.task {
        Task::Reconstruction(task) => {
            let set = task.images.set.shown();
            let mut all = vec![checkpoint(TOKENIZER, &task.tokenizer), data(DATA, set, "--data", &dirs.data)];
            if benchmark.expected.iter().any(|e| e.metric == RFID) {
                all.push(network(INCEPTION, "inception-fid")?);
            }
            if benchmark.expected.iter().any(|e| e.metric == Quantity::Score(Metric::Lpips)) {
                all.push(network(VGG, "vgg16")?);
                all.push(network(LPIPS, "lpips-vgg")?);
            }
            all
        }
        Task::Generation(task) => {
            let mut all = vec![
                checkpoint(TOKENIZER, &task.tokenizer),
                checkpoint(TRANSFORMER, &task.transformer),
                network(INCEPTION, "inception-fid")?,
            ];
            if let Some(name) = &task.reference.file {
                all.push(file(REFERENCE, name, task.reference.from.as_deref().unwrap_or("its publisher")));
            }
            all
        }
        Task::TextToImage(task) => {
            let encoder = format!("{}/config.json", task.encoder.file);
            let mut all = vec![
                checkpoint(TOKENIZER, &task.tokenizer),
                checkpoint(TRANSFORMER, &task.transformer),
                file(TEXT_ENCODER, &encoder, &task.encoder.from),
                file(PROMPTS, &task.prompts.file, &task.prompts.from),
            ];
            match task.photographs {
                Some(set) => {
                    all.push(data(DATA, set.shown(), "--data", &dirs.data));
                    all.push(network(INCEPTION, "inception-fid")?);
                }
                None => {
                    all.push(network(CLIP, "clip-b32")?);
                    all.push(network(CLIP_TEXT, "clip-text")?);
                }
            }
            all
        }
        Task::Probe(task) => vec![
            checkpoint(TOKENIZER, &task.tokenizer),
            checkpoint(TRANSFORMER, &task.transformer),
            data(TRAIN_DATA, "ImageNet-1k training images", "--train-data", &dirs.train_data),
            data(DATA, "ImageNet-1k validation images", "--data", &dirs.data),
        ],
        Task::NotRunnable(_) => vec![],
    })
}

/// Public weights of a frozen network, in one of the folders or in the weights folder.
fn public(what: &'static str, name: &str, folders: &[PathBuf]) -> Result<Artifact> {
    let public = PublicFile::named(name)?;
    let models = weights_folder(None);
    let known = Path::new(public.file);
    let bare = known.file_name().unwrap_or_default();
    let found =
        folders.iter().chain([&models]).flat_map(|f| [f.join(known), f.join(bare)]).find(|p| p.is_file());
    if let Some(path) = &found {
        public.check(path)?;
    }
    let from = format!("{} ({})", public.publisher, public.known());
    Ok(Artifact { what, name: bare.to_string_lossy().into_owned(), from, found })
}

fn find(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let inside = |folder: &Path| {
        let entries = std::fs::read_dir(folder).ok()?;
        let mut below: Vec<PathBuf> = entries.flatten().map(|e| e.path().join(name)).collect();
        below.sort();
        below.into_iter().find(|p| p.is_file())
    };
    let at = |folder: &PathBuf| {
        let direct = folder.join(name);
        if direct.is_file() { Some(direct) } else { inside(folder) }
    };
    folders.iter().find_map(at)
}

/// One line for each artifact.
pub fn list(artifacts: &[Artifact]) -> String {
    let line = |p: &Artifact| match &p.found {
        Some(path) => format!("  found    {}: {}", p.what, path.display()),
        None => format!("  MISSING  {}: {} — {}", p.what, p.name, p.from),
    };
    artifacts.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_artifacts_are_named_with_their_source() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("gigatok");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join("VQ_BL256_e200.pt"), "").unwrap();
        let benchmark = Benchmark::find("gigatok-bl+gpt-b").unwrap();
        let dirs = SearchDirs { folders: vec![dir.path().to_owned()], ..SearchDirs::default() };
        let all = locate(&benchmark, &dirs).unwrap();
        assert_eq!(all.iter().filter(|p| p.found.is_some()).map(|p| p.what).collect::<Vec<_>>(), [TOKENIZER]);
        let text = list(&all);
        assert!(
            text.contains("MISSING  reference: VIRTUAL_imagenet256_labeled.npz — the reference"),
            "{text}"
        );
        let probe = locate(&Benchmark::find("gigatok-bl+gpt-b-probe").unwrap(), &dirs).unwrap();
        assert!(list(&probe).contains("give it with `--train-data PATH`"));
    }
}
