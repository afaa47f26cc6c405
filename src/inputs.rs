//! Images that verbs are given: files, folders, archives, and tensors in safetensors files.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
pub use base::Skipped;
use base::hint::nearest;
use base::{Images, ImagesU8};
use data::transform::center_crop;
use data::{Dataset, IMAGE_EXTENSIONS, LeftOut};
use dist::World;
use image::RgbImage;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};
use weights::{Checkpoint, Parcel, Want};

use crate::error::UserError;
use crate::share::in_turn;

/// The names under which a safetensors file may hold images.
const TENSOR_NAMES: [&str; 2] = ["images", "image"];

/// All inputs named on the command line, in that order.
pub struct Inputs {
    sets: Vec<Set>,
    items: Vec<Item>,
    /// Inputs that could not be read so far.
    pub skipped: Vec<Skipped>,
}

enum Set {
    /// Pictures in files and archives.
    Pictures { path: PathBuf, records: Arc<dyn Dataset> },
    /// (B, 3, H, W) in [-1, 1].
    Rows { path: PathBuf, images: Tensor },
}

/// Visible part of an image.
#[derive(Debug, Clone, Copy)]
enum Framing {
    /// ADM's centre crop, of this many pixels a side.
    Square(u32),
    /// All of it, pixel for pixel.
    AsStored,
}

#[derive(Clone, Copy)]
struct Item {
    set: usize,
    index: usize,
}

/// Some images that were read.
#[derive(Debug)]
pub struct Batch {
    /// Source of each image.
    pub names: Vec<String>,
    /// (B, 3, H, W) fp32.
    pub images: Images,
}

/// Tensors made of a batch, by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Tensors made of a batch, and the sources of its images.
#[derive(Debug)]
pub struct Made {
    /// Source of each image.
    pub names: Vec<String>,
    /// The tensors.
    pub tensors: Tensors,
}

impl Made {
    /// Removes a tensor.
    ///
    /// # Errors
    /// Returns an error if there is none of this name.
    pub fn take(&mut self, name: &str) -> Result<Tensor> {
        self.tensors.remove(name).with_context(|| format!("internal error: a batch without its `{name}`"))
    }
}

