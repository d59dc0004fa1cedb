//! `caraway ctl`.

mod net;
mod ticket;

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use ticket::{AddTicket, write_private};

use super::{print, print_bytes};
use crate::access::{Revocation, RevokedSessions, Termination};
use crate::api::{Button, KeysRequest, PointerRequest, TextRequest};
use crate::balloon::BalloonTarget;
use crate::client::{Client, ClientError};
use crate::command::TextScreen;
use crate::config::disk::DiskLimits;
use crate::config::policy::OnResume;
use crate::config::units::{Size, Span};
use crate::device::DeviceName;
use crate::disk::{DiskLimit, DiskResize};
use crate::exit::{Exit, Failure};
use crate::guest_agent::AgentCommand;

/// Which machine, and what of it.
#[derive(Debug, Args)]
pub(super) struct Ctl {
    /// The socket that the machine was given with --api.
    #[arg(value_name = "SOCK")]
    socket: PathBuf,
    /// Print the answer as it came.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

/// Every verb of the API.
#[derive(Debug, Subcommand)]
enum Verb {
    /// What the machine is and does.
    #[command(name = "vm.info")]
    Info,
    /// Stop all vCPUs.
    #[command(name = "vm.pause")]
    Pause,
    /// Let the vCPUs run.
    #[command(name = "vm.resume")]
    Resume {
        /// What the guest's time does; as the config says if not given.
        #[arg(long, value_enum)]
        clock: Option<OnResume>,
    },
    /// Start the machine anew, as its reset button would.
    #[command(name = "vm.reset")]
    Reset,
    /// Press the ACPI power button; the guest decides what follows.
    #[command(name = "vm.power-button")]
    PowerButton,
    /// Give the guest another VM generation id, and tell it.
    #[command(name = "vm.generation.renew")]
    RenewGeneration,
    /// End the machine at once, without asking the guest.
    #[command(name = "vm.shutdown")]
    Shutdown,
    /// Listeners, sessions, channels, heads and the mouse mode.
    #[command(name = "display.info")]
    DisplayInfo,
    /// A picture of the screen as a PNG.
    #[command(name = "display.screenshot")]
    Screenshot {
        /// Which head, from 0.
        #[arg(long, default_value_t = 0)]
        head: u32,
        /// Where to write it; standard output if not given.
        #[arg(short, long, value_name = "FILE.png")]
        output: Option<PathBuf>,
    },
    /// The screen as text, in text mode.
    #[command(name = "display.text")]
    DisplayText,
    /// Wait until the picture has not changed for a while.
    #[command(name = "display.wait")]
    Wait {
        /// For how long it must stay the same.
        #[arg(long, default_value = "500ms")]
        stable: Span,
        /// How long to wait for that at most; then the exit code is 124.
        #[arg(long, default_value = "30s")]
        timeout: Span,
    },
    /// The connection file for virt-viewer.
    #[command(name = "display.vv")]
    Vv {
        /// Connect with the ticket of this id; the viewer asks for its secret.
        #[arg(long, value_name = "ID")]
        ticket: Option<String>,
        /// Where to write it; standard output if not given.
        #[arg(short, long, value_name = "FILE.vv")]
        output: Option<PathBuf>,
    },
    /// Let somebody connect; a secret that is made here is printed once.
    #[command(name = "display.ticket.add")]
    AddTicket(AddTicket),
    /// All tickets, without their secrets.
    #[command(name = "display.ticket.list")]
    Tickets,
    /// Let a ticket open no session any more.
    #[command(name = "display.ticket.revoke")]
    RevokeTicket {
        /// The ticket's id.
        id: String,
        /// End its sessions too.
        #[arg(long)]
        end_sessions: bool,
    },
    /// Who is connected, by which ticket and for what.
    #[command(name = "display.session.list")]
    Sessions,
    /// End a session, whose viewer is told the reason.
    #[command(name = "display.session.terminate")]
    Terminate {
        /// The session's number.
        session: u32,
        /// What its viewer is told.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Read the certificate's files again, for connections to come.
    #[command(name = "display.tls.reload")]
    TlsReload,
    /// All disks.
    #[command(name = "disk.list")]
    Disks,
    /// Add a disk, in a slot of `hotplug`.
    #[command(name = "disk.add")]
    AddDisk {
        /// An entry of the config's `disks` as JSON, such as '{"path": "more.img"}'; `-` reads it from
        /// standard input.
        #[arg(value_name = "JSON")]
        disk: String,
    },
    /// Ask the guest to let go of a disk that was added.
    #[command(name = "disk.remove")]
    RemoveDisk {
        /// The disk's id.
        id: String,
    },
    /// Make a disk larger, and tell the guest.
    #[command(name = "disk.resize")]
    ResizeDisk {
        /// The disk's id.
        id: String,
        /// Its new size: `20G`, or a number of bytes.
        size: Size,
    },
    /// Limit what the guest may do with a disk in a second; limits not given are lifted.
    #[command(name = "disk.limit")]
    LimitDisk {
        /// The disk's id.
        id: String,
        /// Bytes read, written or zeroed.
        #[arg(long, value_name = "SIZE")]
        bytes_per_second: Option<Size>,
        /// Bytes at once after a rest; a tenth of a second's if not given.
        #[arg(long, value_name = "SIZE", requires = "bytes_per_second")]
        bytes_burst: Option<Size>,
        /// Requests.
        #[arg(long, value_name = "COUNT")]
        ops_per_second: Option<u64>,
        /// Requests at once after a rest; a tenth of a second's if not given.
        #[arg(long, value_name = "COUNT", requires = "ops_per_second")]
        ops_burst: Option<u64>,
    },
    /// All network cards: address, link, limits, and what passed.
    #[command(name = "net.info")]
    Nets,
    /// Add a network card, in a slot of `hotplug`.
    #[command(name = "net.add")]
    AddNet {
        /// An entry of the config's `nets` as JSON, such as '{"tap": "tap1"}'; `-` reads it from
        /// standard input.
        #[arg(value_name = "JSON")]
        net: String,
    },
    /// Ask the guest to let go of a network card that was added.
    #[command(name = "net.remove")]
    RemoveNet {
        /// The card's id.
        id: String,
    },
    /// Put a network card's cable in, or pull it.
    #[command(name = "net.link")]
    NetLink(net::Link),
    /// Hold a network card to other limits; a direction of which nothing is said stays as it is.
    #[command(name = "net.limit")]
    NetLimit(net::Limits),
    /// Press keys together: `ctrl-alt-f2`, or one name an argument.
    #[command(name = "input.keys")]
    Keys {
        /// Key names, joined by `-` or apart.
        #[arg(required = true)]
        keys: Vec<String>,
        /// For how long they are pressed.
        #[arg(long)]
        hold: Option<Span>,
    },
    /// Type text on a US keyboard.
    #[command(name = "input.text")]
    Text {
        /// What to type; `-` reads standard input.
        text: String,
    },
    /// Move the pointer, press its buttons, turn its wheel.
    #[command(name = "input.pointer")]
    Pointer(Pointer),
    /// What the balloon does, and what the guest says of its memory.
    #[command(name = "balloon.info")]
    BalloonInfo,
    /// Ask the guest to keep so much of its memory and to give the rest back.
    #[command(name = "balloon.set")]
    SetBalloon {
        /// How much, such as 512M.
        target: Size,
    },
    /// Have the guest's agent carry a command out.
    #[command(name = "agent.command")]
    Agent(AgentArguments),
    /// Print what happens to the machine, one JSON object a line, until it ends.
    #[command(name = "events")]
    Events {
        /// Replay what came after this number first; 0 for everything.
        #[arg(long, value_name = "SEQ")]
        since: Option<u64>,
        /// End after the replay.
        #[arg(long)]
        replay_only: bool,
    },
    /// The machine's numbers, as Prometheus text.
    #[command(name = "metrics")]
    Metrics,
    /// The description of the API.
    #[command(name = "openapi.json")]
    Openapi,
    /// The JSON Schema of the config.
    #[command(name = "config.schema.json")]
    Schema,
}

#[derive(Debug, Args)]
struct AgentArguments {
    /// The command's name, such as guest-ping.
    execute: String,
    /// Its arguments, a JSON object.
    arguments: Option<String>,
    /// How long to wait for its answer; then the exit code is 124.
    #[arg(long)]
    timeout: Option<Span>,
    /// Wait for no answer: guest-shutdown, for one, gives none if it succeeds.
    #[arg(long)]
    no_answer: bool,
}

#[derive(Debug, Args)]
struct Pointer {
    /// Pixels from the left.
    #[arg(long, requires = "y")]
    x: Option<u32>,
    /// Pixels from the top.
    #[arg(long, requires = "x")]
    y: Option<u32>,
    /// Which display the place is on.
    #[arg(long, requires = "x")]
    display: Option<u8>,
    /// Move this many pixels to the right.
    #[arg(long, allow_negative_numbers = true)]
    dx: Option<i32>,
    /// Move this many pixels down.
    #[arg(long, allow_negative_numbers = true)]
    dy: Option<i32>,
    /// The buttons that are pressed from now on, apart by commas; `--buttons=` for none.
    #[arg(long, value_delimiter = ',', num_args = 0.., require_equals = true)]
    buttons: Option<Vec<Button>>,
    /// Press this button and let it go.
    #[arg(long)]
    click: Option<Button>,
    /// Turn the wheel by this many notches, away from you positive.
    #[arg(long, allow_negative_numbers = true)]
    wheel: Option<i32>,
}

/// What is done with an answer.
enum Show {
    /// Nothing to see.
    Nothing,
    /// Indented JSON.
    Json,
    /// The bytes as they are, to a file or to standard output.
    Bytes(Option<PathBuf>),
    /// Indented JSON; but its connection file goes to a file of this user's, if one is given.
    Ticket(Option<PathBuf>),
    /// The rows of a text screen.
    Rows,
    /// Every part as it comes.
    Parts,
}

/// A verb as HTTP has it.
struct Request {
    method: &'static str,
    target: String,
    body: Option<Value>,
    show: Show,
}

fn get(target: impl Into<String>, show: Show) -> Request {
    Request {
        method: "GET",
        target: target.into(),
        body: None,
        show,
    }
}

fn put(target: &str, body: Option<Value>) -> Request {
    Request {
        method: "PUT",
        target: target.to_owned(),
        body,
        show: Show::Nothing,
    }
}

/// What an argument says; `-` stands for standard input.
fn argument(text: String) -> Result<String, Failure> {
    match text.as_str() {
        "-" => std::io::read_to_string(std::io::stdin())
            .map_err(|error| Failure::of(Exit::Resource, &error)),
        _ => Ok(text),
    }
}

fn parse(json: &str) -> Result<Value, Failure> {
    serde_json::from_str(json)
        .map_err(|error| Failure::of(Exit::Usage, &error).context("the argument is not JSON"))
}

fn resume(clock: Option<OnResume>) -> String {
    let word = clock.and_then(|clock| clock.to_possible_value());
    word.map_or("vm.resume".to_owned(), |word| {
        format!("vm.resume?clock={}", word.get_name())
    })
}

impl Verb {
    fn request(self) -> Result<Request, Failure> {
        Ok(match self {
            Self::Info => get("vm.info", Show::Json),
            Self::Pause => put("vm.pause", None),
            Self::Resume { clock } => put(&resume(clock), None),
            Self::Reset => put("vm.reset", None),
            Self::PowerButton => put("vm.power-button", None),
            Self::RenewGeneration => Request {
                show: Show::Json,
                ..put("vm.generation.renew", None)
            },
            Self::Shutdown => put("vm.shutdown", None),
            Self::DisplayInfo => get("display.info", Show::Json),
            Self::Screenshot { head, output } => get(
                format!("display.screenshot?head={head}"),
                Show::Bytes(output),
            ),
            Self::DisplayText => get("display.text", Show::Rows),
            Self::Wait { stable, timeout } => get(
                format!("display.wait?stable={stable}&timeout={timeout}"),
                Show::Json,
            ),
            Self::Vv { ticket, output } => {
                let ticket = ticket.map(|id| format!("?ticket={id}")).unwrap_or_default();
                get(format!("display.vv{ticket}"), Show::Bytes(output))
            }
            Self::AddTicket(ticket) => ticket.request()?,
            Self::Tickets => get("display.ticket.list", Show::Json),
            Self::RevokeTicket { id, end_sessions } => {
                let sessions = match end_sessions {
                    true => RevokedSessions::End,
                    false => RevokedSessions::Keep,
                };
                let body = json!(Revocation { id, sessions });
                Request {
                    show: Show::Json,
                    ..put("display.ticket.revoke", Some(body))
                }
            }
            Self::Sessions => get("display.session.list", Show::Json),
            Self::Terminate { session, reason } => {
                let body = json!(Termination { session, reason });
                put("display.session.terminate", Some(body))
            }
            Self::TlsReload => Request {
                show: Show::Json,
                ..put("display.tls.reload", None)
            },
            Self::Disks => get("disk.list", Show::Json),
            Self::AddDisk { disk } => Request {
                show: Show::Json,
                ..put("disk.add", Some(parse(&argument(disk)?)?))
            },
            Self::RemoveDisk { id } => put("disk.remove", Some(json!(DeviceName { id }))),
            Self::ResizeDisk { id, size } => Request {
                show: Show::Json,
                ..put("disk.resize", Some(json!(DiskResize { id, size })))
            },
            Self::LimitDisk {
                id,
                bytes_per_second,
                bytes_burst,
                ops_per_second,
                ops_burst,
            } => {
                let limits = DiskLimits {
                    bytes_per_second,
                    bytes_burst,
                    ops_per_second,
                    ops_burst,
                };
                Request {
                    show: Show::Json,
                    ..put("disk.limit", Some(json!(DiskLimit { id, limits })))
                }
            }
            Self::Nets => get("net.info", Show::Json),
            Self::AddNet { net } => Request {
                show: Show::Json,
                ..put("net.add", Some(parse(&argument(net)?)?))
            },
            Self::RemoveNet { id } => put("net.remove", Some(json!(DeviceName { id }))),
            Self::NetLink(link) => link.request(),
            Self::NetLimit(limits) => limits.request(),
            Self::Keys { keys, hold } => {
                let keys = keys.iter().flat_map(|chord| split_chord(chord)).collect();
                put("input.keys", Some(json!(KeysRequest { keys, hold })))
            }
            Self::Text { text } => {
                let text = argument(text)?;
                put("input.text", Some(json!(TextRequest { text })))
            }
            Self::Pointer(pointer) => put("input.pointer", Some(json!(pointer.request()))),
            Self::BalloonInfo => get("balloon.info", Show::Json),
            Self::SetBalloon { target } => {
                put("balloon.set", Some(json!(BalloonTarget { target })))
            }
            Self::Agent(arguments) => Request {
                show: Show::Json,
                ..put("agent.command", Some(json!(arguments.request()?)))
            },
            Self::Events { since, replay_only } => {
                let since = since.map(|seq| format!("&since={seq}")).unwrap_or_default();
                get(
                    format!("events?replay_only={replay_only}{since}"),
                    Show::Parts,
                )
            }
            Self::Metrics => get("metrics", Show::Bytes(None)),
            Self::Openapi => get("openapi.json", Show::Bytes(None)),
            Self::Schema => get("config.schema.json", Show::Bytes(None)),
        })
    }
}

impl AgentArguments {
    fn request(self) -> Result<AgentCommand, Failure> {
        let object = |text: String| {
            serde_json::from_str(&text).map_err(|error| {
                Failure::of(Exit::Usage, &error)
                    .context("the arguments are no JSON object")
                    .hint("quote them for the shell: '{\"path\": \"/bin/true\"}'")
            })
        };
        Ok(AgentCommand {
            execute: self.execute,
            arguments: self.arguments.map(object).transpose()?,
            timeout: self.timeout,
            answer: self.no_answer.then_some(false),
        })
    }
}

impl Pointer {
    fn request(self) -> PointerRequest {
        PointerRequest {
            x: self.x,
            y: self.y,
            display: self.display,
            dx: self.dx,
            dy: self.dy,
            buttons: self.buttons,
            click: self.click,
            wheel: self.wheel,
        }
    }
}

/// `ctrl-alt-f2` is three keys, `page-up` is one, and so is `-`.
fn split_chord(chord: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut rest = chord;
    while !rest.is_empty() {
        // The longest beginning that is a name and ends at a `-` or at the end.
        let ends = rest
            .match_indices('-')
            .map(|(at, _)| at)
            .filter(|at| *at > 0);
        let cut = ends
            .chain([rest.len()])
            .filter(|end| {
                rest.get(..*end)
                    .is_some_and(|name| is_key(name) && !is_pair(name))
            })
            .max()
            .unwrap_or_else(|| {
                rest.get(1..)
                    .and_then(|r| r.find('-'))
                    .map_or(rest.len(), |n| n + 1)
            });
        let (key, left) = rest.split_at(cut);
        keys.push(key.to_owned());
        rest = left.strip_prefix('-').unwrap_or(left);
    }
    keys
}

fn is_key(name: &str) -> bool {
    crate::keymap::named(name).is_some()
}

/// Names that are also a chord of a modifier and an arrow: in a chord they are the chord.
fn is_pair(name: &str) -> bool {
    name.split_once('-').is_some_and(|(first, second)| {
        matches!(first, "ctrl" | "alt" | "shift" | "meta") && is_key(second)
    })
}

impl Ctl {
    pub(super) fn act(self) -> Result<Exit, Failure> {
        let Request {
            method,
            target,
            body,
            show,
        } = self.verb.request()?;
        let mut client = Client::connect(&self.socket).map_err(failure)?;
        let mut answer = client
            .ask(method, &target, body.as_ref())
            .map_err(failure)?;
        match show {
            Show::Nothing => Ok(Exit::Success),
            Show::Bytes(output) => write(output.as_deref(), &answer.bytes().map_err(failure)?),
            Show::Parts => {
                while let Some(part) = answer.part().map_err(failure)? {
                    print_bytes(&part)?;
                }
                Ok(Exit::Success)
            }
            Show::Ticket(Some(path)) => {
                let bytes = answer.bytes().map_err(failure)?;
                let internal = |error| Failure::of(Exit::Internal, &error);
                let mut answer: Value = serde_json::from_slice(&bytes).map_err(internal)?;
                write_private(&path, answer["vv"].as_str().unwrap_or_default())?;
                print(&format!("{:#}\n", answer["ticket"].take()))
            }
            Show::Json | Show::Rows | Show::Ticket(None) => {
                let bytes = answer.bytes().map_err(failure)?;
                if self.json {
                    return print_bytes(&bytes);
                }
                print(
                    &pretty(&bytes, matches!(show, Show::Rows))
                        .map_err(|error| Failure::of(Exit::Internal, &error))?,
                )
            }
        }
    }
}

fn pretty(bytes: &[u8], rows: bool) -> serde_json::Result<String> {
    if rows {
        let screen: TextScreen = serde_json::from_slice(bytes)?;
        return Ok(screen.rows.iter().map(|row| format!("{row}\n")).collect());
    }
    let value: Value = serde_json::from_slice(bytes)?;
    Ok(format!("{value:#}\n"))
}

fn write(output: Option<&Path>, bytes: &[u8]) -> Result<Exit, Failure> {
    match output {
        Some(path) => {
            fs::write(path, bytes).map_err(|error| {
                Failure::new(
                    Exit::Resource,
                    format!("cannot write {}: {error}", path.display()),
                )
            })?;
            Ok(Exit::Success)
        }
        None if bytes.starts_with(b"\x89PNG") && std::io::stdout().is_terminal() => {
            let hint = "give a file with -o, or pipe it to a program that shows pictures";
            Err(Failure::new(Exit::Usage, "a picture is nothing for a terminal").hint(hint))
        }
        None => {
            let exit = print_bytes(bytes)?;
            if std::io::stdout().is_terminal() && !bytes.ends_with(b"\n") {
                // Only for looks.
                let _ = writeln!(std::io::stdout());
            }
            Ok(exit)
        }
    }
}

fn failure(error: ClientError) -> Failure {
    match error {
        ClientError::Refused(refusal) => refusal.into(),
        ClientError::Connect { .. } => Failure::of(Exit::Resource, &error)
            .hint("is the machine running, and was it started with --api SOCK?"),
        other => Failure::of(Exit::Resource, &other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chords_are_split_at_dashes_that_are_no_part_of_a_name() {
        for (chord, keys) in [
            ("ctrl-alt-f2", vec!["ctrl", "alt", "f2"]),
            ("page-up", vec!["page-up"]),
            ("ctrl-page-up", vec!["ctrl", "page-up"]),
            ("alt-left", vec!["alt", "left"]),
            ("ctrl--", vec!["ctrl", "-"]),
            ("-", vec!["-"]),
            ("a", vec!["a"]),
            ("hyper-a", vec!["hyper", "a"]),
        ] {
            assert_eq!(split_chord(chord), keys, "{chord}");
        }
    }
}
