//! The command by which the first drivers had their pixels written back.

use caraway_spice::Rect;

use super::{CommandError, Dialect, wire};
use crate::device::{GuestAddress, Slots};

/// Write pixels back, and say so in the ROM (`QXLUpdateCmd`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UpdateCommand {
    pub(crate) surface: u32,
    pub(crate) area: Rect,
    pub(crate) id: u32,
}

impl UpdateCommand {
    /// The update command at `address`.
    pub(crate) fn decode(
        slots: &Slots,
        address: GuestAddress,
        dialect: Dialect,
    ) -> Result<Self, CommandError> {
        let wire: wire::Update = slots.get(address)?;
        let surface = match dialect {
            Dialect::Native => slots
                .get::<wire::SurfaceId>(address.plus(size_of::<wire::Update>() as u64))?
                .id
                .get(),
            // There is one surface only, and no field for another.
            Dialect::Compat | Dialect::Compat16 => 0,
        };
        Ok(Self {
            surface,
            area: wire.area.into(),
            id: wire.id.get(),
        })
    }
}
