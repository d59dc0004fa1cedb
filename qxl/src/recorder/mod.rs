//! Writes down what a guest draws, in the text format of the reference server's recordings
//! (`SPICE_WORKER_RECORD_FILENAME`), so that both servers can be given the same again.
//!
//! A first line `SPICE_REPLAY 1`, then events: a line `event NUMBER WHAT TYPE TIME` (WHAT 0 is a
//! command of `QXLCommand.type`, 1 a request of the reference's own numbers; TIME is in ns), and what
//! belongs to it. Everything that a command points to is in the event. Commands of drivers only: what
//! the VGA modes show is not recorded.

mod script;

use std::io::{self, Write};
use std::sync::Arc;

use caraway_devices::Clock;

use crate::command::{CommandKind, SurfaceShape};
use crate::device::{GuestAddress, Place, Slots};
use script::Script;

/// What an event is about.
#[derive(Clone, Copy)]
enum Event {
    Command(u32),
    Request(u32),
}

const CREATE_PRIMARY: Event = Event::Request(20);
const DESTROY_PRIMARY: Event = Event::Request(21);

/// Writes events as they happen.
pub(crate) struct Recorder {
    out: Box<dyn Write + Send>,
    clock: Arc<dyn Clock>,
    events: u64,
}

impl Recorder {
    /// Begins a recording.
    ///
    /// # Errors
    /// What `out` says.
    pub(crate) fn new(mut out: Box<dyn Write + Send>, clock: Arc<dyn Clock>) -> io::Result<Self> {
        out.write_all(b"SPICE_REPLAY 1\n")?;
        let events = 0;
        Ok(Self { out, clock, events })
    }

    /// The command at `address`; one that means nothing is left out, as nothing comes of it.
    ///
    /// # Errors
    /// What the writer says.
    pub(crate) fn command(
        &mut self,
        slots: &Slots,
        kind: CommandKind,
        address: GuestAddress,
    ) -> io::Result<()> {
        let mut script = Script::new(slots);
        let (number, read) = match kind {
            CommandKind::Draw => (1, script.drawable(address)),
            CommandKind::Cursor => (3, script.cursor_command(address)),
            CommandKind::Surface => (5, script.surface_command(address)),
            CommandKind::Nop | CommandKind::Update | CommandKind::Message => return Ok(()),
        };
        match read {
            Ok(()) => self.event(Event::Command(number), script.text()),
            Err(error) => {
                tracing::debug!("a command is not recorded: {error}");
                Ok(())
            }
        }
    }

    /// A primary surface was made, with what is at `place`.
    ///
    /// # Errors
    /// What the writer says.
    pub(crate) fn create_primary(&mut self, shape: &SurfaceShape, place: &Place) -> io::Result<()> {
        let mut pixels = vec![0; usize::try_from(shape.len()).unwrap_or(0)];
        if shape.keep && place.read(0, &mut pixels).is_err() {
            return Ok(());
        }
        let mut text = format!(
            "{} {} {} {}\n0 1 {} 0\nbinary 0 data {}:",
            shape.width,
            shape.height,
            shape.stride,
            shape.format.number(),
            u8::from(shape.keep),
            pixels.len()
        )
        .into_bytes();
        text.extend(pixels);
        text.push(b'\n');
        self.event(CREATE_PRIMARY, &text)
    }

    /// There is no primary surface any more.
    ///
    /// # Errors
    /// What the writer says.
    pub(crate) fn destroy_primary(&mut self) -> io::Result<()> {
        self.event(DESTROY_PRIMARY, &[])
    }

    fn event(&mut self, event: Event, text: &[u8]) -> io::Result<()> {
        let (what, kind) = match event {
            Event::Command(kind) => (0, kind),
            Event::Request(kind) => (1, kind),
        };
        let (number, time) = (self.events, self.clock.now());
        self.events += 1;
        writeln!(self.out, "event {number} {what} {kind} {time}")?;
        self.out.write_all(text)?;
        // Whoever ends the machine wants to have it all.
        self.out.flush()
    }
}
