//! What can be asked of a running machine, by whomever: the API, the command line, signals.
//!
//! All of it goes as a [`Command`] to the one control loop, which owns the machine and answers
//! through the command's [`Reply`].

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, mpsc};

use caraway_spice::{Key, PointerEvent};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::ToSchema;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::access::{
    AddedTicket, NewTicket, Revocation, Revoked, SessionInfo, SessionList, Termination, TicketList,
};
use crate::balloon::BalloonStatus;
use crate::config::disk::Disk;
use crate::config::net::{Net, NetSpec};
use crate::config::policy::OnResume;
use crate::config::units::Size;
use crate::config::{DiskSpec, Problem};
use crate::console::Verdict;
use crate::device::{DeviceInfo, DeviceName, Opened};
use crate::disk::{DiskInfo, DiskLimit, DiskList, DiskResize};
use crate::guest_agent::GuestAgent;
use crate::nets::{LimitChange, LinkChange, NetInfo, NetList};

/// Takes the answer to a command. Dropped without one, the asker is told that the machine ended.
pub type Reply<T> = oneshot::Sender<Result<T, ApiError>>;

/// Something asked of the machine.
#[derive(Debug)]
pub enum Command {
    /// What the machine is and does.
    VmInfo(Reply<VmInfo>),
    /// Stop all vCPUs; does nothing if they are stopped.
    Pause(Reply<()>),
    /// Let them run; does nothing if they run.
    Resume {
        /// What the guest's time does; as the config says if `None`.
        clock: Option<OnResume>,
        /// Answered when they run.
        reply: Reply<()>,
    },
    /// Start the machine anew, as its reset button would.
    Reset(Reply<()>),
    /// Press the ACPI power button.
    PowerButton(Reply<()>),
    /// Give the guest another VM generation id; `wrong-state` if it has none.
    RenewGeneration(Reply<Generation>),
    /// What the balloon does; `no-balloon` without one.
    BalloonInfo(Reply<BalloonStatus>),
    /// Ask the guest to keep so much of its memory.
    SetBalloon {
        /// Bytes.
        target: Size,
        /// Answered when the guest was asked; `no-balloon` without one.
        reply: Reply<()>,
    },
    /// The port of the guest's agent; `no-agent` without one.
    GuestAgent(Reply<Arc<GuestAgent>>),
    /// End the machine at once, without asking the guest.
    Shutdown(Reply<()>),
    /// What the display and its server do.
    DisplayInfo(Reply<DisplayInfo>),
    /// The pixels of a head as they are now.
    Screenshot {
        /// Which head, from 0.
        head: u32,
        /// Takes the pixels; `no-display` without a display, `not-found` without such a head.
        reply: Reply<Screenshot>,
    },
    /// A number that changes whenever what is shown does.
    DisplayStamp(Reply<u64>),
    /// The VGA text cells; `not-text-mode` outside of text mode.
    DisplayText(Reply<TextScreen>),
    /// What a viewer must know to connect; `no-display` without a SPICE server.
    Viewer {
        /// The id of the ticket to connect with; the config's if not given.
        ticket: Option<String>,
        /// Takes it; `not-found` without such a ticket.
        reply: Reply<Viewer>,
    },
    /// Let somebody in.
    AddTicket {
        /// Whom, for how long and what for.
        ticket: NewTicket,
        /// Takes what became of it.
        reply: Reply<AddedTicket>,
    },
    /// All tickets.
    Tickets(Reply<TicketList>),
    /// Let somebody in no longer.
    RevokeTicket {
        /// By which ticket.
        ticket: Revocation,
        /// Takes what became of it; `not-found` without such a ticket.
        reply: Reply<Revoked>,
    },
    /// Who is connected.
    Sessions(Reply<SessionList>),
    /// Put somebody out.
    Terminate {
        /// Whom, and why.
        session: Termination,
        /// Answered when the viewer is on its way; `not-found` without such a session.
        reply: Reply<()>,
    },
    /// Read the certificate's files again; `no-tls` without any, `bad-certificate` if they are not
    /// what they should be, and then nothing changes.
    TlsReload(Reply<TlsInfo>),
    /// All network cards.
    Nets(Reply<NetList>),
    /// Put a cable in, or pull it.
    NetLink {
        /// Which.
        change: LinkChange,
        /// Takes what the card is then; `not-found` without such a card.
        reply: Reply<NetInfo>,
    },
    /// Put a network card into a slot; `wrong-state` without slots, `conflict` if all are taken,
    /// `resource` if there is nothing to join it to.
    AddNet {
        /// As the config would have it.
        net: Box<Net>,
        /// Takes what it is, when it is in its slot; the guest's answer is an event.
        reply: Reply<NetInfo>,
    },
    /// Ask the guest to let a network card go that is in a slot.
    RemoveNet {
        /// Which.
        net: DeviceName,
        /// Answered when the guest was asked; its answer is an event.
        reply: Reply<()>,
    },
    /// What the host has for a network card was opened, or could not be.
    NetOpened(Box<Opened<NetSpec, NetInfo>>),
    /// Hold a network card to other limits.
    NetLimit {
        /// Which.
        change: LimitChange,
        /// Takes what the card is then; `not-found` without such a card.
        reply: Reply<NetInfo>,
    },
    /// Keys and pointer, in this order, without waiting between them.
    Input {
        /// What was done.
        events: Vec<InputEvent>,
        /// Answered when the machine's devices have taken them.
        reply: Reply<()>,
    },
    /// The disks.
    Disks(Reply<DiskList>),
    /// Make a disk larger; `not-found` without such a disk, `bad-request` for a size that it can't
    /// have.
    ResizeDisk {
        /// Which, and how large.
        resize: DiskResize,
        /// Takes what it is now, when the host has done it.
        reply: Reply<DiskInfo>,
    },
    /// Put a disk into a slot; `wrong-state` without slots, `conflict` if all are taken, `resource` if
    /// its image can't be used.
    AddDisk {
        /// As the config would have it.
        disk: Box<Disk>,
        /// Takes what it is, when it is in its slot; the guest's answer is an event.
        reply: Reply<DiskInfo>,
    },
    /// What the host has for a disk was opened, or could not be.
    DiskOpened(Box<Opened<DiskSpec, DiskInfo>>),
    /// Ask the guest to let a disk go that is in a slot.
    RemoveDisk {
        /// Which.
        disk: DeviceName,
        /// Answered when the guest was asked; its answer is an event.
        reply: Reply<()>,
    },
    /// Change a disk's limits; `not-found` without such a disk.
    LimitDisk {
        /// Which, and how.
        limit: DiskLimit,
        /// Takes what it is now.
        reply: Reply<DiskInfo>,
    },
    /// The serial port's watcher has seen what it waited for.
    Serial(Verdict),
    /// `--timeout` ran out, a signal came, or the person at the terminal left.
    End(crate::exit::Exit),
}

