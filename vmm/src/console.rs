//! The guest's serial port on the terminal, in files, and under the eyes of a CI job.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use regex::bytes::Regex;

use crate::exit::Exit;

/// Ctrl-] leaves.
pub const ESCAPE: u8 = 0x1d;

/// Bytes of a line that the watcher remembers; a longer line is watched in parts.
const LINE: usize = 4096;

/// The terminal in raw mode; as it was again when this goes, or when the program panics.
#[derive(Debug)]
pub struct RawTerminal {
    saved: Arc<Saved>,
}

struct Saved {
    fd: RawFd,
    termios: Mutex<Option<libc::termios>>,
}

impl std::fmt::Debug for Saved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Saved")
            .field("fd", &self.fd)
            .finish_non_exhaustive()
    }
}

impl Saved {
    fn restore(&self) {
        if let Some(termios) = self.termios.lock().take() {
            // SAFETY: `termios` came from tcgetattr on this descriptor. One that was closed
            // meanwhile is refused by the kernel.
            unsafe { libc::tcsetattr(self.fd, libc::TCSANOW, &raw const termios) };
        }
    }
}

impl RawTerminal {
    /// Puts the terminal on standard input into raw mode: every key goes to the guest, Ctrl-C
    /// too. `None` if standard input is no terminal.
    ///
    /// # Errors
    ///
    /// The terminal refuses.
    pub fn stdin() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let terminal = Self::on(libc::STDIN_FILENO)?;
        let saved = Arc::clone(&terminal.saved);
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            saved.restore();
            next(info);
        }));
        Ok(Some(terminal))
    }

    fn on(fd: RawFd) -> io::Result<Self> {
        let mut termios = std::mem::MaybeUninit::<libc::termios>::uninit();
        // SAFETY: `termios` has room for what tcgetattr writes.
        if unsafe { libc::tcgetattr(fd, termios.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: tcgetattr succeeded, so it has filled `termios`.
        let saved = unsafe { termios.assume_init() };
        let mut raw = saved;
        // SAFETY: `raw` is a valid termios.
        unsafe { libc::cfmakeraw(&raw mut raw) };
        // Our own lines still begin at the left edge.
        raw.c_oflag |= libc::OPOST | libc::ONLCR;
        // SAFETY: `raw` is a valid termios.
        if unsafe { libc::tcsetattr(fd, libc::TCSANOW, &raw const raw) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            saved: Arc::new(Saved {
                fd,
                termios: Mutex::new(Some(saved)),
            }),
        })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.saved.restore();
    }
}

/// What a read of the console gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed {
    /// For the guest.
    pub bytes: Vec<u8>,
    /// Whether the person wants to leave.
    pub leave: bool,
    /// Whether there is no more input, ever.
    pub end: bool,
}

/// Standard input as the guest's keyboard at the serial port.
#[derive(Debug)]
pub struct ConsoleInput {
    terminal: Option<RawTerminal>,
}

impl ConsoleInput {
    /// Takes standard input over, in raw mode if it is a terminal.
    ///
    /// # Errors
    ///
    /// The terminal refuses raw mode.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminal: RawTerminal::stdin()?,
        })
    }

    /// Whether a person may be typing.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Reads once; call it when standard input is readable. (Files and `/dev/null` can't be
    /// polled: they are always readable.)
    ///
    /// # Errors
    ///
    /// Standard input fails.
    pub fn read(&mut self) -> io::Result<Typed> {
        let mut buffer = [0; 256];
        // Not through std's buffer, which would hide bytes from the poll.
        let count = RawStdin.read(&mut buffer)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        let cut = match self.is_terminal() {
            true => bytes.iter().position(|b| *b == ESCAPE),
            false => None,
        };
        Ok(Typed {
            bytes: bytes[..cut.unwrap_or(count)].to_vec(),
            leave: cut.is_some(),
            end: count == 0,
        })
    }
}

impl AsRawFd for ConsoleInput {
    fn as_raw_fd(&self) -> RawFd {
        libc::STDIN_FILENO
    }
}

struct RawStdin;

impl Read for RawStdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the pointer and the length are those of `buffer`.
        let count =
            unsafe { libc::read(libc::STDIN_FILENO, buffer.as_mut_ptr().cast(), buffer.len()) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

/// What a CI job looks for in the serial output.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// Ends with success.
    pub expect: Option<Regex>,
    /// Ends with [`Exit::FailSerial`].
    pub fail: Option<Regex>,
}

