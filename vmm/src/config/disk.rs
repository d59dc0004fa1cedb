//! `disks`: virtio block devices.

use std::num::NonZeroU64;
use std::path::PathBuf;

use caraway_devices::Rate;
use caraway_devices::pci::PciAddress;
use caraway_virtio::block;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::units::Size;

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
    /// The images under a qcow2 image, the next one first. No other file is opened, whatever the
    /// image names; none if not given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backing: Vec<BackingImage>,
    /// When what the guest writes is durable, and what keeps it until then; `"writeback"` if not
    /// given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// How many queues the guest may use, each with a thread of the host: 1 to 16; 1 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
    /// Whether the guest may give blocks back; `true` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discard: Option<bool>,
    /// How much the guest may do in a second; without limit if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<DiskLimits>,
    /// What happens when the host can't do what the guest asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnDiskError>,
}

/// An image under another one; it is only read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackingImage {
    /// Path of the image.
    pub path: PathBuf,
    /// How it is stored; told by the ending of `path` if not given, never by its content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<DiskFormat>,
}

/// When what the guest writes is durable, and what keeps it until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// The host's page cache; durable when the guest flushes.
    #[default]
    Writeback,
    /// Past the page cache (direct I/O); durable when the guest flushes.
    None,
    /// The page cache is only for reading; durable when the write is done.
    Writethrough,
    /// Past the page cache (direct I/O); durable when the write is done.
    Directsync,
    /// The host's page cache; flushes do nothing. For disks that can be made again.
    Unsafe,
}

impl From<Cache> for block::CacheMode {
    fn from(cache: Cache) -> Self {
        match cache {
            Cache::Writeback => Self::Writeback,
            Cache::None => Self::None,
            Cache::Writethrough => Self::Writethrough,
            Cache::Directsync => Self::Directsync,
            Cache::Unsafe => Self::Unsafe,
        }
    }
}

/// How much a guest may do with a disk in a second. What is not given is without limit.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(deny_unknown_fields)]
pub struct DiskLimits {
    /// Bytes read, written or zeroed in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub bytes_per_second: Option<Size>,
    /// Bytes at once after a rest; a tenth of a second's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub bytes_burst: Option<Size>,
    /// Requests of any kind in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops_per_second: Option<u64>,
    /// Requests at once after a rest; a tenth of a second's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops_burst: Option<u64>,
}

/// A limit that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Nothing would ever pass.
    #[error("0 would let nothing pass; leave it out for no limit")]
    Zero(&'static str),
    /// There is nothing to have a burst of.
    #[error("a burst without its limit")]
    BurstAlone(&'static str),
}

impl LimitError {
    /// The key that is wrong.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Zero(key) | Self::BurstAlone(key) => key,
        }
    }
}

impl DiskLimits {
    /// These limits as the disk takes them.
    ///
    /// # Errors
    /// [`LimitError`].
    pub fn checked(self) -> Result<block::Limits, LimitError> {
        let bytes = (
            self.bytes_per_second.map(Size::bytes),
            self.bytes_burst.map(Size::bytes),
        );
        let operations = (self.ops_per_second, self.ops_burst);
        Ok(block::Limits {
            bytes: rate(bytes, ("bytes_per_second", "bytes_burst"))?,
            operations: rate(operations, ("ops_per_second", "ops_burst"))?,
        })
    }
}

impl From<block::Limits> for DiskLimits {
    fn from(limits: block::Limits) -> Self {
        let numbers =
            |rate: Option<Rate>| rate.map(|r| (r.per_second.get(), r.burst.get())).unzip();
        let (bytes_per_second, bytes_burst) = numbers(limits.bytes);
        let (ops_per_second, ops_burst) = numbers(limits.operations);
        Self {
            bytes_per_second: bytes_per_second.map(Size),
            bytes_burst: bytes_burst.map(Size),
            ops_per_second,
            ops_burst,
        }
    }
}

fn rate(
    (per_second, burst): (Option<u64>, Option<u64>),
    (rate_key, burst_key): (&'static str, &'static str),
) -> Result<Option<Rate>, LimitError> {
    let Some(per_second) = per_second else {
        return match burst {
            Some(_) => Err(LimitError::BurstAlone(burst_key)),
            None => Ok(None),
        };
    };
    let smooth = Rate::smooth(NonZeroU64::new(per_second).ok_or(LimitError::Zero(rate_key))?);
    let Some(burst) = burst else {
        return Ok(Some(smooth));
    };
    let burst = NonZeroU64::new(burst).ok_or(LimitError::Zero(burst_key))?;
    Ok(Some(Rate { burst, ..smooth }))
}

/// What happens when the host can't do what the guest asks of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnDiskError {
    /// When the host has no room left; `"pause"` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_space: Option<DiskErrorAction>,
    /// When the host fails otherwise; `"report"` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<DiskErrorAction>,
}

/// What happens to a request that the host can't do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DiskErrorAction {
    /// The guest is told.
    Report,
    /// The machine pauses, and the request is tried again when it goes on.
    Pause,
}

impl From<DiskErrorAction> for block::OnError {
    fn from(action: DiskErrorAction) -> Self {
        match action {
            DiskErrorAction::Report => Self::Report,
            DiskErrorAction::Pause => Self::Pause,
        }
    }
}

impl From<block::OnError> for DiskErrorAction {
    fn from(action: block::OnError) -> Self {
        match action {
            block::OnError::Report => Self::Report,
            block::OnError::Pause => Self::Pause,
        }
    }
}

impl OnDiskError {
    /// The policy that this asks for.
    #[must_use]
    pub fn policy(self) -> block::ErrorPolicy {
        let usual = block::ErrorPolicy::default();
        block::ErrorPolicy {
            no_space: self.no_space.map_or(usual.no_space, Into::into),
            io: self.io.map_or(usual.io, Into::into),
        }
    }
}

/// How a disk image is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// The disk's bytes and nothing else.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
    /// VMware's format: a descriptor and flat files beside it. It can only be read.
    Vmdk,
}

impl From<DiskFormat> for block::ImageFormat {
    fn from(format: DiskFormat) -> Self {
        match format {
            DiskFormat::Raw => Self::Raw,
            DiskFormat::Qcow2 => Self::Qcow2,
            DiskFormat::Vmdk => Self::Vmdk,
        }
    }
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
