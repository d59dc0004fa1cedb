//! `rng`.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::Checker;
use crate::config::path::at;
use crate::config::rng::{Rng, RngSpec};

const DEFAULT_SOURCE: &str = "/dev/urandom";

impl Checker<'_> {
    pub(super) fn rng(&mut self, rng: &Rng) -> Option<RngSpec> {
        let path = at!("rng");
        let source = rng.source.as_deref().unwrap_or(Path::new(DEFAULT_SOURCE));
        let limit = rng.limit.map(|limit| limit.check(&path.then("limit")));
        Some(RngSpec {
            id: self.id(&rng.id, "rng", "rng", &path),
            address: self.address(rng.address, None, &path)?,
            source: self.source(source),
            limit: limit.and_then(|limit| limit.map_err(|problem| self.note(*problem)).ok()),
        })
    }

    fn source(&mut self, source: &Path) -> PathBuf {
        let place = at!("rng", "source");
        let full = self.file(source, place.clone(), "source of random numbers");
        // A file's bytes would be the same in every run, and end.
        if let Ok(about) = std::fs::metadata(&full)
            && !about.is_dir()
            && !about.file_type().is_char_device()
        {
            let message = format!("\"{}\" is not a character device", source.display());
            self.bad(place, message, format!("use \"{DEFAULT_SOURCE}\""));
        }
        full
    }
}
