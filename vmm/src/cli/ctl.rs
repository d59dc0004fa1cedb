//! `caraway ctl`.

use clap::Args;

use crate::exit::{Exit, Failure};

/// A verb of the API.
#[derive(Debug, Args)]
pub(super) struct Ctl {}

impl Ctl {
    pub(super) fn act(self) -> Result<Exit, Failure> {
        Err(Failure::new(Exit::Internal, "not built"))
    }
}
