//! `spice.tls`: where viewers are served by TLS, and what they are shown.

use std::fmt;
use std::path::PathBuf;

use caraway_spice::ChannelKind;
use caraway_spice::tls::SecureChannels;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::endpoint::Listen;

/// TLS for viewers. `caraway tls init` makes the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Where it waits for viewers; `127.0.0.1:5901` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Vec<Listen>>,
    /// PEM file of the server's certificate, with the intermediate ones after it.
    pub certificate: PathBuf,
    /// PEM file of its private key, without a passphrase.
    pub key: PathBuf,
    /// PEM file of the CA that viewers are to trust; goes into their connection files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Which channels are for TLS only; `"all"` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Channels>,
}

/// Which channels are for TLS only: `"all"`, or a list of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Channels {
    /// Every one.
    #[default]
    All,
    /// These.
    Only(Vec<ChannelKind>),
}

const ALL: &str = "all";

impl From<&Channels> for SecureChannels {
    fn from(channels: &Channels) -> Self {
        match channels {
            Channels::All => Self::All,
            Channels::Only(kinds) => Self::Only(kinds.clone()),
        }
    }
}

impl Serialize for Channels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str(ALL),
            Self::Only(kinds) => kinds.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Channels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AllOrNames)
    }
}

/// Keeps serde's own words for a name that is none, which the two forms in one enum would lose.
struct AllOrNames;

impl<'de> Visitor<'de> for AllOrNames {
    type Value = Channels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"all\" or a list of channels")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Channels, E> {
        match word {
            ALL => Ok(Channels::All),
            _ => Err(E::unknown_variant(word, &[ALL])),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Channels, A::Error> {
        let mut kinds = Vec::new();
        while let Some(kind) = names.next_element()? {
            kinds.push(kind);
        }
        Ok(Channels::Only(kinds))
    }
}

impl JsonSchema for Channels {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Channels".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names = ChannelKind::ALL.map(|kind| kind.to_string());
        json_schema!({
            "oneOf": [
                { "const": ALL },
                { "type": "array", "items": { "enum": names } },
            ]
        })
    }
}
