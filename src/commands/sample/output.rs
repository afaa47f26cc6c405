//! Where the images of a run go: a folder of PNGs with a contact sheet, an `.npz`, or both.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rayon::prelude::*;
use serde::Serialize;

use super::npz::NpzRun;
use super::provenance::{Provenance, RunSettings, SHEET};
use super::subject::Subject;
use crate::files;
use crate::pictures::Picture;

/// The contact sheet shows no more images than this.
const MOST_ON_A_SHEET: usize = 256;

/// One written image, as `--json` reports it.
#[derive(Debug, Clone, Serialize)]
pub struct Written {
    path: PathBuf,
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wnid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
}

impl Written {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A folder of PNGs.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    /// What was written so far.
    pub written: Vec<Written>,
    sheet: Vec<Picture>,
}

impl Folder {
    /// Makes the folder where it is missing, and makes sure that it can be written to.
    pub fn open(dir: &Path) -> Result<Self> {
        files::make_folder(dir)?;
        files::temporary_for(&dir.join(SHEET))?;
        Ok(Folder { dir: dir.to_owned(), written: vec![], sheet: vec![] })
    }

    /// The file of image `index`.
    pub fn path_of(&self, index: u64) -> PathBuf {
        self.dir.join(format!("{index:06}.png"))
    }

    /// Writes a batch, one PNG an image.
    pub fn write(&mut self, run: &RunSettings, images: &[Drawn]) -> Result<()> {
        let written: Result<Vec<Written>> =
            images.par_iter().map(|image| self.write_one(run, image)).collect();
        self.written.extend(written?);
        let room = MOST_ON_A_SHEET - self.sheet.len();
        self.sheet.extend(images.iter().take(room).map(|image| image.picture.clone()));
        Ok(())
    }

    fn write_one(&self, run: &RunSettings, image: &Drawn) -> Result<Written> {
        let path = self.path_of(image.index);
        let subject = image.subject.named();
        let provenance = Provenance { run: run.clone(), index: image.index, subject: subject.clone() };
        image.picture.write_png(&path, &provenance.texts()?)?;
        let class = image.subject.class();
        Ok(Written {
            path,
            index: image.index,
            class: subject.class,
            wnid: class.map(|c| c.wnid.clone()).filter(|w| !w.is_empty()),
            name: subject.class_name,
            prompt: subject.prompt,
        })
    }

    /// Writes `result.jsonl` beside pictures of prompts: `text` and `image_path` of each, as LlamaGen's evaluation script
    /// does, with paths that start at the folder.
    pub fn list_prompts(&self) -> Result<()> {
        let row = |w: &Written| {
            let name = w.path.file_name().unwrap_or_default().to_string_lossy();
            Some(serde_json::json!({"text": w.prompt.as_ref()?, "image_path": name}).to_string() + "\n")
        };
        let rows: String = self.written.iter().filter_map(row).collect();
        if rows.is_empty() { Ok(()) } else { files::write(&self.dir.join("result.jsonl"), rows.as_bytes()) }
    }

    /// Writes the contact sheet of two or more images: `columns` to a row.
    pub fn finish(&self, run: &RunSettings, columns: usize) -> Result<Option<PathBuf>> {
        if self.sheet.len() < 2 {
            return Ok(None);
        }
        let Some(sheet) = Picture::grid(&self.sheet, columns) else { return Ok(None) };
        let path = self.dir.join(SHEET);
        sheet.write_png(&path, &run.texts()?)?;
        Ok(Some(path))
    }
}

/// An image just made.
#[derive(Debug)]
pub struct Drawn<'a> {
    /// Its number in the run.
    pub index: u64,
    /// Its class or prompt.
    pub subject: &'a Subject,
    /// Its pixels.
    pub picture: Picture,
}

impl<'a> Drawn<'a> {
    /// Joins a batch's indices, subjects and pictures.
    pub fn batch(indices: Range<u64>, subjects: Vec<&'a Subject>, pictures: Vec<Picture>) -> Vec<Self> {
        let rest = subjects.into_iter().zip(pictures);
        indices.zip(rest).map(|(index, (subject, picture))| Drawn { index, subject, picture }).collect()
    }
}

/// Both kinds of output.
#[derive(Debug)]
pub struct Outputs {
    /// PNGs.
    pub folder: Option<Folder>,
    /// One file of all pixels.
    pub npz: Option<NpzRun>,
}

impl Outputs {
    /// Writes a batch everywhere.
    pub fn write(&mut self, run: &RunSettings, images: &[Drawn]) -> Result<()> {
        if let Some(folder) = &mut self.folder {
            folder.write(run, images)?;
        }
        if let Some(npz) = &mut self.npz {
            let bytes: Vec<u8> = images.iter().flat_map(|i| i.picture.rgb.iter().copied()).collect();
            npz.append(&bytes)?;
        }
        Ok(())
    }

    /// The first image still to be made.
    pub fn first_missing(&self) -> u64 {
        self.npz.as_ref().map_or(0, NpzRun::done)
    }
}
