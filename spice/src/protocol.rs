//! The numbers of SPICE 2.2 (spice-protocol `enums.h`, `protocol.h`; spice-common `spice.proto`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::audio::opus;

/// `REDQ`.
pub(crate) const MAGIC: [u8; 4] = *b"REDQ";
pub(crate) const MAJOR: u32 = 2;
pub(crate) const MINOR: u32 = 2;

/// The kinds of channel that this server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum ChannelKind {
    /// The session itself.
    Main = 1,
    /// Pixels.
    Display = 2,
    /// Keyboard and pointer.
    Inputs = 3,
    /// The shape of the pointer.
    Cursor = 4,
    /// What the guest plays.
    Playback = 5,
    /// What the client records.
    Record = 6,
    /// A USB device of the client.
    UsbRedir = 9,
    /// A stream of bytes with a name.
    Port = 10,
    /// Folders that the client shares.
    WebDav = 11,
}

impl ChannelKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Main,
        Self::Display,
        Self::Inputs,
        Self::Cursor,
        Self::Playback,
        Self::Record,
        Self::UsbRedir,
        Self::Port,
        Self::WebDav,
    ];

    pub(crate) fn from_wire(number: u8) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|&kind| kind as u8 == number)
    }

    /// The capability word that the server grants on such a channel. Proxies promise these to a
    /// client before they know the server, so a server does well to have them all; what they
    /// allow a client to send is accepted even where it changes nothing.
    pub(crate) const fn capabilities(self) -> &'static [u32] {
        match self {
            // Migration in both forms, name and UUID, agent tokens at connect.
            Self::Main => &[0xf],
            Self::Display => &[1 << display::CAP_MONITORS_CONFIG
                | 1 << display::CAP_STREAM_REPORT
                | 1 << display::CAP_PREF_COMPRESSION
                | 1 << display::CAP_PREF_VIDEO_CODEC],
            Self::Inputs => &[1 << inputs::CAP_KEY_SCANCODE],
            Self::Cursor => &[],
            Self::Playback if opus::BUILT_IN => {
                &[1 << playback::CAP_VOLUME | 1 << playback::CAP_OPUS]
            }
            Self::Playback => &[1 << playback::CAP_VOLUME],
            Self::Record if opus::BUILT_IN => &[1 << record::CAP_VOLUME | 1 << record::CAP_OPUS],
            Self::Record => &[1 << record::CAP_VOLUME],
            Self::UsbRedir | Self::Port | Self::WebDav => &[1 << vmc::CAP_LZ4],
        }
    }

    /// The longest message body that a client may send, in bytes.
    pub(crate) const fn message_limit(self) -> u32 {
        match self {
            Self::Main => 64 * 1024,
            Self::Display | Self::Inputs | Self::Cursor | Self::Playback => 4096,
            // A third of a second as it is, at 48 kHz with two channels; clients send a tenth at most.
            Self::Record => 64 * 1024,
            // A bulk transfer of the largest size that systems ask a disk for, and its header.
            Self::UsbRedir | Self::Port | Self::WebDav => 1024 * 1024 + 4096,
        }
    }
}

impl fmt::Display for ChannelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Main => "main",
            Self::Display => "display",
            Self::Inputs => "inputs",
            Self::Cursor => "cursor",
            Self::Playback => "playback",
            Self::Record => "record",
            Self::UsbRedir => "usbredir",
            Self::Port => "port",
            Self::WebDav => "webdav",
        })
    }
}

/// `SPICE_COMMON_CAP_*`, as masks of the first word.
pub(crate) mod common_cap {
    pub(crate) const AUTH_SELECTION: u32 = 1 << 0;
    pub(crate) const AUTH_SPICE: u32 = 1 << 1;
    pub(crate) const MINI_HEADER: u32 = 1 << 3;
    /// What this server has.
    pub(crate) const OURS: u32 = AUTH_SELECTION | AUTH_SPICE | MINI_HEADER;
}

/// Messages that every channel knows.
pub(crate) mod common {
    pub(crate) const SET_ACK: u16 = 3;
    pub(crate) const PING: u16 = 4;
    pub(crate) const DISCONNECTING: u16 = 6;
    pub(crate) const NOTIFY: u16 = 7;