/// What was seen in the serial output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The text of `--expect-serial`.
    Expected,
    /// The text of `--fail-serial`.
    Failed,
}

impl From<Verdict> for Exit {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Expected => Self::Success,
            Verdict::Failed => Self::FailSerial,
        }
    }
}

impl Watch {
    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.expect.is_none() && self.fail.is_none()
    }
}

/// Looks at serial output line by line, unfinished lines too, so that prompts are seen.
#[derive(Debug)]
struct Watcher {
    watch: Watch,
    line: Vec<u8>,
}

impl Watcher {
    fn new(watch: Watch) -> Self {
        Self {
            watch,
            line: Vec::new(),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Option<Verdict> {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            for piece in part.chunks(LINE / 2) {
                if self.line.len() + piece.len() > LINE {
                    // Half stays, so that what lies across the cut is still seen.
                    self.line.drain(..LINE / 2);
                }
                self.line.extend_from_slice(piece);
                let verdict = self.look();
                if verdict.is_some() {
                    return verdict;
                }
            }
            if part.ends_with(b"\n") {
                self.line.clear();
            }
        }
        None
    }

    fn look(&self) -> Option<Verdict> {
        let text = self.line.trim_ascii_end();
        let seen = |regex: &Option<Regex>| {
            regex
                .as_ref()
                .is_some_and(|r| r.is_match(&self.line) || r.is_match(text))
        };
        match () {
            () if seen(&self.watch.fail) => Some(Verdict::Failed),
            () if seen(&self.watch.expect) => Some(Verdict::Expected),
            () => None,
        }
    }
}

/// Told of what was seen.
pub type OnVerdict = Box<dyn FnMut(Verdict) + Send>;

/// Where the serial port writes: any number of places, and a watcher. A place that fails is
/// dropped; the guest never notices.
#[derive(Default)]
pub struct SerialOutput {
    sinks: Vec<(String, Box<dyn Write + Send>)>,
    watcher: Option<(Watcher, OnVerdict)>,
}

impl SerialOutput {
    /// Output that goes nowhere.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a place; `name` is what a log calls it.
    #[must_use]
    pub fn to(mut self, name: &str, sink: impl Write + Send + 'static) -> Self {
        self.sinks.push((name.to_owned(), Box::new(sink)));
        self
    }

    /// Adds the terminal, or whatever standard output is.
    #[must_use]
    pub fn to_stdout(self) -> Self {
        self.to("standard output", Unhurried::new(libc::STDOUT_FILENO))
    }

    /// Calls `on_verdict` once, when `watch` sees what it looks for.
    #[must_use]
    pub fn watched(mut self, watch: Watch, on_verdict: OnVerdict) -> Self {
        if !watch.is_idle() {
            self.watcher = Some((Watcher::new(watch), on_verdict));
        }
        self
    }
}

impl Write for SerialOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sinks
            .retain_mut(|(name, sink)| match sink.write_all(bytes) {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(%error, "serial output no longer goes to {name}");
                    false
                }
            });
        let verdict = self
            .watcher
            .as_mut()
            .and_then(|(watcher, _)| watcher.push(bytes));
        if let Some(verdict) = verdict
            && let Some((_, mut on_verdict)) = self.watcher.take()
        {
            on_verdict(verdict);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        for (_, sink) in &mut self.sinks {
            // A sink that can't flush says so again at the next write.
            let _ = sink.flush();
        }
        Ok(())
    }
}

/// How long the guest may be held up by whoever reads its output, once.
const PATIENCE: Duration = Duration::from_secs(1);

/// A descriptor written without std's line buffer, so that a prompt shows at once, and without
/// waiting for a reader that has stopped: what such a reader misses is lost.
struct Unhurried {
    fd: RawFd,
    /// Whether the reader was found to have stopped, and is not waited for again.
    stuck: bool,
}

impl Unhurried {
    const fn new(fd: RawFd) -> Self {
        Self { fd, stuck: false }
    }

