//! Sizes and times as people write them.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// 1024 bytes.
pub const KIB: u64 = 1 << 10;
/// 1024 KiB.
pub const MIB: u64 = 1 << 20;
/// 1024 MiB.
pub const GIB: u64 = 1 << 30;

const SIZE_UNITS: [(char, u64); 3] = [('G', GIB), ('M', MIB), ('K', KIB)];

/// A number of bytes, written `"2G"`, `"64M"`, `"512K"` (powers of 1024) or as a plain integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// The text is not a size or a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a [`Size`].
    #[error("{0:?} is not a size such as \"512M\" or \"2G\" (K, M and G are powers of 1024)")]
    Size(String),
    /// Not a [`Span`].
    #[error("{0:?} is not a time such as \"500ms\", \"60s\" or \"2m\"")]
    Span(String),
}

impl Size {
    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl std::str::FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let unit = SIZE_UNITS.iter().find(|(letter, _)| {
            text.ends_with(*letter) || text.ends_with(letter.to_ascii_lowercase())
        });
        let (digits, scale) = match unit {
            Some((_, scale)) => (&text[..text.len() - 1], *scale),
            None => (text, 1),
        };
        whole(digits)
            .and_then(|n| n.checked_mul(scale))
            .map(Self)
            .ok_or_else(|| UnitError::Size(text.to_owned()))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, scale): &&(char, u64)| self.0 != 0 && self.0.is_multiple_of(*scale);
        match SIZE_UNITS.iter().find(fits) {
            Some((letter, scale)) => write!(f, "{}{letter}", self.0 / scale),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Digits only, so that signs and spaces are refused.
fn whole(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"512M\" or \"2G\", or a number of bytes")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of bytes: an integer, or text with K, M or G (powers of 1024).",
            "oneOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": "^[0-9]+[KMGkmg]?$" }
            ]
        })
    }
}

/// A length of time, written `"500ms"`, `"60s"` or `"2m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl std::str::FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let units = [("ms", 1), ("s", 1000), ("m", 60_000)];
        units
            .iter()
            .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)))
            .and_then(|(digits, scale)| whole(digits)?.checked_mul(scale))
            .map(|ms| Self(Duration::from_millis(ms)))
            .ok_or_else(|| UnitError::Span(text.to_owned()))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match ms {
            0 => f.write_str("0s"),
            _ if ms.is_multiple_of(60_000) => write!(f, "{}m", ms / 60_000),
            _ if ms.is_multiple_of(1000) => write!(f, "{}s", ms / 1000),
            _ => write!(f, "{ms}ms"),
        }
    }
}

impl TryFrom<String> for Span {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A length of time in milliseconds, seconds or minutes.",
            "type": "string",
            "pattern": "^[0-9]+(ms|s|m)$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_powers_of_1024() {
        for (text, bytes) in [("1", 1), ("3K", 3072), ("64M", 64 * MIB), ("2g", 2 * GIB)] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_whole_unit() {
        for (bytes, text) in [
            (2 * GIB, "2G"),
            (1536 * MIB, "1536M"),
            (1000, "1000"),
            (0, "0"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_no_size() {
        for text in [
            "",
            "M",
            "-1M",
            "1.5G",
            "1 G",
            "+1",
            "99999999999999999999",
            "17179869184G",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn times_take_ms_s_and_m() {
        for (text, ms) in [("500ms", 500), ("60s", 60_000), ("2m", 120_000)] {
            assert_eq!(
                text.parse(),
                Ok(Span(Duration::from_millis(ms))),
                "{text:?}"
            );
        }
    }

    #[test]
    fn nonsense_is_no_time() {
        for text in ["", "5", "s", "1h", "-1s", "1.5s"] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
    }
}
