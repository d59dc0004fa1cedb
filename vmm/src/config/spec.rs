//! A machine with nothing left open.

use std::path::PathBuf;

use caraway_devices::pci::PciAddress;
use caraway_spice::Origin;
use caraway_virtio::block::{ErrorPolicy, Limits};
use uuid::Uuid;

use super::balloon::BalloonSpec;
use super::boot::{Boot, Firmware};
use super::clock_base::ClockBase;
use super::disk::{BackingImage, Cache, Disk, DiskFormat, OnDiskError};
use super::display::{Display, DisplayDevice};
use super::endpoint::{ChannelTo, Listen, SerialTo, UnixSocket};
use super::hotplug::HotplugSpec;
use super::input::{Input, InputDevice};
use super::link::{Channel, Serial};
use super::memory::MemoryPolicy;
use super::net::NetSpec;
use super::pipe::PipesSpec;
use super::policy::{Clock, LostTicks, On, OnPanic, OnPoweroff, OnReset, OnResume, PitModel};
use super::problem::{ConfigErrors, Problem};
use super::rng::RngSpec;
use super::spice::{Auth, OnConnect, OnDisconnect, Secret, Sharing, Spice};
use super::tls::{Channels, Tls};
use super::units::Size;
use super::vmgenid::VmGenId;
use super::vsock::VsockSpec;
use super::{Config, Document};

/// A machine that was checked: every default is filled in, every path is absolute, every id and
/// PCI address is unique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineSpec {
    /// The machine's name.
    pub name: String,
    /// Its identity.
    pub uuid: Uuid,
    /// Virtual CPUs, 1 to 254.
    pub cpus: u8,
    /// Bytes of guest memory, a multiple of 1 MiB.
    pub memory: u64,
    /// How the host keeps it.
    pub ram: MemoryPolicy,
    /// What it boots.
    pub boot: BootSpec,
    /// The graphics cards; the first has the VGA.
    pub displays: Vec<DisplaySpec>,
    /// The SPICE server; only with a display.
    pub spice: Option<SpiceSpec>,
    /// Virtio input devices.
    pub inputs: Vec<InputSpec>,
    /// Virtio disks.
    pub disks: Vec<DiskSpec>,
    /// Virtio network cards.
    pub nets: Vec<NetSpec>,
    /// The virtio console of all channels.
    pub console: Option<ConsoleSpec>,
    /// The virtio socket device.
    pub vsock: Option<VsockSpec>,
    /// The virtio memory balloon.
    pub balloon: Option<BalloonSpec>,
    /// The virtio source of random numbers.
    pub rng: Option<RngSpec>,
    /// Slots for devices that come later.
    pub hotplug: Option<HotplugSpec>,
    /// Where the first serial port's bytes go.
    pub serial: SerialTo,
    /// The VM generation id.
    pub vmgenid: VmGenId,
    /// What the CMOS clock shows.
    pub clock_base: ClockBase,
    /// What becomes of ticks that the guest could not take.
    pub lost_ticks: LostTicks,
    /// What the guest's time does after a pause.
    pub on_resume: OnResume,
    /// Whose PIT it is.
    pub pit: PitModel,
    /// I/O port whose written value ends the machine.
    pub debug_exit: Option<u16>,
    /// What follows a power-off.
    pub on_poweroff: OnPoweroff,
    /// What follows a reset.
    pub on_reset: OnReset,
    /// What follows a panic.
    pub on_panic: OnPanic,
    /// What is accepted but not done yet; worth a line to whoever runs it.
    pub notes: Vec<String>,
    /// Where all of it was read, for errors that show up only when it runs.
    pub document: Document,
}

/// What a machine boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootSpec {
    /// A flat firmware image that ends at 4 GiB.
    Firmware {
        /// As the config names it.
        name: Firmware,
        /// The image.
        path: PathBuf,
    },
    /// A kernel, without firmware.
    Kernel {
        /// A bzImage or an ELF with a PVH entry.
        path: PathBuf,
        /// Its initial RAM disk.
        initrd: Option<PathBuf>,
        /// Its command line.
        cmdline: String,
    },
}