    /// Whether a byte can be written now, or within the patience that is left.
    fn is_ready(&self) -> io::Result<bool> {
        let patience = if self.stuck { Duration::ZERO } else { PATIENCE };
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut poll = libc::pollfd {
                fd: self.fd,
                events: libc::POLLOUT,
                revents: 0,
            };
            // SAFETY: `poll` is one valid pollfd.
            let count = unsafe { libc::poll(&raw mut poll, 1, left.as_millis() as libc::c_int) };
            match count {
                0 => return Ok(false),
                1.. => return Ok(true),
                _ => {}
            }
            // A signal that wants the vCPU is no answer; the end of the patience is.
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl Write for Unhurried {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stuck = !self.is_ready()?;
        if self.stuck {
            return Ok(bytes.len());
        }
        // SAFETY: the pointer and the length are those of `bytes`.
        let count = unsafe { libc::write(self.fd, bytes.as_ptr().cast(), bytes.len()) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(expect: &str, fail: &str) -> Watch {
        let regex = |text: &str| (!text.is_empty()).then(|| Regex::new(text).unwrap());
        Watch {
            expect: regex(expect),
            fail: regex(fail),
        }
    }

    fn seen(watch: Watch, parts: &[&[u8]]) -> Option<Verdict> {
        let mut watcher = Watcher::new(watch);
        parts.iter().find_map(|part| watcher.push(part))
    }

    #[test]
    fn a_prompt_is_seen_before_its_line_ends() {
        let verdict = seen(watch("login: $", ""), &[b"deb", b"ian lo", b"gin: "]);

        assert_eq!(verdict, Some(Verdict::Expected));
    }

    #[test]
    fn an_end_of_line_is_not_part_of_the_line() {
        let verdict = seen(watch("^done$", ""), &[b"one\r\ndone\r\n"]);

        assert_eq!(verdict, Some(Verdict::Expected));
    }

    #[test]
    fn failure_wins_over_success_on_one_line() {
        let verdict = seen(watch("ok", "not ok"), &[b"not ok\n"]);

        assert_eq!(verdict, Some(Verdict::Failed));
    }

    #[test]
    fn a_match_does_not_cross_lines() {
        let verdict = seen(watch("one.*two", ""), &[b"one\ntwo\n"]);

        assert_eq!(verdict, None);
    }

    #[test]
    fn bytes_that_are_no_text_are_watched_too() {
        let verdict = seen(watch("ready", ""), &[b"\xff\xfe\x00ready"]);

        assert_eq!(verdict, Some(Verdict::Expected));
    }

    #[test]
    fn an_endless_line_keeps_its_newest_part() {
        let mut watcher = Watcher::new(watch("needle", ""));
        watcher.push(&vec![b'x'; 10 * LINE]);

        assert!(watcher.line.len() <= LINE);
        assert_eq!(watcher.push(b"needle"), Some(Verdict::Expected));
    }

    #[test]
    fn output_goes_everywhere_and_the_verdict_comes_once() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut output = SerialOutput::new()
            .to("file", file.reopen().unwrap())
            .watched(watch("x", ""), Box::new(move |v| sender.send(v).unwrap()));

        output.write_all(b"xx\nx\n").unwrap();

        assert_eq!(std::fs::read(file.path()).unwrap(), b"xx\nx\n");
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [Verdict::Expected]);
    }

    #[test]
    fn a_sink_that_fails_is_dropped() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut output = SerialOutput::new().to("broken", Broken);

        output.write_all(b"x").unwrap();

        assert!(output.sinks.is_empty());
    }

    #[test]
    fn a_terminal_is_as_it_was_when_the_guard_goes() {
        let mut pty = (0, 0);
        // SAFETY: openpty writes two descriptors; the rest may be null.
        let made = unsafe {
            libc::openpty(
                &raw mut pty.0,
                &raw mut pty.1,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
        assert_eq!(made, 0);
        let flags = |fd| {
            let mut termios = std::mem::MaybeUninit::<libc::termios>::zeroed();
            // SAFETY: tcgetattr fills the structure.
            unsafe {
                libc::tcgetattr(fd, termios.as_mut_ptr());
                termios.assume_init().c_lflag
            }
        };
        let before = flags(pty.1);

        let guard = RawTerminal::on(pty.1).unwrap();
        let during = flags(pty.1);
        drop(guard);

        assert_eq!(during & libc::ICANON, 0);
        assert_eq!(flags(pty.1), before);
    }

    #[test]
    fn a_reader_that_has_stopped_is_waited_for_once() {
        let (_reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        while (&writer).write(&[0; 4096]).is_ok() {}
        let mut output = Unhurried::new(writer.as_raw_fd());
        output.write_all(b"lost").unwrap();
        let start = Instant::now();

        output.write_all(&[0; 100]).unwrap();

        assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    }
}
