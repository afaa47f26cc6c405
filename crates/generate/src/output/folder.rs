//! A folder of PNGs with a contact sheet.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use crate::error::Result;
use crate::files;
use crate::picture::Picture;
use crate::provenance::{RunSettings, SHEET};
use crate::run::SampledImage;

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
    /// The images written so far.
    pub written: Vec<Written>,
    sheet: Vec<Picture>,
}

impl Folder {
    /// Makes the folder where it is missing, and makes sure that it can be written to.
    ///
    /// # Errors
    /// Returns an error if it cannot.
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
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn write(&mut self, run: &RunSettings, images: &[SampledImage]) -> Result<()> {
        let written: Result<Vec<Written>> =
            images.par_iter().map(|image| self.write_one(run, image)).collect();
        self.written.extend(written?);
        let room = MOST_ON_A_SHEET - self.sheet.len();
        self.sheet.extend(images.iter().take(room).map(|image| image.picture.clone()));
        Ok(())
    }

    fn write_one(&self, run: &RunSettings, image: &SampledImage) -> Result<Written> {
        let path = self.path_of(image.index);
        image.picture.write_png(&path, &image.provenance(run).texts()?)?;
        let (class, name) = (image.condition.class(), image.condition.name());
        Ok(Written {
            path,
            index: image.index,
            class: name.class,
            wnid: class.map(|c| c.wnid.clone()).filter(|w| !w.is_empty()),
            name: name.class_name,
            prompt: name.prompt,
        })
    }

    /// Writes `result.jsonl` beside pictures of prompts: `text` and `image_path` of each, as
    /// LlamaGen's evaluation script does, with paths that start at the folder.
    ///
    /// # Errors
    /// Returns an error if it cannot be written.
    pub fn list_prompts(&self) -> Result<()> {
        let row = |w: &Written| {
            let name = w.path.file_name().unwrap_or_default().to_string_lossy();
            Some(serde_json::json!({"text": w.prompt.as_ref()?, "image_path": name}).to_string() + "\n")
        };
        let rows: String = self.written.iter().filter_map(row).collect();
        if rows.is_empty() { Ok(()) } else { files::write(&self.dir.join("result.jsonl"), rows.as_bytes()) }
    }

    /// Writes the contact sheet of two or more images, `columns` to a row. Returns its path.
    ///
    /// # Errors
    /// Returns an error if it cannot be written.
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