/// A graphics card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisplaySpec {
    /// Its id.
    pub id: String,
    /// Its PCI address.
    pub address: PciAddress,
    /// Its model.
    pub device: DisplayDevice,
    /// The most monitors, 1 to 16.
    pub heads: u32,
    /// Bytes of video memory, a power of two from 16 MiB to 512 MiB.
    pub vram: u64,
    /// Its option ROM, which a machine with firmware needs to show anything before its driver.
    pub option_rom: Option<PathBuf>,
}

impl DisplaySpec {
    fn to_config(&self) -> Display {
        Display {
            id: Some(self.id.clone()),
            address: Some(self.address),
            device: Some(self.device),
            heads: Some(self.heads),
            vram: Some(Size(self.vram)),
        }
    }
}

/// The SPICE server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiceSpec {
    /// Where it waits for viewers, plainly; at least one place if there is no TLS.
    pub listen: Vec<Listen>,
    /// What a viewer must know.
    pub auth: Auth,
    /// The first ticket's secret; there with [`Auth::Password`] only.
    pub password: Option<Secret>,
    /// Where `password` was read, if in a file.
    pub password_file: Option<PathBuf>,
    /// How several viewers share the display.
    pub sharing: Sharing,
    /// What happens when a second viewer comes to an exclusive display.
    pub on_connect: OnConnect,
    /// What happens when the last viewer has gone.
    pub on_disconnect: OnDisconnect,
    /// Viewers at a time.
    pub max_sessions: u32,
    /// Its ports, shared folders and USB slots.
    pub pipes: PipesSpec,
    /// How it speaks TLS, if it does.
    pub tls: Option<TlsSpec>,
    /// The folder of a console for browsers.
    pub console: Option<PathBuf>,
    /// Whose web pages may connect, apart from those of the same host.
    pub origins: Vec<Origin>,
    /// Whether clipboards are shared.
    pub clipboard: bool,
    /// Whether files may be sent to the guest.
    pub file_transfer: bool,
}

/// How the SPICE server speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSpec {
    /// Where it waits for viewers; at least one TCP port.
    pub listen: Vec<Listen>,
    /// Its certificate, in PEM.
    pub certificate: PathBuf,
    /// The certificate's key, in PEM.
    pub key: PathBuf,
    /// The CA that viewers are to trust, in PEM.
    pub ca: Option<PathBuf>,
    /// Which channels are for TLS only.
    pub channels: Channels,
}

/// A virtio input device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputSpec {
    /// Its id.
    pub id: String,
    /// Its PCI address.
    pub address: PciAddress,
    /// What it is.
    pub device: InputDevice,
}

/// A virtio disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// Its id.
    pub id: String,
    /// Its PCI address.
    pub address: PciAddress,
    /// The image or block device.
    pub image: ImageSpec,
    /// The images under it, the next one first.
    pub backing: Vec<ImageSpec>,
    /// Whether the guest may only read.
    pub readonly: bool,
    /// Its serial number, at most 20 bytes.
    pub serial: String,
    /// When what is written is durable.
    pub cache: Cache,
    /// How many queues, from 1 to 16.
    pub queues: u16,
    /// Whether the guest may give blocks back.
    pub discard: bool,
    /// How much the guest may do in a second.
    pub limits: Limits,
    /// What happens when the host can't do what the guest asks.
    pub on_error: ErrorPolicy,
}

/// A file and how a disk is stored in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSpec {
    /// The file.
    pub path: PathBuf,
    /// How the disk is stored in it.
    pub format: DiskFormat,
}

/// The virtio console that carries the channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleSpec {
    /// Its id.
    pub id: String,
    /// Its PCI address.
    pub address: PciAddress,
    /// Its ports, at least one, with unique names.
    pub ports: Vec<PortSpec>,
}

/// A port of the virtio console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    /// Its name in the guest.
    pub name: String,
    /// The host's end.
    pub to: ChannelTo,
}

