//! Monitors: what the guest shows on each, and what the host wishes for.

use caraway_spice::{Head, HeadRequest, Rect};
use zerocopy::{FromZeros, IntoBytes};

use super::interrupts::{self, Interrupts};
use super::memslots::{GuestAddress, Slots};
use super::{Core, Qxl};
use crate::command::CommandError;
use crate::command::wire::{MonitorHead, Monitors};

/// The most heads that a guest may describe.
const MAX_HEADS: u16 = 64;

impl Qxl {
    /// Takes the monitors on that the guest describes at `address`. What means nothing is passed over,
    /// as the reference does.
    pub(super) fn set_monitors(&self, core: &mut Core, address: GuestAddress) {
        let wire = match described(&core.slots, address) {
            Ok(wire) if wire.is_empty() => return,
            Ok(wire) => wire,
            Err(error) => {
                core.log_once("monitors", &format!("monitors that mean nothing: {error}"));
                return;
            }
        };
        let mut screen = self.screen.write();
        let Some(canvas) = screen.canvas.as_ref() else {
            return;
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

/// The heads that a guest describes at `address` (`QXLMonitorsConfig`).
fn described(slots: &Slots, address: GuestAddress) -> Result<Vec<MonitorHead>, CommandError> {
    let header: Monitors = slots.get(address)?;
    let (count, allowed) = (header.count.get(), header.max_allowed.get());
    CommandError::at_most("number of heads", count, allowed.min(MAX_HEADS))?;
    let mut heads = vec![MonitorHead::new_zeroed(); count.into()];
    let bytes = heads.as_mut_slice().as_mut_bytes();
    let at = address.plus(size_of::<Monitors>() as u64);
    slots.resolve(at, bytes.len() as u64)?.read(0, bytes)?;
    Ok(heads)
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
