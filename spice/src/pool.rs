//! Where pixels are encoded that take a while, so that nobody's input waits for somebody's picture.
//!
//! These are the blocking threads of the runtime: it starts one when there is work and none is free, and ends
//! those that had none for a while. How many there are at most is said by whoever builds the runtime
//! (`max_blocking_threads`). Work is done in the order in which it comes, and a channel brings a piece or
//! a picture at a time, so no client keeps the others waiting for long.

use tokio::task::{JoinHandle, spawn_blocking};

use crate::session::Ending;

/// Pixels that are encoded on the spot: it takes less than half a millisecond, and handing them over is not
/// for nothing.
const FEW: u64 = 16 * 1024;

/// Does what takes time for so many pixels. Who no longer waits for it has it done for nothing.
pub(crate) async fn run<T: Send + 'static>(
    pixels: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Ending> {
    match pixels {
        ..=FEW => Ok(work()),
        _ => start(work).done().await,
    }
}

/// Has it done while others are.
pub(crate) fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Work<T> {
    Work(spawn_blocking(work))
}

/// Work that somebody does.
pub(crate) struct Work<T>(JoinHandle<T>);

impl<T> Work<T> {
    /// What came of it.
    pub(crate) async fn done(self) -> Result<T, Ending> {
        // The runtime ends.
        self.0.await.map_err(|_| Ending::Shutdown)
    }
}
