//! How much may pass in how much time, wherever the config limits something.

use std::num::NonZeroU64;

use caraway_devices::Rate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::path::JsonPath;
use super::problem::{Kind, Problem};
use super::units::Size;

/// A limit in bytes, or in whatever else it is a limit of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// How much a second in the long run.
    #[schema(value_type = String, example = "10M")]
    pub rate: Size,
    /// How much at once after a pause; what passes in a tenth of a second if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1M")]
    pub burst: Option<Size>,
}

impl Limit {
    /// The limit with its default filled in.
    ///
    /// # Errors
    /// One of its values, which `place` is the path of, is 0.
    pub fn check(self, place: &JsonPath) -> Result<Rate, Box<Problem>> {
        let positive = |size: Size, key: &str, hint: &str| {
            NonZeroU64::new(size.bytes()).ok_or_else(|| {
                let message = "nothing would ever pass".to_owned();
                Box::new(Problem::new(Kind::BadValue, place.then(key), message).hint(hint))
            })
        };
        let hint = "use at least 1, or remove the limit";
        let smooth = Rate::smooth(positive(self.rate, "rate", hint)?);
        let burst = self.burst.map(|burst| {
            let hint = "use at least 1, or leave it out";
            positive(burst, "burst", hint)
        });
        Ok(Rate {
            burst: burst.transpose()?.unwrap_or(smooth.burst),
            ..smooth
        })
    }
}

impl From<Rate> for Limit {
    fn from(rate: Rate) -> Self {
        Self {
            rate: Size(rate.per_second.get()),
            burst: Some(Size(rate.burst.get())),
        }
    }
}
