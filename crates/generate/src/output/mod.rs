//! Outputs of a run: a folder of PNGs with a contact sheet, an `.npz`, or both.

mod folder;
mod npz;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use base::Progress;
use choices::Rng;

pub use self::folder::{Folder, Written};
pub use self::npz::NpzRun;
use crate::error::{Error, Result};
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

/// Makes the images that the outputs lack, in batches, and writes them on another thread, until all
/// are made or `stop` is set.
///
/// # Errors
/// Returns an error if an image cannot be made or written.
pub fn write_images(
    run: &mut Run,
    targets: &Targets,
    batch_size: u64,
    outputs: &mut Outputs,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<RunResult> {
    let (first, settings) = (outputs.done(), run.settings().clone());
    if first > 0 {
        progress.message(&format!("continuing after {first} of {} images", targets.len()));
    }
    progress.start("images", Some(targets.images.end - first));
    let (started, mut images) = (Instant::now(), 0);
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel::<Vec<SampledImage>>(WAITING);
        let writer =
            scope.spawn(move || receiver.iter().try_for_each(|batch| outputs.write(&settings, &batch)));
        let made = run.batches(targets, first, batch_size, &mut |batch| {
            let n = batch.len() as u64;
            if sender.send(batch).is_err() {
                return ControlFlow::Break(()); // the error is the writer's
            }
            progress.advance(n);
            images += n;
            match stop.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        drop(sender);
        let written = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written.and(made)
    })?;
    progress.finish();
    let complete = first + images == targets.len();
    Ok(RunResult { images, complete, seconds: started.elapsed().as_secs_f64() })
}