impl Inputs {
    /// Examines every path. A path that does not exist is an error; a file that is not an image is
    /// skipped, unless it is the only one.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut inputs = Inputs { sets: vec![], items: vec![], skipped: vec![] };
        for path in paths {
            match Set::open(path) {
                Ok(set) => inputs.add(set),
                Err(error) if paths.len() > 1 && path.is_file() => {
                    inputs.skipped.push(Skipped { input: path.display().to_string(), error: chain(&error) });
                }
                Err(error) if !path.exists() => return Err(missing(path, &error).into()),
                Err(error) => return Err(error),
            }
        }
        Ok(inputs)
    }

    fn add(&mut self, set: Set) {
        let n = self.sets.len();
        self.items.extend((0..set.len()).map(|index| Item { set: n, index }));
        self.sets.push(set);
    }

    /// Files beside the images that are not images, path by path.
    pub fn left_out(&self) -> impl Iterator<Item = (&Path, &[LeftOut])> {
        self.sets.iter().filter_map(|set| match set {
            Set::Pictures { path, records } => Some((path.as_path(), records.left_out())),
            Set::Rows { .. } => None,
        })
    }

    /// The number of images, as far as is known before they are read.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Makes tensors of batches of at most `batch_size` images, and passes them to `take` in order:
    /// images cropped and resized to squares of `side` pixels (ADM's centre crop), tensors
    /// unchanged. Images that cannot be decoded are skipped and recorded; it is an error if nothing
    /// is left. Of several processes, each makes some; the first takes all, and has the records.
    pub fn for_each_batch(
        &mut self,
        (side, batch_size): (i64, i64),
        world: &World,
        make: impl FnMut(&Batch) -> Result<Tensors>,
        take: impl FnMut(Made) -> Result<()>,
    ) -> Result<()> {
        let side = u32::try_from(side).context("the tokenizer's image size is no size of a picture")?;
        self.for_each(Framing::Square(side), batch_size, world, make, take)
    }

    /// Same as [`Inputs::for_each_batch`], but with images at their stored size: a batch ends where
    /// the next image has another size.
    pub fn for_each_stored(
        &mut self,
        batch_size: i64,
        world: &World,
        make: impl FnMut(&Batch) -> Result<Tensors>,
        take: impl FnMut(Made) -> Result<()>,
    ) -> Result<()> {
        self.for_each(Framing::AsStored, batch_size, world, make, take)
    }

    fn for_each(
        &mut self,
        framing: Framing,
        batch_size: i64,
        world: &World,
        mut make: impl FnMut(&Batch) -> Result<Tensors>,
        mut take: impl FnMut(Made) -> Result<()>,
    ) -> Result<()> {
        let (mut used, mut skipped) = (0, vec![]);
        let parts: Vec<&[Item]> =
            self.items.chunks(usize::try_from(batch_size).unwrap_or(1).max(1)).collect();
        let read_and_make = |items: &&[Item]| {
            let (batches, skipped) = self.read(items, framing)?;
            let made =
                batches.into_iter().map(|batch| Ok(Made { tensors: make(&batch)?, names: batch.names }));
            pack(made.collect::<Result<_>>()?, skipped)
        };
        in_turn(world, &parts, read_and_make, |parcel| {
            let (batches, more) = unpack(parcel)?;
            skipped.extend(more);
            used += batches.iter().map(|batch| batch.names.len()).sum::<usize>();
            batches.into_iter().try_for_each(&mut take)
        })?;
        self.skipped.extend(skipped);
        if used > 0 || !world.is_first() { Ok(()) } else { Err(self.nothing_left().into()) }
    }

    /// Reads some items: batches of one image size each, and what cannot be read.
    fn read(&self, items: &[Item], framing: Framing) -> Result<(Vec<Batch>, Vec<Skipped>)> {
        let sources: Vec<_> = items.iter().map(|item| self.sets[item.set].source(item.index)).collect();
        let decoded: Vec<Option<data::Result<RgbImage>>> = sources
            .par_iter()
            .map(|s| s.as_ref().map(|(set, index)| picture(set.as_ref(), *index, framing)))
            .collect();
        let mut batches: Vec<(Vec<String>, Vec<Tensor>)> = vec![];
        let mut skipped = vec![];
        for (item, decoded) in items.iter().zip(decoded) {
            let set = &self.sets[item.set];
            let name = set.name(item.index);
            let image = match (decoded, set) {
                (Some(Ok(picture)), _) => to_float(&picture)?,
                (Some(Err(error)), _) => {
                    skipped.push(Skipped { input: name, error: error.to_string() });
                    continue;
                }
                (None, Set::Rows { images, .. }) => images.narrow(0, item.index as i64, 1),
                (None, Set::Pictures { .. }) => unreachable!("every picture was decoded or refused"),
            };
            match batches.last_mut().filter(|(_, images)| images[0].size() == image.size()) {
                Some((names, images)) => {
                    names.push(name);
                    images.push(image);
                }
                None => batches.push((vec![name], vec![image])),
            }
        }
        let batch = |(names, images): (_, Vec<Tensor>)| {
            Ok(Batch { names, images: Images::new(Tensor::cat(&images, 0))? })
        };
        Ok((batches.into_iter().map(batch).collect::<Result<_>>()?, skipped))
    }

    fn nothing_left(&self) -> UserError {
        let first = self.skipped.first().map(|s| format!(": {}", s.error)).unwrap_or_default();
        let message = match self.skipped.len() {
            1 => format!("no image can be read{first}"),
            n => format!("none of {n} images can be read; the first{first}"),
        };
        UserError::new(message).hint(format!(
            "images are files ({}), folders and tar archives of them, and safetensors files with a tensor `images` \
             (B, 3, H, W) in [-1, 1]",
            IMAGE_EXTENSIONS.join(", ")
        ))
    }
}

impl Set {
    fn open(path: &Path) -> Result<Set> {
        if is_safetensors(path) {
            return Ok(Set::Rows { path: path.to_owned(), images: read_tensor(path)? });
        }
        Ok(Set::Pictures { path: path.to_owned(), records: data::open(path)? })
    }

    fn len(&self) -> usize {
        match self {
            Set::Pictures { records, .. } => records.len(),
            Set::Rows { images, .. } => images.size()[0] as usize,
        }
    }

    fn name(&self, index: usize) -> String {
        match self {
            Set::Pictures { path, .. }
                if data::looks_like_image(&path.to_string_lossy()) && path.is_file() =>
            {
                path.display().to_string()
            }
            Set::Pictures { path, records } => path.join(records.key(index)).display().to_string(),
            Set::Rows { path, .. } => format!("{}[{index}]", path.display()),
        }
    }

