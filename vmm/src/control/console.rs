//! The serial port's other end: terminal, files and watcher out, standard input in.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use caraway_devices::SerialPort;
use parking_lot::Mutex;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::RunOptions;
use super::ending::Artifacts;
use crate::command::{Command, ControlHandle};
use crate::config::MachineSpec;
use crate::config::endpoint::SerialTo;
use crate::console::{ConsoleInput, SerialOutput};
use crate::exit::{Exit, Failure};
use crate::machine::{Keep, Source};

/// Bytes typed ahead of what the guest has read; more is dropped, as a terminal's driver does.
const TYPED_AHEAD: usize = 64 << 10;

/// What is typed and not yet read by the guest.
#[derive(Clone)]
pub(super) struct SerialInput {
    shared: Arc<Shared>,
    terminal: bool,
}

struct Shared {
    waiting: Mutex<VecDeque<u8>>,
    port: OnceLock<Arc<Mutex<SerialPort>>>,
    room: EventFd,
}

impl SerialInput {
    fn new(terminal: bool) -> std::io::Result<Self> {
        let room = EventFd::new(EFD_NONBLOCK)?;
        let (waiting, port) = (Mutex::default(), OnceLock::new());
        Ok(Self {
            shared: Arc::new(Shared {
                waiting,
                port,
                room,
            }),
            terminal,
        })
    }

    /// Whether a person may be typing.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// What the port calls, with its lock held, when it has room.
    pub(super) fn room_hook(&self) -> Box<dyn Fn() + Send + Sync> {
        let shared = Arc::clone(&self.shared);
        // The counter can't overflow: it is drained whenever it is not zero.
        Box::new(move || drop(shared.room.write(1)))
    }

    /// Gives everything typed to `port` from now on.
    pub(super) fn connect(&self, port: &Arc<Mutex<SerialPort>>) {
        // Nobody else sets it.
        let _ = self.shared.port.set(Arc::clone(port));
        self.push(&[]);
    }

    /// Adds `bytes` and gives the port what it takes.
    fn push(&self, bytes: &[u8]) {
        let mut waiting = self.shared.waiting.lock();
        let room = TYPED_AHEAD.saturating_sub(waiting.len());
        waiting.extend(bytes.iter().take(room));
        if bytes.len() > room {
            tracing::warn!(
                lost = bytes.len() - room,
                "the guest does not read what is typed"
            );
        }
        let Some(port) = self.shared.port.get() else {
            return;
        };
        while !waiting.is_empty() {
            let (front, _) = waiting.as_slices();
            let taken = port.lock().enqueue(front);
            if taken == 0 {
                break;
            }
            waiting.drain(..taken);
        }
    }
}

/// Opens both ends. The sources belong into the `devices` thread.
///
/// # Errors
/// A file can't be written, or the terminal refuses raw mode.
pub(super) fn open(
    spec: &MachineSpec,
    options: &RunOptions,
    artifacts: &Artifacts,
    handle: &ControlHandle,
) -> Result<(SerialInput, Vec<Source>, SerialOutput), Failure> {
    let mut output = SerialOutput::new();
    match &spec.serial {
        SerialTo::Stdio => output = output.to_stdout(),
        SerialTo::File(path) => output = output.to("the serial file", create(path)?),
        SerialTo::None | SerialTo::Unix(_) => {}
    }
    if let Some(path) = &options.serial_file {
        output = output.to("--serial-file", create(path)?);
    }
    if let Some(path) = artifacts.serial() {
        output = output.to("--artifacts", create(&path)?);
    }
    let watcher = handle.clone();
    let output = output.watched(
        options.watch.clone(),
        Box::new(move |verdict| watcher.send(Command::Serial(verdict))),
    );

    let failed = |error: std::io::Error| {
        Failure::of(Exit::Internal, &error).context("the console can't be set up")
    };
    if spec.serial != SerialTo::Stdio {
        return Ok((SerialInput::new(false).map_err(failed)?, Vec::new(), output));
    }
    let mut console = ConsoleInput::new().map_err(failed)?;
    let input = SerialInput::new(console.is_terminal()).map_err(failed)?;
    let mut sources = vec![room_source(&input)];
    match stdin_kind() {
        Stdin::Waits => {
            let (typed, control) = (input.clone(), handle.clone());
            sources.push(Source::new(console.as_raw_fd(), move || {
                read_console(&mut console, &typed, &control)
            }));
        }
        Stdin::AllThere => {
            let mut bytes = Vec::new();
            let all = std::io::stdin()
                .lock()
                .take(TYPED_AHEAD as u64)
                .read_to_end(&mut bytes);
            all.map_err(failed)?;
            input.push(&bytes);
        }
        Stdin::Nothing => {}
    }
    Ok((input, sources, output))
}

fn create(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|error| {
        Failure::of(Exit::Resource, &error)
            .context(format!("can't write {}", path.display()))
            .hint("check that its folder is there and may be written")
    })
}

fn room_source(input: &SerialInput) -> Source {
    let fd = input.shared.room.as_raw_fd();
    let input = input.clone();
    Source::new(fd, move || {
        // Only resets the counter.
        let _ = input.shared.room.read();
        input.push(&[]);
        Keep::Yes
    })
}

fn read_console(console: &mut ConsoleInput, input: &SerialInput, control: &ControlHandle) -> Keep {
    match console.read() {
        Ok(typed) => {
            input.push(&typed.bytes);
            if typed.leave {
                control.send(Command::End(Exit::Success));
            }
            if typed.end || typed.leave {
                Keep::No
            } else {
                Keep::Yes
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Keep::Yes,
        Err(error) => {
            tracing::warn!(%error, "standard input can't be read any more");
            Keep::No
        }
    }
}

/// What standard input is.
enum Stdin {
    /// Something that can be waited for.
    Waits,
    /// A file: it can't be waited for, and need not be.
    AllThere,
    /// Closed, or `/dev/null`.
    Nothing,
}

fn stdin_kind() -> Stdin {
    use std::io::IsTerminal;

    let Ok(metadata) = std::fs::metadata("/proc/self/fd/0") else {
        return Stdin::Nothing;
    };
    let kind = metadata.file_type();
    if std::io::stdin().is_terminal() || kind.is_fifo() || kind.is_socket() {
        Stdin::Waits
    } else if kind.is_file() {
        Stdin::AllThere
    } else {
        Stdin::Nothing
    }
}
