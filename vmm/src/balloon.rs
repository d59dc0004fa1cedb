//! `balloon.*` as the API has it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::units::Size;

/// How much of its memory the guest is to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BalloonTarget {
    /// Bytes, or text such as `"512M"`, from 4M to all that it has.
    #[schema(value_type = String, example = "512M")]
    pub target: Size,
}

/// What the balloon does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BalloonStatus {
    /// Whether the guest has a driver for it.
    pub active: bool,
    /// Bytes of memory that the guest started with.
    pub memory: u64,
    /// Bytes that it is to keep.
    pub target: u64,
    /// Bytes that it keeps, as it says.
    pub actual: u64,
    /// Bytes that went back to the host by way of the balloon since the start.
    pub returned_by_balloon: u64,
    /// Bytes that went back to the host because the guest did not use them, since the start.
    pub returned_unused: u64,
    /// What the guest last said of its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<BalloonStats>,
    /// Milliseconds since it said so, those of a pause not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats_age_ms: Option<u64>,
}

/// The guest's memory as the guest sees it; in bytes, but for the faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct BalloonStats {
    /// Brought in from swap since it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_in: Option<u64>,
    /// Sent to swap since it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_out: Option<u64>,
    /// Page faults that had to read from a disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major_faults: Option<u64>,
    /// All other page faults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor_faults: Option<u64>,
    /// Not used for anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<u64>,
    /// All of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// What new programs could have without swapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available: Option<u64>,
    /// Copies of what is on disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_caches: Option<u64>,
}
