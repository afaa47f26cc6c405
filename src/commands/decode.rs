//! `gen decode`: codes → images.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base::{Codes, ImagesU8, Progress};
use cli::decode::DecodeArgs;
use generate::Picture;
use serde::Serialize;
use tch::{Device, Tensor};
use tokenizer::Tokenizer as _;
use weights::Parcel;

use crate::code_files::CodeFile;
use crate::context::{self, Context, ExitStatus};
use crate::error::UserError;
use crate::files;
use crate::resolve::{device, open_tokenizer};
use crate::share::in_turn;

#[derive(Debug, Serialize)]
struct Report {
    /// Path as given.
    #[serde(skip)]
    folder: PathBuf,
    output: Vec<PathBuf>,
    images: i64,
    /// (H, W)
    size: [i64; 2],
}

/// Decodes all rows of a code file.
pub fn run(args: &DecodeArgs, context: &Context) -> anyhow::Result<ExitStatus> {
    let device = device::resolve(&args.job.compute.device)?;
    let file = CodeFile::read(&args.codes)?;
    if file.len() == 0 {
        return Err(UserError::new(format!("there are no codes in `{}`", args.codes.display())).into());
    }
    let tokenizer = open_tokenizer(&args.job, device, context)?;
    warn_of_another_tokenizer(&file, &tokenizer, context)?;
    let world = &context.world;
    let mut sink = world.is_first().then(|| Sink::new(&args.output)).transpose()?;
    let mut size = [0; 2];
    let mut progress = context.printer.clone();
    progress.start("decoding", Some(file.len() as u64));
    let decode = |&(from, count): &(i64, i64)| {
        let codes = Codes::new(file.rows(from, count)?.into_tensor().to_device(device))?;
        let row = |i: usize| format!("row {}", from + i as i64);
        let images = tokenizer.model.decode(&codes).map_err(|e| e.of_images(row))?;
        let images =
            if is_tensor(&args.output) { images.into_tensor() } else { images.to_u8().into_tensor() };
        let tensors = [(IMAGES.to_owned(), images.to_device(Device::Cpu))].into();
        Ok(Parcel { tensors, text: String::new() })
    };
    let spans: Vec<(i64, i64)> = base::spans(file.len(), args.job.batch.batch_size).collect();
    in_turn(world, &spans, decode, |mut parcel| {
        let images = parcel.tensors.remove(IMAGES).context("internal error: a batch without its images")?;
        size = [images.size()[2], images.size()[3]];
        progress.advance(images.size()[0] as u64);
        sink.iter_mut().try_for_each(|sink| sink.take(images.shallow_clone()))
    })?;
    progress.finish();
    let Some(sink) = sink else { return Ok(ExitStatus::Done) };
    let report = Report { folder: args.output.clone(), output: sink.finish()?, images: file.len(), size };
    context.finish(&report, args.job.json.json, true)
}

impl context::Report for Report {
    fn text(&self) -> String {
        let [height, width] = self.size;
        format!("{}: {} images of {width}x{height}", self.folder.display(), self.images)
    }
}

fn warn_of_another_tokenizer(
    file: &CodeFile,
    loaded: &tokenizer::Loaded,
    context: &Context,
) -> anyhow::Result<()> {
    let Some(made_by) = &file.tokenizer else { return Ok(()) };
    let used = loaded.fingerprint()?;
    if *made_by != used {
        context.printer.warning(&format!(
            "these codes were made by a tokenizer with fingerprint {made_by}; the one in use has {used}"
        ));
    }
    Ok(())
}

/// Name of the tensor of images.
const IMAGES: &str = "images";

/// Whether an output is a file of one tensor, rather than a folder.
fn is_tensor(output: &Path) -> bool {
    output.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors"))
}

/// Destination of decoded images.
enum Sink {
    /// One tensor, written at the end.
    Tensor { path: PathBuf, parts: Vec<Tensor> },
    /// A PNG each, written as they come.
    Folder { dir: PathBuf, written: Vec<PathBuf> },
}

impl Sink {
    fn new(output: &Path) -> anyhow::Result<Self> {
        if is_tensor(output) {
            return Ok(Sink::Tensor { path: output.to_owned(), parts: vec![] });
        }
        files::make_folder(output)?;
        Ok(Sink::Folder { dir: output.to_owned(), written: vec![] })
    }

    /// Takes images (B, 3, H, W): as the tokenizer gives them for a tensor, else 8-bit.
    fn take(&mut self, images: Tensor) -> anyhow::Result<()> {
        match self {
            Sink::Tensor { parts, .. } => parts.push(images),
            Sink::Folder { dir, written } => {
                for picture in Picture::from_batch(&ImagesU8::new(images)?)? {
                    let path = dir.join(format!("{:06}.png", written.len()));
                    picture.write_png(&path, &[])?;
                    written.push(path);
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<Vec<PathBuf>> {
        match self {
            Sink::Folder { written, .. } => Ok(written),
            Sink::Tensor { path, parts } => {
                let images = vec![(IMAGES.to_owned(), Tensor::cat(&parts, 0))];
                weights::save_safetensors(&path, &images, &BTreeMap::new())?;
                Ok(vec![path])
            }
        }
    }
}