    pub(crate) const C_ACK_SYNC: u16 = 1;
    pub(crate) const C_ACK: u16 = 2;
    pub(crate) const C_PONG: u16 = 3;
    pub(crate) const C_DISCONNECTING: u16 = 6;
}

pub(crate) mod main {
    pub(crate) const INIT: u16 = 103;
    pub(crate) const CHANNELS_LIST: u16 = 104;
    pub(crate) const MOUSE_MODE: u16 = 105;
    pub(crate) const AGENT_CONNECTED: u16 = 107;
    pub(crate) const AGENT_DISCONNECTED: u16 = 108;
    pub(crate) const AGENT_DATA: u16 = 109;
    pub(crate) const AGENT_TOKEN: u16 = 110;
    pub(crate) const NAME: u16 = 113;
    pub(crate) const UUID: u16 = 114;
    pub(crate) const AGENT_CONNECTED_TOKENS: u16 = 115;

    pub(crate) const C_ATTACH_CHANNELS: u16 = 104;
    pub(crate) const C_MOUSE_MODE_REQUEST: u16 = 105;
    pub(crate) const C_AGENT_START: u16 = 106;
    pub(crate) const C_AGENT_DATA: u16 = 107;
    pub(crate) const C_AGENT_TOKEN: u16 = 108;
    pub(crate) const MIGRATE_DST_SEAMLESS_NACK: u16 = 118;
    pub(crate) const C_MIGRATE_DST_DO_SEAMLESS: u16 = 110;

    pub(crate) const CAP_NAME_AND_UUID: u32 = 1;
    pub(crate) const CAP_AGENT_CONNECTED_TOKENS: u32 = 2;
}

pub(crate) mod display {
    pub(crate) const MARK: u16 = 102;
    pub(crate) const COPY_BITS: u16 = 104;
    pub(crate) const INVAL_LIST: u16 = 105;
    pub(crate) const INVAL_PALETTE: u16 = 107;
    pub(crate) const INVAL_ALL_PALETTES: u16 = 108;
    pub(crate) const STREAM_CREATE: u16 = 122;
    pub(crate) const STREAM_DATA: u16 = 123;
    pub(crate) const STREAM_CLIP: u16 = 124;
    pub(crate) const STREAM_DESTROY: u16 = 125;
    pub(crate) const DRAW_FILL: u16 = 302;
    pub(crate) const DRAW_COPY: u16 = 304;
    pub(crate) const SURFACE_CREATE: u16 = 314;
    pub(crate) const SURFACE_DESTROY: u16 = 315;
    pub(crate) const STREAM_DATA_SIZED: u16 = 316;
    pub(crate) const MONITORS_CONFIG: u16 = 317;
    pub(crate) const STREAM_ACTIVATE_REPORT: u16 = 319;

    pub(crate) const C_INIT: u16 = 101;
    pub(crate) const C_STREAM_REPORT: u16 = 102;
    pub(crate) const C_PREFERRED_COMPRESSION: u16 = 103;
    pub(crate) const C_PREFERRED_VIDEO_CODECS: u16 = 105;

    pub(crate) const CAP_SIZED_STREAM: u32 = 0;
    pub(crate) const CAP_MONITORS_CONFIG: u32 = 1;
    pub(crate) const CAP_STREAM_REPORT: u32 = 4;
    pub(crate) const CAP_LZ4: u32 = 5;
    pub(crate) const CAP_PREF_COMPRESSION: u32 = 6;
    pub(crate) const CAP_MULTI_CODEC: u32 = 8;
    pub(crate) const CAP_CODEC_MJPEG: u32 = 9;
    pub(crate) const CAP_CODEC_VP8: u32 = 10;
    pub(crate) const CAP_CODEC_H264: u32 = 11;
    pub(crate) const CAP_PREF_VIDEO_CODEC: u32 = 12;

    pub(crate) const SURFACE_FLAGS_PRIMARY: u32 = 1;
    pub(crate) const SURFACE_FMT_32_XRGB: u32 = 32;
}

