//! `balloon`.

use super::Checker;
use crate::config::balloon::{Balloon, BalloonSpec};
use crate::config::path::at;

impl Checker<'_> {
    pub(super) fn balloon(&mut self, balloon: &Balloon) -> Option<BalloonSpec> {
        let path = at!("balloon");
        if balloon.stats_interval.is_some_and(|span| span.0.is_zero()) {
            let hint = "use a time such as \"1s\", or leave it out to ask only once";
            self.bad(
                path.then("stats_interval"),
                "the guest would be asked all the time",
                hint,
            );
        }
        Some(BalloonSpec {
            id: self.id(&balloon.id, "balloon", "balloon", &path),
            address: self.address(balloon.address, None, &path)?,
            stats_interval: balloon.stats_interval,
            free_page_reporting: balloon.free_page_reporting.unwrap_or(false),
            deflate_on_oom: balloon.deflate_on_oom.unwrap_or(false),
        })
    }
}
