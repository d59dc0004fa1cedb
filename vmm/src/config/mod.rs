//! The JSON file that describes a machine, in two stages.
//!
//! [`Document`] is the text, [`Config`] what it says, [`MachineSpec`] what will run: every default
//! and PCI address filled in, every file found, every clash refused.

pub mod balloon;
pub mod boot;
mod check;
pub(crate) use check::Present;
pub mod clock_base;
pub mod disk;
pub mod display;
mod document;
pub mod endpoint;
mod host;
pub mod hotplug;
pub mod input;
pub mod limit;
pub mod link;
mod locate;
pub mod memory;
pub mod net;
mod path;
pub mod pipe;
pub mod policy;
mod problem;
pub mod rng;
mod slots;
mod spec;
pub mod spice;
pub mod tls;
pub mod units;
pub mod vmgenid;
pub mod vsock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use balloon::BalloonSpec;
pub use document::{Document, load};
pub use host::Host;
pub(crate) use host::meminfo;
pub use hotplug::HotplugSpec;
pub use net::NetSpec;
pub use path::{JsonPath, Segment, at};
pub use problem::{ConfigErrors, Kind, Location, Problem};
pub use rng::RngSpec;
pub use spec::{
    BootSpec, ConsoleSpec, DiskSpec, DisplaySpec, ImageSpec, InputSpec, MachineSpec, PciEntry,
    PortSpec, SpiceSpec, TlsSpec,
};
pub use vsock::VsockSpec;

/// One virtual machine. Only `boot` is required.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Caraway machine")]
pub struct Config {
    /// For a text editor: where the schema of this file is. Not read.
    #[serde(rename = "$schema", skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The machine's name; that of the config file if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The machine's identity, as SMBIOS tells it; made from file and name if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub uuid: Option<Uuid>,
    /// Virtual CPUs, 1 to 254; 1 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub cpus: Option<u32>,
    /// Guest memory: a size that is a multiple of 1M, or an object with more; 512M if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<memory::Memory>,
    /// What the guest boots.
    pub boot: boot::Boot,
    /// The graphics card; none if neither this nor `spice` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display: Option<display::Display>,
    /// Several graphics cards instead of `display`, 4 at most; firmware and early boot are on the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub displays: Vec<display::Display>,
    /// The server that viewers connect to; none if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spice: Option<spice::Spice>,
    /// Virtio input devices; a tablet if there is a display and this is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<input::Input>>,
    /// Virtio disks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<disk::Disk>,
    /// Virtio network cards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<net::Net>,
    /// The first serial port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<link::Serial>,
    /// Virtio console ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<link::Channel>,
    /// The virtio socket device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vsock: Option<vsock::Vsock>,
    /// The virtio memory balloon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balloon: Option<balloon::Balloon>,
    /// The virtio source of random numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rng: Option<rng::Rng>,
    /// The VM generation id, by which clones of a guest know that they are: `"auto"`, another one at
    /// every start; `"none"`; or a UUID. `"auto"` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vmgenid: Option<vmgenid::VmGenId>,
    /// Slots for devices that come while the machine runs; none if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hotplug: Option<hotplug::Hotplug>,
    /// How the guest's clocks run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<policy::Clock>,
    /// I/O port whose written value ends the machine with that exit code; none if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug_exit: Option<u16>,
    /// What the machine does when the guest ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<policy::On>,
}

/// The JSON Schema of [`Config`], as `caraway schema` prints it.
#[must_use]
pub fn json_schema() -> String {
    let schema = schemars::schema_for!(Config);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