pub(crate) mod inputs {
    pub(crate) const INIT: u16 = 101;
    pub(crate) const KEY_MODIFIERS: u16 = 102;
    pub(crate) const MOUSE_MOTION_ACK: u16 = 111;
    /// Motions that one acknowledgement stands for.
    pub(crate) const MOTION_ACK_BUNCH: u32 = 4;

    pub(crate) const C_KEY_DOWN: u16 = 101;
    pub(crate) const C_KEY_UP: u16 = 102;
    pub(crate) const C_KEY_MODIFIERS: u16 = 103;
    pub(crate) const C_KEY_SCANCODE: u16 = 104;
    pub(crate) const C_MOUSE_MOTION: u16 = 111;
    pub(crate) const C_MOUSE_POSITION: u16 = 112;
    pub(crate) const C_MOUSE_PRESS: u16 = 113;
    pub(crate) const C_MOUSE_RELEASE: u16 = 114;

    pub(crate) const CAP_KEY_SCANCODE: u32 = 0;
}

pub(crate) mod cursor {
    pub(crate) const INIT: u16 = 101;
    pub(crate) const SET: u16 = 103;
    pub(crate) const MOVE: u16 = 104;
    pub(crate) const HIDE: u16 = 105;
}

pub(crate) mod playback {
    pub(crate) const DATA: u16 = 101;
    pub(crate) const MODE: u16 = 102;
    pub(crate) const START: u16 = 103;
    pub(crate) const STOP: u16 = 104;
    pub(crate) const VOLUME: u16 = 105;
    pub(crate) const MUTE: u16 = 106;
    pub(crate) const LATENCY: u16 = 107;

    pub(crate) const CAP_VOLUME: u32 = 1;
    pub(crate) const CAP_LATENCY: u32 = 2;
    pub(crate) const CAP_OPUS: u32 = 3;
}

pub(crate) mod record {
    pub(crate) const START: u16 = 101;
    pub(crate) const STOP: u16 = 102;
    pub(crate) const VOLUME: u16 = 103;
    pub(crate) const MUTE: u16 = 104;

    pub(crate) const C_DATA: u16 = 101;
    pub(crate) const C_MODE: u16 = 102;
    pub(crate) const C_START_MARK: u16 = 103;

    pub(crate) const CAP_VOLUME: u32 = 1;
    pub(crate) const CAP_OPUS: u32 = 2;
}

/// What the playback and record channels share.
pub(crate) mod audio {
    /// `SPICE_AUDIO_FMT_S16`.
    pub(crate) const FORMAT_S16: u16 = 1;
    /// `SPICE_AUDIO_DATA_MODE_RAW`.
    pub(crate) const MODE_RAW: u16 = 1;
    /// `SPICE_AUDIO_DATA_MODE_OPUS`.
    pub(crate) const MODE_OPUS: u16 = 3;
}

/// What ports, shared folders and USB redirection share ("VM channels"); the same numbers in both
/// directions.
pub(crate) mod vmc {
    pub(crate) const DATA: u16 = 101;
    pub(crate) const COMPRESSED_DATA: u16 = 102;
    /// `SPICE_DATA_COMPRESSION_TYPE_LZ4`.
    pub(crate) const COMPRESSION_LZ4: u8 = 1;

    pub(crate) const CAP_LZ4: u32 = 0;
}

pub(crate) mod port {
    pub(crate) const INIT: u16 = 201;
    pub(crate) const EVENT: u16 = 202;
    pub(crate) const EVENT_OPENED: u8 = 0;
    pub(crate) const EVENT_CLOSED: u8 = 1;
    pub(crate) const EVENT_BREAK: u8 = 2;

    pub(crate) const C_EVENT: u16 = 201;
}

/// `SPICE_LINK_ERR_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum LinkResult {
    Ok = 0,
    Error = 1,
    InvalidMagic = 2,
    InvalidData = 3,
    VersionMismatch = 4,
    NeedSecured = 5,
    PermissionDenied = 7,
    BadConnectionId = 8,
    ChannelNotAvailable = 9,
}

/// Who draws the pointer (`SPICE_MOUSE_MODE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum MouseMode {
    /// The client captures the pointer and sends motions.
    Server = 1,
    /// The client sends places, for a guest with an absolute pointer.
    Client = 2,
}
