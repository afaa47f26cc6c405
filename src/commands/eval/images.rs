//! Sets of images as the evaluation reads them.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use data::Subset;
use eval::ImageSet;
use generate::{SHEET, has_sheet};

use crate::context::{Context, open_images};

/// Opens a set; with `resize` its images become squares of that side by ADM's centre crop. The
/// contact sheet beside the images of `gen sample` is not one of them.
pub fn open(path: &Path, resize: Option<u32>, context: &Context) -> Result<ImageSet> {
    let mut records = open_images(path, context)?;
    if has_sheet(path) {
        let images = (0..records.len()).filter(|&i| records.key(i) != SHEET).collect();
        records = Arc::new(Subset::new(records, images));
    }
    Ok(ImageSet::new(path, records, resize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use generate::Picture;

    #[test]
    fn a_contact_sheet_is_no_image_and_a_picture_of_its_name_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, texts: &[(&str, String)]| {
            let plain = Picture { width: 1, height: 1, rgb: vec![7; 3] };
            plain.write_png(&dir.path().join(name), texts).unwrap();
        };
        write("000000.png", &[("gen:sample", "{}".into())]);
        write("zebra.png", &[]);
        let names = || {
            let context = Context::alone(crate::printer::Printer::new(true));
            let set = open(dir.path(), None, &context).unwrap();
            (0..set.len()).map(|i| set.key(i)).collect::<Vec<_>>()
        };
        write(SHEET, &[("gen:run", "{}".into())]);
        assert_eq!(names(), ["000000.png", "zebra.png"]);
        write(SHEET, &[]);
        assert_eq!(names(), ["000000.png", "grid.png", "zebra.png"]);
    }
}