/// Something done at a keyboard or pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputEvent {
    /// A key went down or up.
    Key {
        /// Which.
        key: Key,
        /// Whether down.
        down: bool,
    },
    /// The pointer did something.
    Pointer(PointerEvent),
}

/// Whether the vCPUs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// They run.
    Running,
    /// They are stopped.
    Paused,
}

/// What the machine is and does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmInfo {
    /// The machine's name.
    pub name: String,
    /// Its identity.
    pub uuid: String,
    /// Version of the program that runs it.
    pub version: String,
    /// The program's process id.
    pub pid: u32,
    /// Whether the vCPUs run.
    pub state: VmState,
    /// How many vCPUs.
    pub cpus: u32,
    /// Bytes of guest memory.
    pub memory: u64,
    /// The VM generation id; none if the machine has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
    /// Milliseconds since the machine was started.
    pub uptime_ms: u64,
    /// Every PCI device, by address.
    pub devices: Vec<DeviceInfo>,
}

/// A VM generation id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Generation {
    /// The UUID that the guest has from now on.
    pub generation: String,
}

/// What the display and its server do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct DisplayInfo {
    /// Where viewers may connect, with the real port: `127.0.0.1:5900` or `unix:/run/desk.spice`.
    pub listeners: Vec<String>,
    /// How viewers are served by TLS, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsInfo>,
    /// Who is connected.
    pub sessions: Vec<SessionInfo>,
    /// The monitors; empty while the guest is between two modes.
    pub heads: Vec<HeadInfo>,
    /// `client` if the guest takes an absolute pointer, else `server`.
    pub mouse_mode: String,
}

