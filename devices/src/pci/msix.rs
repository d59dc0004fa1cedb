//! Message-signalled interrupts with a table (PCI 3.0, 6.8.2).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Capability, ConfigSpace};
use crate::interrupt::{MsiError, MsiMessage, MsiProvider, MsiVector};
use crate::state::{StateError, Stateful};

const CAPABILITY_ID: u8 = 0x11;
/// Message control: the function uses MSI-X.
const ENABLE: u16 = 1 << 15;
/// Message control: every vector is masked.
const FUNCTION_MASK: u16 = 1 << 14;
/// Vector control: this vector is masked.
const VECTOR_MASK: u32 = 1 << 0;
/// Bytes of a table entry.
const ENTRY: u64 = 16;
/// Vectors that a table can have.
const MAX_VECTORS: u16 = 2048;

/// Why a function could not get MSI-X.
#[derive(Debug, thiserror::Error)]
pub enum MsixError {
    /// A table has 1 to 2,048 vectors.
    #[error("{count} vectors were asked for; a table has 1 to {MAX_VECTORS}")]
    Count {
        /// How many were asked for.
        count: u16,
    },
    /// The machine gave no vectors.
    #[error("no vectors for the table")]
    Vectors(#[from] MsiError),
}

/// One entry of the table as a snapshot keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
    /// Vector control; bit 0 masks.
    pub control: u32,
    /// An interrupt waits for the mask to go.
    pub pending: bool,
}

impl Vector {
    const RESET: Self = Self {
        address: 0,
        data: 0,
        control: VECTOR_MASK,
        pending: false,
    };

    fn to_bytes(self) -> [u8; ENTRY as usize] {
        let mut bytes = [0; ENTRY as usize];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.data.to_le_bytes());
        bytes[12..].copy_from_slice(&self.control.to_le_bytes());
        bytes
    }

    /// Takes the doubleword at `offset` (0, 4, 8 or 12) on.
    fn set_u32(&mut self, offset: u64, value: u32) {
        let wide = u64::from(value);
        match offset {
            0 => self.address = self.address & !0xffff_ffff | wide & !3,
            4 => self.address = self.address & 0xffff_ffff | wide << 32,
            8 => self.data = value,
            _ => self.control = value & VECTOR_MASK,
        }
    }
}

/// What a snapshot keeps of an [`Msix`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MsixState {
    /// Message control register.
    control: u16,
    /// The table.
    vectors: Vec<Vector>,
}

/// The MSI-X capability of a function, with its table and its pending bits.
///
/// The function passes accesses to the table and to the pending bits on to it, and calls
/// [`config_written`](Self::config_written) from its own.
pub struct Msix {
    lines: Vec<Arc<dyn MsiVector>>,
    table: Vec<Vector>,
    capability: u16,
    control: u16,
}

impl Msix {
    /// A table of `count` vectors (1 to 2,048) from `provider`, all masked.
    ///
    /// # Errors
    /// [`MsixError`] if the count is out of range or the provider has none left.
    pub fn new(count: u16, provider: &dyn MsiProvider) -> Result<Self, MsixError> {
        if !(1..=MAX_VECTORS).contains(&count) {
            return Err(MsixError::Count { count });
        }
        Ok(Self {
            lines: provider.vectors(count)?,
            table: vec![Vector::RESET; usize::from(count)],
            capability: 0,
            control: count - 1,
        })
    }

    /// Adds the capability to `config`, with the table at `table_offset` and the pending bits at
    /// `pba_offset` in BAR `bar`; both offsets are multiples of 8. Gives the capability's offset,
    /// or `None` if there is no room for it.
    pub fn add_capability(
        &mut self,
        config: &mut ConfigSpace,
        bar: u8,
        table_offset: u32,
        pba_offset: u32,
    ) -> Option<u16> {
        let place = |offset: u32| ((offset & !7) | u32::from(bar & 7)).to_le_bytes();
        let mut body = (self.control & 0x7ff).to_le_bytes().to_vec();
        body.extend(place(table_offset));
        body.extend(place(pba_offset));
        let capability = config.add_capability(&Capability {
            id: CAPABILITY_ID,
            body,
            writable: (ENABLE | FUNCTION_MASK).to_le_bytes().to_vec(),
        })?;
        self.capability = capability;
        Some(capability)
    }

