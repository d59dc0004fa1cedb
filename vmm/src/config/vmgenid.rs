//! `vmgenid`: the id by which a guest sees that it goes on from a copy of itself.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const AUTO: &str = "auto";
const NONE: &str = "none";

/// What the guest's VM generation id is: `"auto"`, `"none"` or a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum VmGenId {
    /// Another one at every start.
    #[default]
    Auto,
    /// The machine has none.
    None,
    /// This one.
    Fixed(Uuid),
}

impl VmGenId {
    /// The id for a machine that starts now.
    #[must_use]
    pub fn draw(self) -> Option<Uuid> {
        match self {
            Self::Auto => Some(Uuid::new_v4()),
            Self::None => None,
            Self::Fixed(id) => Some(id),
        }
    }
}

/// The text is no generation id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not \"auto\", \"none\" or a UUID such as \"6ba7b810-9dad-11d1-80b4-00c04fd430c8\""
)]
pub struct NoGenerationId(String);

impl FromStr for VmGenId {
    type Err = NoGenerationId;

    fn from_str(text: &str) -> Result<Self, NoGenerationId> {
        match text {
            AUTO => Ok(Self::Auto),
            NONE => Ok(Self::None),
            _ => Uuid::try_parse(text)
                .map(Self::Fixed)
                .map_err(|_| NoGenerationId(text.to_owned())),
        }
    }
}

impl fmt::Display for VmGenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str(AUTO),
            Self::None => f.write_str(NONE),
            Self::Fixed(id) => id.fmt(f),
        }
    }
}

impl TryFrom<String> for VmGenId {
    type Error = NoGenerationId;

    fn try_from(text: String) -> Result<Self, NoGenerationId> {
        text.parse()
    }
}

impl From<VmGenId> for String {
    fn from(value: VmGenId) -> Self {
        value.to_string()
    }
}
