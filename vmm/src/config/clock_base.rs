//! `clock.base`: what the CMOS clock shows when the machine starts.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::Offset;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const UTC: &str = "utc";
const LOCALTIME: &str = "localtime";
/// The first year whose seconds count from 1970, and the last of four digits, which is all that the
/// clock has.
const YEARS: std::ops::RangeInclusive<i16> = 1970..=9998;

/// What the CMOS clock shows when the machine starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClockBase {
    /// Universal time, as Linux expects.
    #[default]
    Utc,
    /// The host's local time, as Windows expects.
    Localtime,
    /// This date, from which time goes on.
    Date(Date),
}

/// A date and time of day, in no time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date(DateTime);

impl Date {
    /// Seconds since 1970, as if it were UTC.
    #[must_use]
    pub fn seconds(self) -> i64 {
        let timestamp = Offset::UTC.to_timestamp(self.0);
        // Years that have no timestamp are refused when the date is read.
        timestamp.map_or(0, |timestamp| timestamp.as_second())
    }
}

/// The text is no base of a clock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not \"utc\", \"localtime\" or a date from 1970 to 9998 such as \"2006-06-17T16:01:21\""
)]
pub struct NoBase(String);

impl FromStr for ClockBase {
    type Err = NoBase;

    fn from_str(text: &str) -> Result<Self, NoBase> {
        match text {
            UTC => Ok(Self::Utc),
            LOCALTIME => Ok(Self::Localtime),
            _ => text
                .parse()
                .ok()
                .filter(|date: &DateTime| YEARS.contains(&date.year()))
                .map(|date| Self::Date(Date(date)))
                .ok_or_else(|| NoBase(text.to_owned())),
        }
    }
}

impl fmt::Display for ClockBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Utc => f.write_str(UTC),
            Self::Localtime => f.write_str(LOCALTIME),
            Self::Date(Date(date)) => write!(f, "{date}"),
        }
    }
}

impl<'de> Deserialize<'de> for ClockBase {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl Serialize for ClockBase {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ClockBase {
    fn schema_name() -> Cow<'static, str> {
        "ClockBase".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What the CMOS clock shows when the machine starts: universal time (Linux), \
                            local time (Windows), or a date from which it goes on.",
            "oneOf": [
                { "type": "string", "enum": [UTC, LOCALTIME] },
                { "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2})?$" }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_counts_from_1970() {
        let base = "1970-01-02T00:00:01".parse();

        let Ok(ClockBase::Date(date)) = base else {
            panic!("{base:?}");
        };
        assert_eq!(date.seconds(), 86_401);
    }

    #[test]
    fn a_base_is_written_as_it_is_read() {
        for text in [UTC, LOCALTIME, "2006-06-17T16:01:21"] {
            let base: ClockBase = text.parse().unwrap();
            assert_eq!(base.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in ["", "UTC", "1969-12-31", "9999-01-01", "2006-13-01", "now"] {
            assert!(text.parse::<ClockBase>().is_err(), "{text}");
        }
    }
}
