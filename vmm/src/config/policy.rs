//! `clock` and `on`: how the machine keeps time, and what it does when the guest ends.

use caraway_devices::AfterPause;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::clock_base::ClockBase;

/// How the guest's clocks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// What the CMOS clock shows; UTC if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<ClockBase>,
    /// What becomes of ticks that the guest could not take; they are replayed if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_ticks: Option<LostTicks>,
    /// What the guest's time does after a pause; it catches up if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_resume: Option<OnResume>,
    /// Whose PIT it is; Caraway's own if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pit: Option<PitModel>,
}

/// Whose PIT the guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PitModel {
    /// Caraway's own, with every policy for lost ticks, and metrics.
    #[default]
    User,
    /// The kernel's, which replays or discards, and tells nothing of it.
    Kernel,
}

/// What becomes of ticks that the guest could not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LostTicks {
    /// They are counted and given as soon as the guest has taken the last one.
    #[default]
    Replay,
    /// They are counted and given little by little, faster than they came.
    Slew,
    /// They are forgotten.
    Discard,
}

/// What the guest's time does after a pause.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
    ToSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum OnResume {
    /// It becomes the host's again.
    #[default]
    CatchUp,
    /// It goes on from where it stopped.
    Continue,
}

impl From<OnResume> for AfterPause {
    fn from(policy: OnResume) -> Self {
        match policy {
            OnResume::CatchUp => Self::CatchUp,
            OnResume::Continue => Self::Continue,
        }
    }
}

/// What the machine does when the guest ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct On {
    /// The guest powered off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poweroff: Option<OnPoweroff>,
    /// The guest asked for a reset; it reboots if not given. (A triple fault always ends with 112.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset: Option<OnReset>,
    /// The guest's kernel says that it panicked; the machine exits if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic: Option<OnPanic>,
}

/// What follows a power-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnPoweroff {
    /// The program ends with 0.
    #[default]
    Exit,
}

/// What follows a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnReset {
    /// The machine starts anew.
    #[default]
    Reboot,
    /// The program ends with 112.
    Exit,
}

/// What follows a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnPanic {
    /// The program ends with 110.
    #[default]
    Exit,
    /// The machine starts anew.
    Reboot,
}
