//! Monitors: what the guest shows on each, and what the host wishes for.

use caraway_spice::{Head, HeadRequest, Rect};
use zerocopy::IntoBytes;

use super::interrupts::{self, Interrupts};
use super::memslots::GuestAddress;
use super::ports::PortError;
use super::{Core, Qxl};
use crate::command::CommandError;
use crate::command::wire::{MonitorHead, Monitors};

/// The most heads that a guest may describe.
const MAX_HEADS: u16 = 64;

impl Qxl {
    /// Takes the monitors on that the guest describes at `address` (`QXLMonitorsConfig`).
    pub(super) fn set_monitors(&self, core: &Core, address: GuestAddress) -> Result<(), PortError> {
        let header: Monitors = core.slots.get(address).map_err(CommandError::from)?;
        let count = header.count.get();
        CommandError::at_most("number of heads", count, MAX_HEADS)?;
        let mut wire: Vec<MonitorHead> = Vec::new();
        wire.resize_with(count.into(), zerocopy::FromZeros::new_zeroed);
        let bytes = wire.as_mut_slice().as_mut_bytes();
        let heads = address.plus(size_of::<Monitors>() as u64);
        let place = core.slots.resolve(heads, bytes.len() as u64);
        let read = place.and_then(|place| place.read(0, bytes));
        read.map_err(CommandError::from)?;

        let mut screen = self.screen.write();
        let Some(canvas) = screen.canvas.as_ref() else {
            return Ok(());
        };
        let whole = canvas.area();
        let mut heads: Vec<Head> = wire
            .iter()
            .filter_map(|head| visible(head, whole))
            .collect();
        if heads.is_empty() {
            let (id, area) = (0, whole);
            heads.push(Head { id, area });
        }
        if screen.heads != heads {
            screen.heads = heads;
            drop(screen);
            self.news.layout();
        }
        Ok(())
    }

    /// Tells the guest which monitors the host wishes for; whether it listens.
    pub(super) fn wish_for_heads(&self, heads: &[HeadRequest]) -> bool {
        if !Interrupts::wants_monitors(&self.ram) {
            return false;
        }
        // One at a time, or the sum would be another one's.
        let _core = self.core.lock();
        if self.rom.set_monitors(heads) {
            self.interrupts
                .raise(&self.ram, interrupts::CLIENT_MONITORS_CONFIG);
        }
        true
    }
}

/// The head's part of the primary surface `whole`; `None` if it shows nothing of it.
fn visible(head: &MonitorHead, whole: Rect) -> Option<Head> {
    let cut = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let (left, top) = (cut(head.x.get()), cut(head.y.get()));
    let area = Rect {
        left,
        top,
        right: left.saturating_add(cut(head.width.get())),
        bottom: top.saturating_add(cut(head.height.get())),
    };
    let area = area.intersection(whole);
    let shown = head.surface_id.get() == 0 && !area.is_empty();
    shown.then_some(Head {
        id: head.id.get(),
        area,
    })
}
