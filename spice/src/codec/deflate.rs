//! zlib streams (RFC 1950).

use flate2::{Compress, Compression, FlushCompress, Status};

/// The first level that looks for the better of two matches; those above it gain a hundredth.
const LEVEL: u32 = 3;

/// Makes one zlib stream after the other, with tables that are made for the first of them and kept.
#[derive(Debug, Default)]
pub(super) struct Deflate(Option<Compress>);

impl Deflate {
    /// The stream of `bytes`, if it is shorter than they are.
    pub(super) fn shorten(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        const ZLIB_HEADER: bool = true;
        let new = || Compress::new(Compression::new(LEVEL), ZLIB_HEADER);
        let state = self.0.get_or_insert_with(new);
        state.reset();
        // It never gets more room than would pay.
        let mut out = Vec::with_capacity(bytes.len().saturating_sub(1));
        let status = state.compress_vec(bytes, &mut out, FlushCompress::Finish);
        matches!(status, Ok(Status::StreamEnd)).then_some(out)
    }
}