/// A PCI function of the machine, for tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciEntry {
    /// Where it sits.
    pub address: PciAddress,
    /// Its id; empty for the chipset's.
    pub id: String,
    /// What it is.
    pub kind: &'static str,
    /// What is behind it.
    pub detail: String,
}

impl MachineSpec {
    /// Every PCI function that the config asks for, by address.
    #[must_use]
    pub fn pci_devices(&self) -> Vec<PciEntry> {
        let display = self.displays.iter().map(|display| PciEntry {
            address: display.address,
            id: display.id.clone(),
            kind: "qxl",
            detail: format!(
                "{} head(s), {} of video memory",
                display.heads,
                Size(display.vram)
            ),
        });
        let inputs = self.inputs.iter().map(|input| PciEntry {
            address: input.address,
            id: input.id.clone(),
            kind: "virtio-input",
            detail: input.device.word().to_owned(),
        });
        let disks = self.disks.iter().map(|disk| PciEntry {
            address: disk.address,
            id: disk.id.clone(),
            kind: "virtio-blk",
            detail: format!(
                "{} ({}{})",
                disk.image.path.display(),
                disk.image.format.word(),
                if disk.readonly { ", read-only" } else { "" },
            ),
        });
        let nets = self.nets.iter().map(|net| PciEntry {
            address: net.address,
            id: net.id.clone(),
            kind: "virtio-net",
            detail: format!("{} ({})", net.to, net.mac),
        });
        let console = self.console.iter().map(|console| PciEntry {
            address: console.address,
            id: console.id.clone(),
            kind: "virtio-console",
            detail: format!("{} channel(s)", console.ports.len()),
        });
        let rng = self.rng.iter().map(|rng| PciEntry {
            address: rng.address,
            id: rng.id.clone(),
            kind: "virtio-rng",
            detail: rng.source.display().to_string(),
        });
        let vsock = self.vsock.iter().map(|vsock| PciEntry {
            address: vsock.address,
            id: vsock.id.clone(),
            kind: "virtio-vsock",
            detail: format!("cid {}, {}", vsock.cid, vsock.path.display()),
        });
        let hotplug = self.hotplug.iter().map(|hotplug| PciEntry {
            address: hotplug.address,
            id: hotplug.id.clone(),
            kind: "pcie-root-port",
            detail: format!("{} hot-plug slot(s)", hotplug.slots),
        });
        let balloon = self.balloon.iter().map(|balloon| PciEntry {
            address: balloon.address,
            id: balloon.id.clone(),
            kind: "virtio-balloon",
            detail: match balloon.free_page_reporting {
                true => "unused pages go to the host".to_owned(),
                false => String::new(),
            },
        });
        let all = display
            .chain(inputs)
            .chain(disks)
            .chain(nets)
            .chain(console);
        let all = all.chain(rng).chain(vsock).chain(balloon).chain(hotplug);
        let mut entries: Vec<PciEntry> = all.collect();
        entries.sort_by_key(|entry| entry.address);
        entries
    }

    /// `problem`, found only now, as an error that shows its place in the config.
    #[must_use]
    pub fn error(&self, problem: Problem) -> ConfigErrors {
        self.document.errors(vec![problem])
    }

