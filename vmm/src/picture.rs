//! Pictures as PNG.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::command::Screenshot;

/// Writes `shot` to `out` as an 8-bit RGB PNG.
///
/// # Errors
/// `out` fails, or the picture has no pixels.
pub fn encode_png(shot: &Screenshot, out: impl Write) -> io::Result<()> {
    let mut encoder = png::Encoder::new(out, shot.width, shot.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let rgb: Vec<u8> = shot
        .pixels
        .as_chunks::<4>()
        .0
        .iter()
        .flat_map(|[b, g, r, _]| [*r, *g, *b])
        .collect();
    let mut writer = encoder.write_header().map_err(io::Error::other)?;
    writer.write_image_data(&rgb).map_err(io::Error::other)?;
    writer.finish().map_err(io::Error::other)
}

/// Writes `shot` to the file at `path`, or leaves none.
///
/// # Errors
/// The file can't be written.
pub fn write_png(path: &Path, shot: &Screenshot) -> io::Result<()> {
    let mut out = BufWriter::new(std::fs::File::create(path)?);
    let written = encode_png(shot, &mut out).and_then(|()| out.flush());
    if written.is_err() {
        // The first error says what is wrong.
        let _ = std::fs::remove_file(path);
    }
    written
}
