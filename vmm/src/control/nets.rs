//! `net.*`: cables and limits of network cards.

use caraway_virtio::net::Limits;

use super::Control;
use crate::command::{ApiError, ErrorCode};
use crate::config::at;
use crate::config::net::FlowLimits;
use crate::config::{JsonPath, Problem};
use crate::events::Event;
use crate::machine::NetCard;
use crate::nets::{LimitChange, LinkChange, NetInfo, NetList};

impl Control<'_> {
    pub(super) fn nets(&self) -> NetList {
        let nets = self.machine.nets().map(NetInfo::from);
        NetList {
            nets: nets.collect(),
        }
    }

    pub(super) fn net(&self, id: &str) -> Result<&NetCard, ApiError> {
        self.machine
            .nets()
            .find(|card| card.id() == id)
            .ok_or_else(|| {
                let ids: Vec<&str> = self.machine.nets().map(NetCard::id).collect();
                let hint = match ids.as_slice() {
                    [] => "the machine has no network card".to_owned(),
                    ids => format!("there are: {}", ids.join(", ")),
                };
                let message = format!("there is no network card {id:?}");
                ApiError::new(ErrorCode::NotFound, message)
                    .path("id")
                    .hint(hint)
            })
    }

    pub(super) fn set_link(&self, change: LinkChange) -> Result<NetInfo, ApiError> {
        let card = self.net(&change.id)?;
        if card.set_link(change.up) {
            self.events.emit(Event::NetLink {
                id: change.id,
                up: change.up,
                reason: None,
            });
        }
        Ok(card.into())
    }

    pub(super) fn set_limits(&self, change: &LimitChange) -> Result<NetInfo, ApiError> {
        let card = self.net(&change.id)?;
        let check = |limits: Option<FlowLimits>, place: JsonPath| {
            let checked = limits.map(|limits| limits.check(&place));
            checked.transpose().map_err(|problem| refusal(&problem))
        };
        let receive: Option<Limits> = check(change.receive, at!("receive"))?;
        let transmit = check(change.transmit, at!("transmit"))?;
        card.set_limits(receive, transmit);
        Ok(card.into())
    }

    fn numbered(&self, number: usize) -> Option<&NetCard> {
        self.machine.nets().find(|card| card.number() == number)
    }

    /// The host's end of the card `number` is gone.
    pub(super) fn net_lost(&self, number: usize, reason: String) {
        if let Some(card) = self.numbered(number) {
            tracing::warn!(net = card.id(), reason, "a network card lost its other end");
            self.link_changed(card, reason);
            card.rejoin();
        }
    }

    /// The card `number` has a host's end again.
    pub(super) fn net_joined(&self, number: usize) {
        if let Some(card) = self.numbered(number) {
            tracing::info!(net = card.id(), "a network card has another end again");
            self.link_changed(card, "the other end is there again".to_owned());
        }
    }

    fn link_changed(&self, card: &NetCard, reason: String) {
        card.tell_link();
        self.events.emit(Event::NetLink {
            id: card.id().to_owned(),
            up: card.device().is_link_up(),
            reason: Some(reason),
        });
    }
}

fn refusal(problem: &Problem) -> ApiError {
    let error = ApiError::new(ErrorCode::BadRequest, problem.message.clone());
    let error = error.path(problem.path.to_string());
    match &problem.hint {
        Some(hint) => error.hint(hint.clone()),
        None => error,
    }
}