    /// How many vectors there are.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.table.len() as u16
    }

    /// Length of the table in bytes.
    #[must_use]
    pub fn table_len(&self) -> u64 {
        self.table.len() as u64 * ENTRY
    }

    /// Length of the pending bits in bytes.
    #[must_use]
    pub fn pba_len(&self) -> u64 {
        self.table.len().div_ceil(64) as u64 * 8
    }

    /// Whether the guest has switched MSI-X on; INTx is silent then.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.control & ENABLE != 0
    }

    /// Takes the message control register on, whatever part of `config` was written.
    pub fn config_written(&mut self, config: &ConfigSpace) {
        if self.capability == 0 {
            return;
        }
        let control = config.u16_at(usize::from(self.capability) + 2);
        if control != self.control {
            self.control = control;
            self.update_all();
        }
    }

    /// Sends vector `index`, or keeps it pending while it is masked. Nothing happens if there is no
    /// such vector or MSI-X is off.
    pub fn trigger(&mut self, index: u16) {
        let index = usize::from(index);
        let deliverable = self.is_deliverable(index);
        let enabled = self.is_enabled();
        if let (Some(line), Some(vector)) = (self.lines.get(index), self.table.get_mut(index)) {
            if deliverable {
                line.trigger();
            } else if enabled {
                vector.pending = true;
            }
        }
    }

    /// A guest's read in the table: 4 or 8 bytes, aligned; others are all ones.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if !is_aligned(offset, data.len()) {
            return;
        }
        if let Some(vector) = self.table.get((offset / ENTRY) as usize) {
            let from = (offset % ENTRY) as usize;
            data.copy_from_slice(&vector.to_bytes()[from..from + data.len()]);
        }
    }

    /// A guest's write in the table: 4 or 8 bytes, aligned; others are ignored.
    pub fn write_table(&mut self, offset: u64, data: &[u8]) {
        let index = (offset / ENTRY) as usize;
        if !is_aligned(offset, data.len()) {
            return;
        }
        let Some(vector) = self.table.get_mut(index) else {
            return;
        };
        for (at, chunk) in (offset % ENTRY..).step_by(4).zip(data.chunks_exact(4)) {
            let mut value = [0; 4];
            value.copy_from_slice(chunk);
            vector.set_u32(at, u32::from_le_bytes(value));
        }
        self.update(index);
    }

    /// A guest's read in the pending bits: 4 or 8 bytes, aligned; others are all ones.
    pub fn read_pba(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if !is_aligned(offset, data.len()) || offset >= self.pba_len() {
            return;
        }
        for (byte, target) in (offset as usize..).zip(data.iter_mut()) {
            let vectors = self.table.iter().skip(byte * 8).take(8).enumerate();
            *target = vectors.fold(0, |bits, (n, v)| bits | u8::from(v.pending) << n);
        }
    }

    fn is_deliverable(&self, index: usize) -> bool {
        let masked = self
            .table
            .get(index)
            .is_none_or(|vector| vector.control & VECTOR_MASK != 0);
        !masked && self.control & (ENABLE | FUNCTION_MASK) == ENABLE
    }

    fn update_all(&mut self) {
        for index in 0..self.table.len() {
            self.update(index);
        }
    }

    /// Makes the line of vector `index` agree with its entry, and sends what was pending.
    fn update(&mut self, index: usize) {
        let deliverable = self.is_deliverable(index);
        let (Some(line), Some(vector)) = (self.lines.get(index), self.table.get_mut(index)) else {
            return;
        };
        line.set_message(deliverable.then_some(MsiMessage {
            address: vector.address,
            data: vector.data,
        }));
        if deliverable && std::mem::take(&mut vector.pending) {
            line.trigger();
        }
    }
}

fn is_aligned(offset: u64, len: usize) -> bool {
    matches!(len, 4 | 8) && offset.is_multiple_of(len as u64)
}

impl Stateful for Msix {
    type State = MsixState;
    const KIND: &'static str = "msix";
    const VERSION: u32 = 1;

    fn save(&self) -> MsixState {
        MsixState {
            control: self.control,
            vectors: self.table.clone(),
        }
    }

