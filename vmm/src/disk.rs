//! What is asked and told of disks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::disk::DiskLimits;
use crate::config::units::Size;

/// The disks of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskList {
    /// In the order of the config.
    pub disks: Vec<DiskInfo>,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskInfo {
    /// Its id in the config.
    pub id: String,
    /// Its image.
    pub path: String,
    /// How the image is stored: `raw`, `qcow2`, `vmdk`.
    pub format: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether the guest may only read.
    pub readonly: bool,
    /// How much the guest may do in a second.
    pub limits: DiskLimits,
}

/// How large a disk is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskResize {
    /// Its id.
    pub id: String,
    /// Its size, a multiple of 512 bytes that is not less than now: `"20G"`, or a number of bytes.
    #[schema(value_type = String)]
    pub size: Size,
}

/// How much the guest may do with a disk in a second from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskLimit {
    /// Its id.
    pub id: String,
    /// All its limits; those that are not given are lifted.
    pub limits: DiskLimits,
}
