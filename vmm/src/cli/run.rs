//! `caraway run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use regex::bytes::Regex;

use super::ConfigFile;
use crate::config::units::Span;
use crate::console::Watch;
use crate::control::{self, RunOptions};
use crate::exit::{Exit, Failure};
use crate::footprint::forget_touched_code;
use crate::logging::LogFormat;

/// How to run the machine.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    options: Options,
}

/// What both `run` and `demo` take.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Serve the HTTP API on this Unix socket.
    #[arg(long, value_name = "SOCK")]
    api: Option<PathBuf>,
    /// End with 124 after this long: 500ms, 60s, 2m.
    #[arg(long, value_name = "TIME")]
    timeout: Option<Span>,
    /// Wait for `ctl SOCK vm.resume` before the first instruction.
    #[arg(long)]
    paused: bool,
    /// End with 0 as soon as a line of serial output matches, with 1 if none ever does.
    #[arg(long, value_name = "REGEX")]
    expect_serial: Option<Regex>,
    /// End with 113 as soon as a line of serial output matches.
    #[arg(long, value_name = "REGEX")]
    fail_serial: Option<Regex>,
    /// For tests: make every pause out to be this much longer than it was, to the guest's clocks
    /// and in events.
    #[arg(long, value_name = "TIME", hide = true)]
    longer_pauses: Option<Span>,
    /// For measurements: write what the guest's QXL driver draws here, in the format of the reference
    /// server's recordings.
    #[arg(long, value_name = "FILE.rec", hide = true)]
    record_display: Option<PathBuf>,
    /// Write a PNG of the screen here when the machine ends.
    #[arg(long, value_name = "FILE.png")]
    screenshot_on_exit: Option<PathBuf>,
    /// Write a connection file for virt-viewer here.
    #[arg(long, value_name = "FILE.vv")]
    vv: Option<PathBuf>,
    /// Write the serial output here too.
    #[arg(long, value_name = "FILE")]
    serial_file: Option<PathBuf>,
    /// Leave serial log, events, screenshots, config and exit report in this folder.
    #[arg(long, value_name = "DIR")]
    artifacts: Option<PathBuf>,
}

impl Options {
    pub(super) fn into_run(self, quiet: bool) -> Result<RunOptions, Failure> {
        Ok(RunOptions {
            api: self.api.map(socket_path).transpose()?,
            timeout: self.timeout.map(|span| span.0),
            paused: self.paused,
            longer_pauses: self.longer_pauses.map_or(Duration::ZERO, |span| span.0),
            watch: Watch {
                expect: self.expect_serial,
                fail: self.fail_serial,
            },
            record_display: self.record_display,
            screenshot_on_exit: self.screenshot_on_exit,
            vv: self.vv,
            serial_file: self.serial_file,
            artifacts: self.artifacts,
            quiet,
        })
    }
}

fn socket_path(path: PathBuf) -> Result<PathBuf, Failure> {
    const MOST: usize = 107;
    let length = path.as_os_str().len();
    if length > MOST {
        let message = format!(
            "--api {}: a socket path of {length} bytes; the kernel takes {MOST}",
            path.display()
        );
        let hint = "use a shorter path, for example in /run or /tmp";
        return Err(Failure::new(Exit::Usage, message).hint(hint));
    }
    Ok(path)
}

impl Run {
    pub(super) fn act(self, format: LogFormat) -> Result<Exit, Failure> {
        let spec = self.config.load()?;
        for note in &spec.notes {
            tracing::info!("{note}");
        }
        let options = self.options.into_run(format == LogFormat::Json)?;
        forget_touched_code();
        control::run(&spec, &options)
    }
}
