//! `boot`: what the first vCPU runs.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the guest boots: a firmware, or a kernel without one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["firmware"] }, { "required": ["kernel"] }]))]
pub struct Boot {
    /// `"seabios"`, `"ovmf"`, or the path of a flat firmware image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// Path of a bzImage or of an ELF with a PVH entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// Path of the kernel's initial RAM disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
}

/// A firmware by name, or by path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Firmware {
    /// The distribution's SeaBIOS.
    SeaBios,
    /// The distribution's OVMF.
    Ovmf,
    /// A flat image that ends at 4 GiB.
    Path(PathBuf),
}

impl From<String> for Firmware {
    fn from(text: String) -> Self {
        match text.as_str() {
            "seabios" => Self::SeaBios,
            "ovmf" => Self::Ovmf,
            _ => Self::Path(text.into()),
        }
    }
}

impl From<Firmware> for String {
    fn from(firmware: Firmware) -> Self {
        firmware.to_string()
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SeaBios => f.write_str("seabios"),
            Self::Ovmf => f.write_str("ovmf"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}
