//! Giving commands back: their ids go to the release ring as linked lists.

use serde::{Deserialize, Serialize};

use super::memslots::{GuestAddress, Slots};
use super::rings::{ReleaseRing, RingError};

/// Commands that are done with but not in the ring yet. The list runs through the commands
/// themselves: each one's first eight bytes hold the id of the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Releases {
    /// Id of the first, 0 if there is none.
    first: u64,
    /// Where the last one is.
    last: Option<GuestAddress>,
    /// How many there are.
    count: u32,
}

/// As many commands go to the guest at once while there are more to come.
const BUNCH: u32 = 32;

impl Releases {
    /// Appends the command at `address`, with which nobody has to do any more. A command that is
    /// not there, or has no id, is not given back.
    pub(crate) fn add(&mut self, slots: &Slots, address: GuestAddress) {
        let Ok(place) = slots.resolve(address, 8) else {
            return;
        };
        let mut id = [0; 8];
        let read = place.read(0, &mut id);
        if read.is_err() || id == [0; 8] || place.write(0, &[0; 8]).is_err() {
            return;
        }
        self.count = self.count.saturating_add(1);
        let last = self.last.replace(address);
        if self.first == 0 {
            self.first = u64::from_le_bytes(id);
        } else if let Some(last) = last
            && let Ok(place) = slots.resolve(last, 8)
        {
            // The place was written before; its slot may be gone by now, and the list with it.
            let _ = place.write(0, &id);
        }
    }

    /// Whether there are so many that the guest ought to have them now.
    pub(crate) const fn is_long(&self) -> bool {
        self.count >= BUNCH
    }

    /// Puts the list into the ring if there is room; whether the guest waits for it.
    pub(crate) fn push(&mut self, ring: &ReleaseRing) -> Result<bool, RingError> {
        if self.first == 0 || !ring.has_room()? {
            return Ok(false);
        }
        let list = std::mem::take(self);
        ring.push(list.first)
    }
}
