//! Memory that the guest gives back, and its agent.

use std::sync::Arc;

use super::Control;
use crate::balloon::BalloonStatus;
use crate::command::{ApiError, ErrorCode};
use crate::config::units::{MIB, Size};
use crate::guest_agent::GuestAgent;

/// What the smallest machine has.
const LEAST: u64 = 4 * MIB;

impl Control<'_> {
    pub(super) fn balloon(&self) -> Result<BalloonStatus, ApiError> {
        self.machine.balloon().ok_or_else(|| {
            ApiError::new(ErrorCode::NoBalloon, "the machine has no balloon")
                .hint("add `\"balloon\": {}` to its config")
        })
    }

    pub(super) fn set_balloon(&self, target: Size) -> Result<(), ApiError> {
        let memory = self.balloon()?.memory;
        if !(LEAST..=memory).contains(&target.bytes()) {
            let message = format!("the guest can't keep {target} of its {}", Size(memory));
            let hint = format!("use {} to {}", Size(LEAST), Size(memory));
            let error = ApiError::new(ErrorCode::BadRequest, message);
            return Err(error.path("target").hint(hint));
        }
        self.machine.set_balloon(target.bytes());
        Ok(())
    }

    pub(super) fn guest_agent(&self) -> Result<Arc<GuestAgent>, ApiError> {
        self.machine.guest_agent().cloned().ok_or_else(|| {
            let message = "the machine has no channel for the guest's agent";
            let hint = "add { \"name\": \"org.qemu.guest_agent.0\", \"to\": \"guest-agent\" } to its `channels`";
            ApiError::new(ErrorCode::NoAgent, message).path("channels").hint(hint)
        })
    }
}
