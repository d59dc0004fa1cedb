//! Builds a machine and runs it to its end.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::MachineSpec;
use crate::console::Watch;
use crate::exit::{Exit, Failure};

/// What the command line adds to the config.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Serve the API on this Unix socket.
    pub api: Option<PathBuf>,
    /// End with [`Exit::Timeout`] after this long.
    pub timeout: Option<Duration>,
    /// Wait for `vm.resume` before the first instruction.
    pub paused: bool,
    /// What to look for in the serial output.
    pub watch: Watch,
    /// Write a picture of every head here when the machine ends.
    pub screenshot_on_exit: Option<PathBuf>,
    /// Write a connection file for viewers here.
    pub vv: Option<PathBuf>,
    /// Write the serial output here too.
    pub serial_file: Option<PathBuf>,
    /// Leave serial log, events, pictures, config and exit report in this folder.
    pub artifacts: Option<PathBuf>,
    /// Print nothing for people: no viewer's line, no hint how to leave.
    pub quiet: bool,
}

/// Runs the machine in the foreground until it ends.
///
/// # Errors
///
/// It could not be built or run; everything made for it is gone again.
pub fn run(spec: MachineSpec, options: RunOptions) -> Result<Exit, Failure> {
    let _ = (spec, options);
    Err(Failure::new(Exit::Internal, "this build runs no machine"))
}