/// How viewers are served by TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct TlsInfo {
    /// Where they may connect, with the real port: `127.0.0.1:5901`.
    pub listeners: Vec<String>,
    /// The certificate's subject, as viewers take it for `host-subject`.
    pub subject: String,
    /// When the certificate's time is over: UTC, RFC 3339.
    pub expires: String,
}

/// A monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeadInfo {
    /// Its number, from 0.
    pub id: u32,
    /// Pixels from the left of the primary surface.
    pub x: i32,
    /// Pixels from its top.
    pub y: i32,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
}

/// Pixels of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screenshot {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Rows of `width * 4` bytes without gaps, blue first, the fourth byte unused.
    pub pixels: Vec<u8>,
}

/// The VGA's text cells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TextScreen {
    /// Cells across.
    pub columns: u32,
    /// The rows from the top, each without blanks at its end.
    pub rows: Vec<String>,
}

/// What a viewer must know to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// The window's title: the machine's name.
    pub title: String,
    /// Where to connect plainly, best first, with real ports.
    pub listeners: Vec<crate::config::endpoint::Listen>,
    /// How to connect by TLS.
    pub tls: Option<SecureViewer>,
    /// What it must send.
    pub password: Option<crate::config::spice::Secret>,
}

/// What a viewer must know to connect by TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecureViewer {
    /// Where to connect, with the real port.
    pub listen: std::net::SocketAddr,
    /// The certificate's subject.
    pub subject: String,
    /// The certificates to trust, in PEM; those of the system if `None`.
    pub ca: Option<String>,
    /// Which channels are to be had in no other way.
    pub channels: crate::config::tls::Channels,
}

/// A stable word for programs, and the status of the answer that carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request is not what the verb takes.
    BadRequest,
    /// No such verb, head or device.
    NotFound,
    /// The verb is there, but not by this method.
    MethodNotAllowed,
    /// The machine has no display, or no server for it.
    NoDisplay,
    /// The display is not in text mode.
    NotTextMode,
    /// The machine's viewers are not served by TLS.
    NoTls,
    /// The machine has no balloon.
    NoBalloon,
    /// The machine has no port for the guest's agent, or no agent is there.
    NoAgent,
    /// The guest's agent does not do what it is asked.
    AgentRefused,
    /// A certificate's file is not what it should be.
    BadCertificate,
    /// The guest shows nothing now: it is between two modes.
    NoPicture,
    /// The machine can't do that in its state.
    WrongState,
    /// Another thing of that name is there, or no more has room.
    Conflict,
    /// What was waited for did not happen in time.
    Timeout,
    /// The request's body is too long.
    TooLarge,
    /// The host lacks what was asked for, or refuses it.
    Resource,
    /// A fault of our own.
    Internal,
    /// The machine has ended.
    Gone,
}

impl ErrorCode {
    /// The stable word.
    #[must_use]
    pub fn word(self) -> String {
        let word = serde_json::to_value(self).ok();
        word.and_then(|word| word.as_str().map(String::from))
            .unwrap_or_default()
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NoDisplay
            | Self::NotTextMode
            | Self::NoPicture
            | Self::WrongState
            | Self::NoTls
            | Self::BadCertificate
            | Self::NoBalloon
            | Self::NoAgent
            | Self::Conflict
            | Self::Resource => 409,
            Self::TooLarge => 413,
            Self::Internal => 500,
            Self::AgentRefused => 502,
            Self::Gone => 503,
            Self::Timeout => 504,
        }
    }
}

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// A stable word.
    pub code: ErrorCode,
    /// What is wrong, with the operand.
    pub message: String,
    /// Where in the request or the config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Why, outermost first.
    #[serde(default)]
    pub causes: Vec<String>,
}

impl From<Box<Problem>> for ApiError {
    fn from(problem: Box<Problem>) -> Self {
        let error = Self::new(ErrorCode::BadRequest, problem.message);
        Self {
            path: Some(problem.path.to_string()),
            hint: problem.hint,
            ..error
        }
    }
}

