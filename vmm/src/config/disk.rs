//! `disks`: virtio block devices.

use std::path::PathBuf;

use caraway_devices::pci::PciAddress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A virtio block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Names the device; `"disk0"`, `"disk1"`, … if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// PCI address; the next free one if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub address: Option<PciAddress>,
    /// Path of the image or block device.
    pub path: PathBuf,
    /// How the image is stored; told by the ending of `path` if not given, never by its content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<DiskFormat>,
    /// Whether the guest may only read; `false` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly: Option<bool>,
    /// What the guest sees as the disk's serial number, at most 20 bytes; the id if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}

/// How a disk image is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// The disk's bytes and nothing else.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
    /// VMware's format.
    Vmdk,
}

impl DiskFormat {
    /// The word that the config uses.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
        }
    }

    /// The format that the ending of `path` promises.
    #[must_use]
    pub fn of_path(path: &std::path::Path) -> Self {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("qcow2") => Self::Qcow2,
            Some("vmdk") => Self::Vmdk,
            _ => Self::Raw,
        }
    }
}
