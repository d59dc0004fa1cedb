//! What a server makes reachable: the devices of whatever it serves.

use std::fmt;
use std::sync::Arc;

use crate::agent::Agent;
use tokio::sync::watch;

use crate::audio::{AudioSink, AudioSource, Loudspeaker, Recorder};
use crate::channel::inputs::Desk;
use crate::clock::MediaClock;
use crate::heads;
use crate::hub::Hub;
use crate::input::InputSink;
use crate::pipe::Pipe;
use crate::protocol::ChannelKind;
use crate::source::DisplaySource;

/// Channels of one kind are numbered by a byte.
const MAX_OF_A_KIND: usize = 256;

/// The devices behind a [`Server`](crate::Server). Clients are offered channels for those that are
/// there; none is needed:
///
/// ```
/// # use caraway_spice::{Devices, Framebuffer, Size};
/// # let screen = Framebuffer::new(Size { width: 8, height: 8 });
/// let devices = Devices { displays: vec![screen], ..Devices::default() };
/// ```
///
/// Of each kind, 256 at most are used.
#[derive(Clone)]
pub struct Devices {
    /// Each becomes a display channel and a cursor channel of its number.
    pub displays: Vec<Arc<dyn DisplaySource>>,
    /// Takes the keys and the pointer of all clients.
    pub inputs: Arc<dyn InputSink>,
    /// What all clients hear.
    pub playback: Option<Arc<dyn AudioSource>>,
    /// Gets what one client records: the first one that opened its record channel, for as long as it
    /// stays.
    pub record: Option<Arc<dyn AudioSink>>,
    /// Each becomes a port channel, which clients know by its name.
    pub ports: Vec<Port>,
    /// Folders that a client shares: the stream of `org.spice-space.webdav.0`, in which the guest's
    /// `spice-webdavd` carries its WebDAV connections.
    pub webdav: Option<Arc<Pipe>>,
    /// Each is a slot for one USB device of a client, and speaks the usbredir protocol. Clients are
    /// offered those whose machine's end is open, as soon as it is.
    pub usb_slots: Vec<Arc<Pipe>>,
    /// The port of the guest's agent: clipboards, files, monitors, and a pointer if the guest has
    /// no absolute one.
    pub agent: Option<Arc<Agent>>,
}

/// A pipe with a name, as clients see it.
#[derive(Debug, Clone)]
pub struct Port {
    /// In the form of a reversed domain name, `org.example.console.0`. Viewers show some of QEMU's
    /// names as terminals, such as `org.qemu.console.serial.0`.
    pub name: String,
    /// What goes through it.
    pub pipe: Arc<Pipe>,
}

impl Default for Devices {
    fn default() -> Self {
        Self {
            displays: Vec::new(),
            inputs: Arc::new(()),
            playback: None,
            record: None,
            ports: Vec::new(),
            webdav: None,
            usb_slots: Vec::new(),
            agent: None,
        }
    }
}

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Devices")
            .field("displays", &self.displays.len())
            .field("playback", &self.playback.is_some())
            .field("record", &self.record.is_some())
            .field("ports", &self.ports)
            .field("webdav", &self.webdav)
            .field("usb_slots", &self.usb_slots)
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

/// A channel that a client may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Offer {
    pub(crate) kind: ChannelKind,
    pub(crate) id: u8,
    /// Tells an offer from an earlier one of the same channel, which is gone.
    opening: u64,
}

/// The devices as all channels share them.
pub(crate) struct Shared {
    pub(crate) displays: Vec<Arc<Hub>>,
    pub(crate) desk: Desk,
    pub(crate) agent: Option<Arc<Agent>>,
    pub(crate) loudspeaker: Option<Arc<Loudspeaker>>,
    pub(crate) recorder: Option<Arc<Recorder>>,
    ports: Vec<Port>,
    webdav: Option<Port>,
    usb_slots: Vec<Arc<Pipe>>,
    /// Told when [`Shared::channels`] may have changed.
    changes: watch::Sender<()>,
}

/// The port that clients know as the one for shared folders.
const WEBDAV_PORT: &str = "org.spice-space.webdav.0";

impl Shared {
    pub(crate) fn new(mut devices: Devices, clock: MediaClock) -> Self {
        let changes = watch::Sender::new(());
        devices.displays.truncate(MAX_OF_A_KIND);
        devices.ports.truncate(MAX_OF_A_KIND);
        devices.usb_slots.truncate(MAX_OF_A_KIND);
        if let Some(agent) = &devices.agent {
            let displays = devices.displays.clone();
            agent.set_heads(Box::new(move |wishes| heads::request(&displays, wishes)));
        }
        for slot in &devices.usb_slots {
            slot.report_openings(changes.clone());
        }
        Self {
            displays: devices.displays.into_iter().map(Hub::new).collect(),
            desk: Desk::new(devices.inputs, devices.agent.clone()),
            agent: devices.agent,
            loudspeaker: devices
                .playback
                .map(|source| Loudspeaker::new(&*source, clock)),
            recorder: devices.record.map(Recorder::new),
            ports: devices.ports,
            webdav: devices.webdav.map(|pipe| Port {
                name: WEBDAV_PORT.to_owned(),
                pipe,
            }),
            usb_slots: devices.usb_slots,
            changes,
        }
    }

    /// The channels that a client may open now, beside the main one.
    pub(crate) fn channels(&self) -> Vec<Offer> {
        let always = |kind, count: usize| (0..count).map(move |number| (kind, number, 0));
        let slots = self.usb_slots.iter().enumerate();
        let open = slots
            .filter_map(|(number, slot)| Some((ChannelKind::UsbRedir, number, slot.opening()?)));
        always(ChannelKind::Inputs, 1)
            .chain(always(ChannelKind::Display, self.displays.len()))
            .chain(always(ChannelKind::Cursor, self.displays.len()))
            .chain(always(ChannelKind::Playback, self.loudspeaker.iter().len()))
            .chain(always(ChannelKind::Record, self.recorder.iter().len()))
            .chain(always(ChannelKind::Port, self.ports.len()))
            .chain(always(ChannelKind::WebDav, self.webdav.iter().len()))
            .chain(open)
            .filter_map(|(kind, number, opening)| {
                let id = u8::try_from(number).ok()?;
                Some(Offer { kind, id, opening })
            })
            .collect()
    }

    /// Whether a client may open this channel now.
    pub(crate) fn has_channel(&self, kind: ChannelKind, id: u8) -> bool {
        self.channels()
            .iter()
            .any(|offer| (offer.kind, offer.id) == (kind, id))
    }

    /// Changes of [`Shared::channels`].
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The port behind a port channel or that for shared folders.
    pub(crate) fn port(&self, kind: ChannelKind, number: u8) -> Option<&Port> {
        match kind {
            ChannelKind::Port => self.ports.get(usize::from(number)),
            ChannelKind::WebDav => self.webdav.as_ref(),
            _ => None,
        }
    }

    pub(crate) fn usb_slot(&self, number: u8) -> Option<&Arc<Pipe>> {
        self.usb_slots.get(usize::from(number))
    }
}