    /// The config that says all of this, with nothing left to a default.
    #[must_use]
    pub fn to_config(&self) -> Config {
        Config {
            schema: None,
            name: Some(self.name.clone()),
            uuid: Some(self.uuid),
            cpus: Some(self.cpus.into()),
            memory: Some(self.ram.to_config(self.memory)),
            boot: self.boot.to_config(),
            display: match self.displays.as_slice() {
                [display] => Some(display.to_config()),
                _ => None,
            },
            displays: match self.displays.as_slice() {
                [_] => Vec::new(),
                all => all.iter().map(DisplaySpec::to_config).collect(),
            },
            spice: self.spice.as_ref().map(|spice| Spice {
                listen: Some(spice.listen.clone()),
                auth: Some(spice.auth),
                password: match spice.password_file {
                    Some(_) => None,
                    None => spice.password.clone(),
                },
                password_file: spice.password_file.clone(),
                sharing: Some(spice.sharing),
                on_connect: (spice.sharing == Sharing::Exclusive).then_some(spice.on_connect),
                on_disconnect: Some(spice.on_disconnect),
                max_sessions: Some(spice.max_sessions),
                ports: spice.pipes.ports(),
                webdav: spice.pipes.webdav.clone().map(UnixSocket),
                usb_redirection: spice
                    .pipes
                    .usb_redirection
                    .iter()
                    .cloned()
                    .map(UnixSocket)
                    .collect(),
                tls: spice.tls.as_ref().map(TlsSpec::to_config),
                console: spice.console.clone(),
                origins: spice.origins.clone(),
                clipboard: Some(spice.clipboard),
                file_transfer: Some(spice.file_transfer),
            }),
            inputs: Some(self.inputs.iter().map(InputSpec::to_config).collect()),
            disks: self.disks.iter().map(DiskSpec::to_config).collect(),
            nets: self.nets.iter().map(NetSpec::to_config).collect(),
            serial: Some(Serial {
                to: Some(self.serial.clone()),
            }),
            channels: self
                .console
                .iter()
                .flat_map(|console| &console.ports)
                .map(PortSpec::to_config)
                .collect(),
            vsock: self.vsock.as_ref().map(VsockSpec::to_config),
            balloon: self.balloon.as_ref().map(BalloonSpec::to_config),
            rng: self.rng.as_ref().map(RngSpec::to_config),
            vmgenid: Some(self.vmgenid),
            hotplug: self.hotplug.as_ref().map(HotplugSpec::to_config),
            clock: Some(Clock {
                base: Some(self.clock_base),
                lost_ticks: Some(self.lost_ticks),
                on_resume: Some(self.on_resume),
                pit: Some(self.pit),
            }),
            debug_exit: self.debug_exit,
            on: Some(On {
                poweroff: Some(self.on_poweroff),
                reset: Some(self.on_reset),
                panic: Some(self.on_panic),
            }),
        }
    }
}

impl BootSpec {
    fn to_config(&self) -> Boot {
        match self {
            Self::Firmware { name, path } => Boot {
                firmware: Some(match name {
                    Firmware::Path(_) => Firmware::Path(path.clone()),
                    named => named.clone(),
                }),
                ..Boot::default()
            },
            Self::Kernel {
                path,
                initrd,
                cmdline,
            } => Boot {
                firmware: None,
                kernel: Some(path.clone()),
                initrd: initrd.clone(),
                cmdline: Some(cmdline.clone()),
            },
        }
    }
}

impl TlsSpec {
    fn to_config(&self) -> Tls {
        Tls {
            listen: Some(self.listen.clone()),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            ca: self.ca.clone(),
            channels: Some(self.channels.clone()),
        }
    }
}

impl InputSpec {
    fn to_config(&self) -> Input {
        Input {
            device: self.device,
            id: Some(self.id.clone()),
            address: Some(self.address),
        }
    }
}

impl PortSpec {
    fn to_config(&self) -> Channel {
        Channel {
            name: self.name.clone(),
            to: self.to.clone(),
        }
    }
}

impl DiskSpec {
    fn to_config(&self) -> Disk {
        Disk {
            id: Some(self.id.clone()),
            address: Some(self.address),
            path: self.image.path.clone(),
            format: Some(self.image.format),
            readonly: Some(self.readonly),
            serial: Some(self.serial.clone()),
            backing: self.backing.iter().map(ImageSpec::to_config).collect(),
            cache: Some(self.cache),
            queues: Some(self.queues),
            discard: Some(self.discard),
            limits: (self.limits != Limits::default()).then(|| self.limits.into()),
            on_error: Some(OnDiskError {
                no_space: Some(self.on_error.no_space.into()),
                io: Some(self.on_error.io.into()),
            }),
        }
    }
}

impl ImageSpec {
    fn to_config(&self) -> BackingImage {
        BackingImage {
            path: self.path.clone(),
            format: Some(self.format),
        }
    }
}
