//! `memory`: how much the guest has, and how the host keeps it.

use std::borrow::Cow;
use std::fmt;

use caraway_arch::memory::{Backing, PageSize};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::units::Size;

/// Guest memory: a size, or [`MemoryOptions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory(pub MemoryOptions);

/// How much memory the guest has, and how the host keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryOptions {
    /// A multiple of 1M, and of the huge pages it is to be made of; 512M if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// Whether the host may keep pages that are equal, of this and other machines, once (KSM); `false`
    /// if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mergeable: Option<bool>,
    /// The host's huge pages for it; as the host does by itself if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugepages: Option<HugePages>,
}

/// The huge pages that guest memory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HugePages {
    /// Where the host finds some at the moment of need; they can be swapped and given back.
    #[serde(rename = "transparent")]
    Transparent,
    /// Pages of 2 MiB that were reserved on the host.
    #[serde(rename = "2M")]
    TwoMib,
    /// Pages of 1 GiB that were reserved on the host.
    #[serde(rename = "1G")]
    OneGib,
}

impl HugePages {
    /// The size of the reserved pages, if these are.
    #[must_use]
    pub fn reserved(self) -> Option<PageSize> {
        match self {
            Self::Transparent => None,
            Self::TwoMib => Some(PageSize::TwoMib),
            Self::OneGib => Some(PageSize::OneGib),
        }
    }
}

/// How the host keeps guest memory, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryPolicy {
    /// Equal pages may be kept once.
    pub mergeable: bool,
    /// The huge pages that it is made of.
    pub hugepages: Option<HugePages>,
}

impl MemoryPolicy {
    /// What is behind the guest's memory.
    #[must_use]
    pub fn backing(&self) -> Backing {
        let reserved = self.hugepages.and_then(HugePages::reserved);
        reserved.map_or(Backing::Anonymous, Backing::Reserved)
    }

    /// As the config would say it of `size` bytes.
    #[must_use]
    pub fn to_config(self, size: u64) -> Memory {
        Memory(MemoryOptions {
            size: Some(Size(size)),
            mergeable: self.mergeable.then_some(true),
            hugepages: self.hugepages,
        })
    }
}

impl fmt::Display for MemoryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mergeable {
            f.write_str(", mergeable")?;
        }
        match self.hugepages {
            None => Ok(()),
            Some(HugePages::Transparent) => f.write_str(", transparent huge pages"),
            Some(HugePages::TwoMib) => f.write_str(", reserved pages of 2M"),
            Some(HugePages::OneGib) => f.write_str(", reserved pages of 1G"),
        }
    }
}

impl<'de> Deserialize<'de> for Memory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Memory;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"2G\", or { \"size\": \"2G\", \"mergeable\": true }")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Memory, E> {
                Ok(Memory::of(Size(bytes)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Memory, E> {
                text.parse().map(Memory::of).map_err(E::custom)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Memory, A::Error> {
                MemoryOptions::deserialize(MapAccessDeserializer::new(map)).map(Memory)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Memory {
    /// So much, kept as the host likes.
    #[must_use]
    pub fn of(size: Size) -> Self {
        Self(MemoryOptions {
            size: Some(size),
            ..MemoryOptions::default()
        })
    }
}

impl Serialize for Memory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            MemoryOptions {
                size: Some(size),
                mergeable: None,
                hugepages: None,
            } => size.serialize(serializer),
            options => options.serialize(serializer),
        }
    }
}

impl JsonSchema for Memory {
    fn schema_name() -> Cow<'static, str> {
        "Memory".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                generator.subschema_for::<Size>(),
                generator.subschema_for::<MemoryOptions>(),
            ]
        })
    }
}