    /// Data set and index for a decoding thread; `None` for tensors.
    fn source(&self, index: usize) -> Option<(Arc<dyn Dataset>, usize)> {
        match self {
            Set::Pictures { records, .. } => Some((records.clone(), index)),
            Set::Rows { .. } => None,
        }
    }
}

/// Batches of a part as one parcel, their tensors as `number/name`.
fn pack(batches: Vec<Made>, skipped: Vec<Skipped>) -> Result<Parcel> {
    let (mut tensors, mut names) = (BTreeMap::new(), vec![]);
    for (number, batch) in batches.into_iter().enumerate() {
        tensors.extend(batch.tensors.into_iter().map(|(name, t)| (format!("{number}/{name}"), t)));
        names.push(batch.names);
    }
    Ok(Parcel { tensors, text: serde_json::to_string(&(names, skipped))? })
}

fn unpack(parcel: Parcel) -> Result<(Vec<Made>, Vec<Skipped>)> {
    let (names, skipped): (Vec<Vec<String>>, Vec<Skipped>) = serde_json::from_str(&parcel.text)?;
    let mut batches: Vec<Made> =
        names.into_iter().map(|names| Made { names, tensors: Tensors::new() }).collect();
    for (place, tensor) in parcel.tensors {
        let found = place
            .split_once('/')
            .and_then(|(n, name)| Some((batches.get_mut(n.parse::<usize>().ok()?)?, name)));
        let (batch, name) = found.context("internal error: a tensor without its batch")?;
        batch.tensors.insert(name.to_owned(), tensor);
    }
    Ok((batches, skipped))
}

/// One record, framed.
fn picture(records: &dyn Dataset, index: usize, framing: Framing) -> data::Result<RgbImage> {
    let image = records.get(index)?.image;
    Ok(match framing {
        Framing::Square(side) => center_crop(&image, side),
        Framing::AsStored => image,
    })
}

/// RGB pixels → (1, 3, H, W) fp32 in [-1, 1].
fn to_float(picture: &RgbImage) -> Result<Tensor> {
    let (h, w) = (i64::from(picture.height()), i64::from(picture.width()));
    let nhwc = Tensor::from_slice(picture.as_raw()).view([1, h, w, 3]);
    Ok(ImagesU8::new(nhwc.permute([0, 3, 1, 2]).contiguous())?.to_float().into_tensor())
}

/// By content: a header length, then a JSON table.
fn is_safetensors(path: &Path) -> bool {
    let mut head = [0; 9];
    let read = base::files::open_regular(path).and_then(|mut f| f.read_exact(&mut head));
    read.is_ok() && head[8] == b'{' && head[4..8] == [0; 4]
}

fn read_tensor(path: &Path) -> Result<Tensor> {
    let source = Checkpoint::open(path)?.source(Want::Auto)?;
    let name = TENSOR_NAMES.into_iter().find(|name| source.info(name).is_some());
    let name = name.ok_or_else(|| {
        let shown = path.display();
        UserError::new(format!("`{shown}` holds no tensor `images` or `image`"))
            .hint(format!("`gen inspect {shown}` lists what it contains"))
    })?;
    let images = source.read(name, Device::Cpu)?;
    let what = || format!("tensor `{name}` of `{}`", path.display());
    let images = Images::new(images).with_context(what)?.into_tensor().to_kind(Kind::Float);
    // What ToTensor and Normalize leave in range may still stick out by rounding.
    const SLACK: f64 = 1e-3;
    let largest = if images.numel() == 0 { 0.0 } else { images.abs().max().double_value(&[]) };
    if !largest.is_finite() || largest > 1.0 + SLACK {
        let message = format!("{}: expected values in [-1, 1], found some as large as {largest}", what());
        return Err(UserError::new(message).hint("scale 8-bit values x by x / 127.5 - 1").into());
    }
    Ok(images)
}

/// The reader's own words about a path that leads nowhere, and the nearest name that does exist.
fn missing(path: &Path, cause: &anyhow::Error) -> UserError {
    let folder = base::files::folder_of(path);
    let names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    let wanted = path.file_name().unwrap_or_default().to_string_lossy();
    let error = UserError::new(chain(cause));
    match nearest(&wanted, names.iter().map(String::as_str), 1).first() {
        Some(name) => error.hint(format!("did you mean `{}`?", path.with_file_name(name).display())),
        None if folder.is_dir() => error.hint("a relative path is looked for in the current folder"),
        None => error.hint(format!("there is no folder `{}`", folder.display())),
    }
}

/// An error and its causes in one sentence.
fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