impl ApiError {
    /// An error without a cause of its own.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            path: None,
            hint: None,
            causes: Vec::new(),
        }
    }

    /// The same error, about this part of the request.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The same error, saying what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn gone() -> Self {
        Self::new(ErrorCode::Gone, "the machine has ended")
    }
}

/// Sends commands to the control loop; cheap to clone.
#[derive(Debug, Clone)]
pub struct ControlHandle {
    sender: mpsc::Sender<Command>,
    wake: Arc<EventFd>,
}

/// The control loop's end: wait until [`as_raw_fd`](AsRawFd::as_raw_fd) is readable, then take
/// every command.
#[derive(Debug)]
pub struct ControlReceiver {
    receiver: mpsc::Receiver<Command>,
    wake: Arc<EventFd>,
}

/// A handle and its control loop's end.
///
/// # Errors
///
/// The host gives no eventfd.
pub fn control_channel() -> std::io::Result<(ControlHandle, ControlReceiver)> {
    let (sender, receiver) = mpsc::channel();
    let wake = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
    let handle = ControlHandle {
        sender,
        wake: Arc::clone(&wake),
    };
    Ok((handle, ControlReceiver { receiver, wake }))
}

impl ControlHandle {
    /// Sends a command that needs no answer, or brings its own [`Reply`]. If the machine has
    /// ended, that reply is dropped.
    pub fn send(&self, command: Command) {
        if self.sender.send(command).is_ok() {
            // Fails only if the counter is full, and then the loop is awake already.
            let _ = self.wake.write(1);
        }
    }

    /// Sends the command that `make` builds and waits for its answer.
    ///
    /// # Errors
    ///
    /// The control loop's refusal, or `gone` if the machine ended.
    pub async fn call<T>(&self, make: impl FnOnce(Reply<T>) -> Command) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.send(make(reply));
        answer.await.unwrap_or_else(|_| Err(ApiError::gone()))
    }

    /// As [`call`](Self::call), for a thread that may block.
    ///
    /// # Errors
    ///
    /// The control loop's refusal, or `gone` if the machine ended.
    pub fn call_blocking<T>(&self, make: impl FnOnce(Reply<T>) -> Command) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.send(make(reply));
        answer
            .blocking_recv()
            .unwrap_or_else(|_| Err(ApiError::gone()))
    }
}

impl ControlReceiver {
    /// The next command, without waiting. When there is none, the descriptor is quiet until the
    /// next one comes.
    pub fn try_next(&mut self) -> Option<Command> {
        self.receiver.try_recv().ok().or_else(|| {
            // Quiet it, then look again: a command may have come between the two.
            let _ = self.wake.read();
            self.receiver.try_recv().ok()
        })
    }
}

impl AsRawFd for ControlReceiver {
    fn as_raw_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_answered_through_its_reply() {
        let (handle, mut receiver) = control_channel().unwrap();
        let asker = std::thread::spawn(move || handle.call_blocking(Command::DisplayStamp));
        let command = loop {
            match receiver.try_next() {
                Some(command) => break command,
                None => std::thread::yield_now(),
            }
        };

        let Command::DisplayStamp(reply) = command else {
            panic!("{command:?}");
        };
        reply.send(Ok(7)).unwrap();

        assert_eq!(asker.join().unwrap(), Ok(7));
    }

    #[test]
    fn a_machine_that_ended_answers_that_it_is_gone() {
        let (handle, receiver) = control_channel().unwrap();
        drop(receiver);

        let answer = handle.call_blocking(Command::VmInfo);

        assert_eq!(answer.unwrap_err().code, ErrorCode::Gone);
    }

    #[test]
    fn an_unanswered_command_is_an_error() {
        let (handle, mut receiver) = control_channel().unwrap();
        let asker = std::thread::spawn(move || handle.call_blocking(Command::Pause));
        while receiver.try_next().is_none() {
            std::thread::yield_now();
        }

        let answer = asker.join().unwrap();

        assert_eq!(answer.unwrap_err().code, ErrorCode::Gone);
    }
}
