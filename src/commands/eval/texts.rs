//! Texts that PNGs hold beside their pixels.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Text chunks before a PNG's pixels by keyword, of all three kinds; none for other files.
pub fn of_png(path: &Path) -> Result<HashMap<String, String>> {
    let file = File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let Ok(reader) = png::Decoder::new(BufReader::new(file)).read_info() else { return Ok(HashMap::new()) };
    let info = reader.info();
    let international = info.utf8_text.iter().filter_map(|t| Some((t.keyword.clone(), t.get_text().ok()?)));
    let plain = info.uncompressed_latin1_text.iter().map(|t| (t.keyword.clone(), t.text.clone()));
    let packed =
        info.compressed_latin1_text.iter().filter_map(|t| Some((t.keyword.clone(), t.get_text().ok()?)));
    Ok(international.chain(plain).chain(packed).collect())
}