    fn restore(&mut self, state: MsixState) -> Result<(), StateError> {
        if state.vectors.len() != self.table.len() {
            let what = format!(
                "its table has {} vectors, this function's {}",
                state.vectors.len(),
                self.table.len()
            );
            return Err(StateError::Invalid {
                kind: Self::KIND,
                what,
            });
        }
        self.control = state.control & (ENABLE | FUNCTION_MASK) | (self.count() - 1);
        self.table = state.vectors;
        for vector in &mut self.table {
            vector.address &= !3;
            vector.control &= VECTOR_MASK;
        }
        self.update_all();
        Ok(())
    }

    fn reset(&mut self) {
        self.control &= 0x7ff;
        self.table.fill(Vector::RESET);
        self.update_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::FakeMsi;
    use crate::pci::Ids;

    struct Fixture {
        msi: FakeMsi,
        msix: Msix,
        config: ConfigSpace,
        capability: u16,
    }

    const MESSAGE: MsiMessage = MsiMessage {
        address: 0xfee0_1000,
        data: 0x41,
    };

    fn fixture() -> Fixture {
        let msi = FakeMsi::default();
        let mut msix = Msix::new(3, &msi).unwrap();
        let mut config = ConfigSpace::new(Ids::default());
        let capability = msix.add_capability(&mut config, 1, 0, 0x800).unwrap();
        Fixture {
            msi,
            msix,
            config,
            capability,
        }
    }

    impl Fixture {
        fn control(&mut self, value: u16) {
            self.config.write(self.capability + 2, &value.to_le_bytes());
            self.msix.config_written(&self.config);
        }

        fn program(&mut self, index: u64, control: u32) {
            let at = index * ENTRY;
            self.msix.write_table(at, &MESSAGE.address.to_le_bytes());
            self.msix.write_table(at + 8, &MESSAGE.data.to_le_bytes());
            self.msix.write_table(at + 12, &control.to_le_bytes());
        }

        fn sent(&self, index: usize) -> Vec<MsiMessage> {
            self.msi.vectors.lock()[index].sent()
        }
    }

    #[test]
    fn an_unmasked_vector_sends_its_message() {
        let mut f = fixture();
        f.control(ENABLE);
        f.program(1, 0);

        f.msix.trigger(1);

        assert_eq!(f.sent(1), [MESSAGE]);
    }

    #[test]
    fn a_masked_vector_waits_until_it_is_unmasked() {
        let mut f = fixture();
        f.control(ENABLE);
        f.program(2, VECTOR_MASK);
        let mut pending = [0; 8];

        f.msix.trigger(2);
        f.msix.read_pba(0, &mut pending);
        let before = f.sent(2);
        f.msix.write_table(2 * ENTRY + 12, &0_u32.to_le_bytes());

        assert_eq!(pending, [4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(before, []);
        assert_eq!(f.sent(2), [MESSAGE]);
    }

    #[test]
    fn the_function_mask_holds_every_vector_back() {
        let mut f = fixture();
        f.control(ENABLE | FUNCTION_MASK);
        f.program(0, 0);

        f.msix.trigger(0);
        let before = f.sent(0);
        f.control(ENABLE);

        assert_eq!(before, []);
        assert_eq!(f.sent(0), [MESSAGE]);
    }

    #[test]
    fn nothing_is_sent_or_kept_while_msix_is_off() {
        let mut f = fixture();
        f.program(0, 0);

        f.msix.trigger(0);
        f.control(ENABLE);

        assert_eq!(f.sent(0), []);
    }

    #[test]
    fn accesses_outside_of_the_table_do_nothing() {
        let mut f = fixture();
        let mut data = [0; 4];

        f.msix.write_table(3 * ENTRY, &[1; 4]);
        f.msix.write_table(2, &[1; 4]);
        f.msix.read_table(!3, &mut data);
        f.msix.trigger(3);

        assert_eq!(data, [0xff; 4]);
        assert_eq!(f.msix.save(), fixture().msix.save());
    }
}

crate::state_tests!(
    msix_state,
    Msix::new(2, &crate::interrupt::FakeMsi::default()).unwrap(),
    |msix: &mut Msix| {
        msix.control |= ENABLE;
        msix.write_table(8, &7_u32.to_le_bytes());
        msix.trigger(0);
    }
);
