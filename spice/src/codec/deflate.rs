//! zlib streams (RFC 1950).

use flate2::{Compress, Compression, FlushCompress, Status};

/// The first level that looks for the better of two matches; those above it gain a hundredth.
const LEVEL: u32 = 3;

/// Makes one zlib stream after the other, with tables that are made for the first of them and kept.
#[derive(Debug, Default)]
pub(super) struct Deflate {
    state: Option<Compress>,
    out: Vec<u8>,
    is_complete: bool,
}

impl Deflate {
    /// Begins a stream.
    pub(super) fn begin(&mut self) {
        self.is_complete = false;
        self.out = Vec::new();
        if let Some(state) = &mut self.state {
            state.reset();
        }
    }

    /// Appends to it, and ends it after the `last` part.
    pub(super) fn step(&mut self, part: &[u8], last: bool) {
        const ZLIB_HEADER: bool = true;
        let state =
            (self.state).get_or_insert_with(|| Compress::new(Compression::new(LEVEL), ZLIB_HEADER));
        let flush = if last {
            FlushCompress::Finish
        } else {
            FlushCompress::None
        };
        let begin = state.total_in();
        loop {
            let taken = usize::try_from(state.total_in() - begin).unwrap_or(part.len());
            let rest = part.get(taken..).unwrap_or_default();
            if rest.is_empty() && !last {
                return;
            }
            self.out.reserve(rest.len() / 2 + 256);
            match state.compress_vec(rest, &mut self.out, flush) {
                Ok(Status::StreamEnd) => {
                    self.is_complete = true;
                    return;
                }
                Ok(Status::Ok | Status::BufError) => {}
                // It is not complete, and the caller does without.
                Err(_) => return,
            }
        }
    }

    /// The stream, if it is complete.
    pub(super) fn finish(&mut self) -> Option<Vec<u8>> {
        let out = std::mem::take(&mut self.out);
        self.is_complete.then_some(out)
    }
}
