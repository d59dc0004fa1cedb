//! Commands of the control queue (5.1.6.5).

use std::ops::ControlFlow;

use super::{Inner, feature, offloads_of};
use crate::queue::{Chain, Virtqueue};

const OK: u8 = 0;
const ERROR: u8 = 1;

/// Classes of commands, and those commands that are not modes of the filter.
mod class {
    pub(super) const RX: u8 = 0;
    pub(super) const MAC: u8 = 1;
    pub(super) const MAC_TABLE_SET: u8 = 0;
    pub(super) const MAC_ADDR_SET: u8 = 1;
    pub(super) const MQ: u8 = 4;
    pub(super) const MQ_PAIRS_SET: u8 = 0;
    pub(super) const GUEST_OFFLOADS: u8 = 5;
    pub(super) const GUEST_OFFLOADS_SET: u8 = 0;
}

/// The longest command: tables of addresses that a driver may fill with more than have room.
const LONGEST: usize = 16 << 10;

/// Obeys every command in `queue`.
pub(super) fn serve(inner: &mut Inner, queue: &Virtqueue) {
    queue.serve(|chain| {
        match chain.writable.first() {
            Some(place) => {
                let answer = match read(queue, &chain) {
                    Some(command) if inner.obey(&command) => OK,
                    _ => ERROR,
                };
                if vm_memory::Bytes::write_obj(queue.memory(), answer, place.address).is_err() {
                    queue.fail(&"a command's answer is not in RAM");
                }
                queue.complete(chain.head, 1);
            }
            None => {
                queue.fail(&"a command has no room for its answer");
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    queue.interrupt();
}

fn read(queue: &Virtqueue, chain: &Chain) -> Option<Vec<u8>> {
    let mut command = Vec::new();
    chain
        .read(queue.memory(), 0, LONGEST + 1, &mut command)
        .ok()?;
    (command.len() <= LONGEST).then_some(command)
}

impl Inner {
    /// Does what a command says; whether it is one that was agreed on.
    fn obey(&mut self, command: &[u8]) -> bool {
        let Some(([class, command], data)) = command.split_first_chunk() else {
            return false;
        };
        let has = |feature: u64| self.features & feature != 0;
        match (*class, *command, data) {
            (class::RX, mode, [on @ (0 | 1)])
                if has(if mode < 2 {
                    feature::CTRL_RX
                } else {
                    feature::CTRL_RX_EXTRA
                }) =>
            {
                self.state.filter.set_mode(mode, *on != 0)
            }
            (class::MAC, class::MAC_TABLE_SET, tables) if has(feature::CTRL_RX) => {
                self.state.filter.set_tables(tables)
            }
            (class::MAC, class::MAC_ADDR_SET, &[a, b, c, d, e, f])
                if has(feature::CTRL_MAC_ADDR) =>
            {
                // A group's address can't be a station's.
                let good = a & 1 == 0;
                if good {
                    self.state.mac = [a, b, c, d, e, f];
                }
                good
            }
            (class::MQ, class::MQ_PAIRS_SET, &[low, high]) if has(feature::MQ) => {
                let pairs = u16::from_le_bytes([low, high]);
                let good = (1..=self.pairs.len()).contains(&usize::from(pairs));
                if good {
                    self.state.pairs = pairs;
                    self.settle_backends();
                    self.ring_all();
                }
                good
            }
            (class::GUEST_OFFLOADS, class::GUEST_OFFLOADS_SET, data)
                if has(feature::CTRL_GUEST_OFFLOADS) =>
            {
                let Ok(bits) = data.try_into().map(u64::from_le_bytes) else {
                    return false;
                };
                let good = bits & !(self.features & feature::GUEST_OFFLOADS) == 0;
                if good {
                    self.state.offloads = Some(offloads_of(bits, &feature::GUEST));
                    self.settle_backends();
                }
                good
            }
            _ => false,
        }
    }
}
