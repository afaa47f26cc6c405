//! Outputs of a run: a folder of PNGs with a contact sheet, an `.npz`, or both.

mod folder;
mod npz;

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use base::Progress;
use dist::World;
use settings::Rng;
use tch::Device;

pub use self::folder::{Folder, Written};
pub use self::npz::NpzRun;
use crate::error::{Error, Result};
use crate::picture::Picture;
use crate::provenance::RunSettings;
use crate::run::{Run, SampledImage};
use crate::target::Targets;

/// Outputs of a run.
#[derive(Debug)]
pub struct Outputs {
    /// PNGs.
    pub folder: Option<Folder>,
    /// One file of all pixels.
    pub npz: Option<NpzRun>,
}

/// Work done by [`write_images`].
#[derive(Debug, Clone, Copy)]
pub struct RunResult {
    /// Number of images made.
    pub images: u64,
    /// Whether none is missing.
    pub complete: bool,
    /// Duration.
    pub seconds: f64,
}

impl Outputs {
    /// Opens a folder and an `.npz`, where they are named, for the images of a run.
    ///
    /// # Errors
    /// Returns an error if one of them cannot be written, or the `.npz` belongs to another run.
    pub fn open(
        folder: Option<&Path>,
        npz: Option<&Path>,
        run: &RunSettings,
        targets: &Targets,
    ) -> Result<Self> {
        let folder = folder.map(Folder::open).transpose()?;
        let npz = npz.map(|path| open_npz(path, run, targets)).transpose()?;
        Ok(Outputs { folder, npz })
    }

    /// Writes a batch to every output.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn write(&mut self, run: &RunSettings, images: &[SampledImage]) -> Result<()> {
        if let Some(folder) = &mut self.folder {
            folder.write(run, images)?;
        }
        if let Some(npz) = &mut self.npz {
            let bytes: Vec<u8> = images.iter().flat_map(|i| i.picture.rgb.iter().copied()).collect();
            npz.append(&bytes)?;
        }
        Ok(())
    }

    /// Number of images that earlier runs have written, all of which come first.
    pub fn done(&self) -> u64 {
        self.npz.as_ref().map_or(0, NpzRun::done)
    }
}

fn open_npz(path: &Path, run: &RunSettings, targets: &Targets) -> Result<NpzRun> {
    let mut description = serde_json::to_value(run)?;
    description["images"] = targets.len().into();
    description["order"] = format!("{:?}", targets.order).into();
    let conditions = &targets.conditions;
    let classes: Vec<i64> = conditions.iter().filter_map(|c| Some(c.class()?.index)).collect();
    let prompts: Vec<&str> = conditions.iter().filter_map(|c| Some(c.prompt()?.text.as_str())).collect();
    match prompts.is_empty() {
        true => description["classes"] = classes.into(),
        false => description["prompts"] = prompts.into(),
    }
    let npz = NpzRun::open(path, &description, run.size as u64)?;
    match npz.done() > 0 && run.rng == Rng::Torch {
        true => Err(Error::NotResumable { target: path.to_owned() }),
        false => Ok(npz),
    }
}

/// Batches that may wait to be written: enough that a slow disk does not stop the networks at once.
const WAITING: usize = 2;

/// Generates the images that the outputs lack, in batches, and writes them on another thread, until
/// all are complete or `stop` is set. Several processes take turns by batch; the first owns the
/// outputs, and writes in their order.
///
/// # Errors
/// Returns an error if an image cannot be made or written, or another process fails.
pub fn write_images(
    run: &mut Run,
    targets: &Targets,
    batch_size: u64,
    outputs: Option<&mut Outputs>,
    world: &World,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<RunResult> {
    let settings = run.settings().clone();
    if world.size() > 1 && settings.rng == Rng::Torch {
        return Err(Error::OneGenerator);
    }
    let done = outputs.as_ref().map_or(0, |outputs| outputs.done());
    let first = world.from_first(|| Ok::<_, Error>(done))?;
    if first > 0 {
        progress.message(&format!("continuing after {first} of {} images", targets.len()));
    }
    progress.start("images", Some(targets.images.end - first));
    let batches: Vec<Range<u64>> = targets.batches(first, batch_size).collect();
    let (started, mut images) = (Instant::now(), 0);
    run.begin();
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel::<Vec<SampledImage>>(WAITING);
        let writer = outputs.map(|outputs| {
            scope.spawn(move || receiver.iter().try_for_each(|batch| outputs.write(&settings, &batch)))
        });
        let made = batches.chunks(world.size()).try_for_each(|round| -> Result<()> {
            world.note(&format!("image {}", round[0].start));
            for batch in make_round(run, targets, round, world)? {
                let n = batch.len() as u64;
                sender.send(batch).map_err(|_| Error::Stopped)?; // the writer's error, or no writer
                progress.advance(n);
                images += n;
            }
            match world.from_first(|| Ok::<_, Error>(stop.load(Ordering::Relaxed)))? {
                true => Err(Error::Stopped),
                false => Ok(()),
            }
        });
        drop(sender);
        let written =
            writer.map_or(Ok(()), |w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        written.and(match made {
            Err(Error::Stopped) => Ok(()),
            made => made,
        })
    })?;
    let passes = world.gather_values(&run.passes_and_codes())?;
    passes.into_iter().skip(1).for_each(|other| run.add_passes(other));
    progress.finish();
    let complete = first + images == targets.len();
    Ok(RunResult { images, complete, seconds: started.elapsed().as_secs_f64() })
}

/// Makes the batches of a round, one in each process. The first process gets all of them.
fn make_round<'t>(
    run: &mut Run,
    targets: &'t Targets,
    round: &[Range<u64>],
    world: &World,
) -> Result<Vec<Vec<SampledImage<'t>>>> {
    let own = match round.get(world.rank()) {
        Some(batch) => run.batch(targets, batch.clone())?,
        None => vec![],
    };
    if !world.is_first() {
        world.gather(own.into_iter().flat_map(|image| image.picture.rgb).collect())?;
        return Ok(vec![]);
    }
    let side = usize::try_from(run.settings().size).unwrap_or(0);
    let others = world.gather(vec![])?.into_iter().zip(round).skip(1);
    let received = others.map(|(bytes, batch)| {
        let conditions = targets.conditions_of(batch, Device::Cpu).into_iter().zip(batch.clone());
        let pictures = bytes.chunks_exact(side * side * 3);
        let image = |(rgb, (condition, index)): (&[u8], _)| {
            let picture = Picture { width: side, height: side, rgb: rgb.to_vec() };
            SampledImage { index, condition, picture }
        };
        pictures.zip(conditions).map(image).collect()
    });
    Ok(std::iter::once(own).chain(received).collect())
}
