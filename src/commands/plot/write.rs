//! An SVG as the file that was asked for.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use maud::{DOCTYPE, PreEscaped, html};
use resvg::{tiny_skia, usvg};

use super::curves::Run;
use crate::error::UserError;

/// File format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Png,
    Svg,
    Html,
}

impl Format {
    /// Format by the file's suffix.
    pub fn of(path: &Path) -> Result<Format> {
        let suffix = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        Ok(match suffix.as_deref() {
            Some("png") => Format::Png,
            Some("svg") => Format::Svg,
            Some("html" | "htm") => Format::Html,
            _ => {
                let error = UserError::new(format!("`{}` does not tell what to draw", path.display()));
                return Err(error.hint("name it .png, .svg or .html").into());
            }
        })
    }
}

/// Writes the file, whole or not at all.
pub fn write(path: &Path, format: Format, svg: &str, runs: &[Run]) -> Result<()> {
    let bytes = match format {
        Format::Svg => svg.as_bytes().to_vec(),
        Format::Html => page(svg, runs).into_bytes(),
        Format::Png => png(svg)?,
    };
    Ok(base::files::write_atomic(path, |file| file.write_all(&bytes))?)
}

/// Pixels for each of the SVG's, for sharp text.
const SCALE: f32 = 2.0;

/// Draws text in a font of our own, so that it looks the same on machines without any.
fn png(svg: &str) -> Result<Vec<u8>> {
    let mut fonts = usvg::fontdb::Database::new();
    fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    let family = fonts.faces().next().and_then(|face| face.families.first()).map(|f| f.0.clone());
    fonts.set_sans_serif_family(family.context("the built-in font has no name")?);
    let options = usvg::Options { fontdb: Arc::new(fonts), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(svg, &options).context("cannot read the drawing")?;
    let size = tree.size().scale_by(SCALE).context("the picture has no size")?.to_int_size();
    let mut pixels =
        tiny_skia::Pixmap::new(size.width(), size.height()).context("the picture is too large")?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().context("cannot encode the picture")
}

fn page(svg: &str, runs: &[Run]) -> String {
    let names: Vec<&str> = runs.iter().map(|r| r.name.as_str()).collect();
    let title = format!("Training curves: {}", names.join(", "));
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (title) }
                style { "body { font-family: sans-serif; margin: 1em } svg { max-width: 100%; height: auto }" }
            }
            body { (PreEscaped(svg)) }
        }
    }
    .into_string()
}
