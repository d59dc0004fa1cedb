//! The root complex: which function sits where, and which addresses its BARs decode.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::host_bridge::{EcamPlacement, EcamWindow};
use super::{Bar, BarKind, ConfigState, MappingId, MemoryMapper, PciAddress, PciFunction};
use crate::bus::{Bus, BusDevice, BusError};
use crate::state::{Lifecycle, Payload, StateError};

const KIND: &str = "pci-root";
const VERSION: u32 = 1;

/// What can be said of offset and length so that a write may move a BAR: command register, BARs
/// and expansion ROM.
const BAR_REGISTERS: [std::ops::Range<u16>; 3] = [0x04..0x06, 0x10..0x28, 0x30..0x34];

/// Why a function could not be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// There is a function at this address already.
    #[error("the PCI address {address} is taken")]
    Taken {
        /// The address asked for.
        address: PciAddress,
    },
    /// Only bus 0 exists.
    #[error("the PCI address {address} is not on bus 0, the only one there is")]
    Bus {
        /// The address asked for.
        address: PciAddress,
    },
}

/// Bus 0 of the machine: its functions, their configuration spaces, and their BARs on the guest's
/// address spaces.
///
/// BARs go where the guest puts them. One that is in the way of something else is left out, with a
/// warning, until any BAR moves again; so is one at address 0 or at the top of its address space,
/// where a sizing probe puts it for a moment.
pub struct PciRoot {
    me: Weak<PciRoot>,
    functions: RwLock<BTreeMap<PciAddress, Arc<dyn PciFunction>>>,
    mmio: Arc<Bus>,
    pio: Arc<Bus>,
    mapper: Arc<dyn MemoryMapper>,
    bars: Mutex<BTreeMap<BarKey, Placed>>,
    ecam: Mutex<Option<EcamWindow>>,
}

/// Function and BAR number.
type BarKey = (PciAddress, u8);

/// Where a BAR is, or where it could not go.
struct Placed {
    base: u64,
    kind: BarKind,
    how: How,
}

enum How {
    /// As host memory.
    Memory(MappingId),
    /// As host memory that can't be written, with registers that take the writes.
    ReadOnly(MappingId),
    /// As registers on a bus.
    Registers,
    /// Not at all: something else is there.
    Refused,
}

impl PciRoot {
    /// An empty bus 0 whose BARs go to `mmio` and `pio`, and through `mapper` where they are memory.
    #[must_use]
    pub fn new(mmio: Arc<Bus>, pio: Arc<Bus>, mapper: Arc<dyn MemoryMapper>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            functions: RwLock::default(),
            mmio,
            pio,
            mapper,
            bars: Mutex::default(),
            ecam: Mutex::default(),
        })
    }

    /// Puts `function` at `address`.
    ///
    /// # Errors
    /// [`RootError`] if the address is taken or not on bus 0.
    pub fn add(
        &self,
        address: PciAddress,
        function: Arc<dyn PciFunction>,
    ) -> Result<(), RootError> {
        if address.bus() != 0 {
            return Err(RootError::Bus { address });
        }
        let mut functions = self.functions.write();
        if functions.contains_key(&address) {
            return Err(RootError::Taken { address });
        }
        functions.insert(address, function);
        Ok(())
    }

    /// The function at `address`.
    #[must_use]
    pub fn function(&self, address: PciAddress) -> Option<Arc<dyn PciFunction>> {
        self.functions.read().get(&address).cloned()
    }

    /// The addresses that have a function, in order.
    #[must_use]
    pub fn addresses(&self) -> Vec<PciAddress> {
        self.functions.read().keys().copied().collect()
    }

    /// Reads `data` from `offset` in the configuration space of `address`; all ones where there is
    /// no function.
    pub fn config_read(&self, address: PciAddress, offset: u16, data: &mut [u8]) {
        match self.function(address) {
            Some(function) => {
                function.config_reading(offset, data.len());
                function.config().lock().read(offset, data);
            }
            None => data.fill(0xff),
        }
    }

    /// Writes `data` at `offset` in the configuration space of `address`, as the guest does.
    pub fn config_write(&self, address: PciAddress, offset: u16, data: &[u8]) {
        let Some(function) = self.function(address) else {
            return;
        };
        function.config().lock().write(offset, data);
        let end = offset.saturating_add(data.len() as u16);
        if BAR_REGISTERS
            .iter()
            .any(|registers| offset < registers.end && registers.start < end)
        {
            self.place_bars();
        }
        function.config_written(offset, data.len());
    }

    /// Makes the address spaces agree with what the BAR registers say.
    ///
    /// One lock guards all of it, so that vCPUs that move BARs at the same time can't interleave.
    fn place_bars(&self) {
        let functions: Vec<_> = self
            .functions
            .read()
            .iter()
            .map(|(&address, function)| (address, Arc::clone(function)))
            .collect();
        let mut placed = self.bars.lock();
        let mut wanted = Vec::new();
        for (address, function) in &functions {
            let bars = function.config().lock().bars();
            for bar in bars {
                let key = (*address, bar.index);
                let base = decoded_base(&bar);
                let current = placed.get(&key);
                let stays = current.map(|p| p.base) == base
                    && !matches!(
                        current,
                        Some(Placed {
                            how: How::Refused,
                            ..
                        })
                    );
                if stays {
                    continue;
                }
                let refused_at = match placed.remove(&key) {
                    Some(Placed {
                        how: How::Refused,
                        base,
                        ..
                    }) => Some(base),
                    Some(old) => {
                        self.take_away(old);
                        function.bar_moved(bar.index, None);
                        None
                    }
                    None => None,
                };
                if let Some(base) = base {
                    wanted.push((key, function, bar, base, refused_at == Some(base)));
                }
            }
        }
        for (key, function, bar, base, refused_before) in wanted {
            let how = match self.put(function, &bar, base) {
                Ok(how) => {
                    function.bar_moved(bar.index, Some(base));
                    how
                }
                Err(reason) => {
                    if !refused_before {
                        tracing::warn!(
                            function = %key.0, bar = bar.index, base = format_args!("{base:#x}"),
                            size = format_args!("{:#x}", bar.size), reason,
                            "a BAR is in the way of something else and stays unmapped"
                        );
                    }
                    How::Refused
                }
            };
            placed.insert(
                key,
                Placed {
                    base,
                    kind: bar.kind,
                    how,
                },
            );
        }
    }

    fn put(&self, function: &Arc<dyn PciFunction>, bar: &Bar, base: u64) -> Result<How, String> {
        let registers = Arc::new(BarRegisters {
            function: Arc::clone(function),
            bar: bar.index,
        });
        if bar.kind == BarKind::Io {
            return on_bus(&self.pio, base, bar.size, registers);
        }
        match function.bar_memory(bar.index) {
            Some(memory) => {
                let id = self.mapper.map(base, &memory);
                let id = id.map_err(|error| error.to_string())?;
                if !memory.read_only {
                    return Ok(How::Memory(id));
                }
                // Writes to read-only memory come out as accesses to the bus.
                on_bus(&self.mmio, base, bar.size, registers).inspect_err(|_| {
                    self.mapper.unmap(id);
                })?;
                Ok(How::ReadOnly(id))
            }
            None => on_bus(&self.mmio, base, bar.size, registers),
        }
    }

    fn take_away(&self, old: Placed) {
        match old.how {
            How::Memory(id) => self.mapper.unmap(id),
            How::ReadOnly(id) => {
                self.mapper.unmap(id);
                self.mmio.remove(old.base);
            }
            How::Registers if old.kind == BarKind::Io => self.pio.remove(old.base),
            How::Registers => self.mmio.remove(old.base),
            How::Refused => {}
        }
    }

    /// Tells every function that all of its configuration space may have changed.
    fn announce(&self) {
        self.place_bars();
        let functions: Vec<_> = self.functions.read().values().cloned().collect();
        for function in functions {
            function.config_written(0, 0x1000);
        }
    }
}

/// Where `bar` decodes, without the places that only a sizing probe writes.
fn decoded_base(bar: &Bar) -> Option<u64> {
    let top = match bar.kind {
        BarKind::Io => 0xffff,
        BarKind::Mem32 => 0xffff_ffff,
        BarKind::Mem64 => u64::MAX,
    };
    bar.base.filter(|&base| {
        let last = base.checked_add(bar.size - 1);
        base != 0 && last.is_some_and(|last| last < top)
    })
}

fn on_bus(bus: &Bus, base: u64, len: u64, device: Arc<BarRegisters>) -> Result<How, String> {
    bus.insert(base, len, device)
        .map(|()| How::Registers)
        .map_err(|error: BusError| error.to_string())
}

/// A BAR that is registers, as a device on a bus.
struct BarRegisters {
    function: Arc<dyn PciFunction>,
    bar: u8,
}

impl BusDevice for BarRegisters {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.function.bar_read(self.bar, offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.function.bar_write(self.bar, offset, data);
    }
}

impl EcamPlacement for PciRoot {
    fn place(&self, window: Option<EcamWindow>) {
        let mut current = self.ecam.lock();
        if *current == window {
            return;
        }
        if let Some(old) = current.take() {
            self.mmio.remove(old.base);
        }
        let (Some(new), Some(root)) = (window, self.me.upgrade()) else {
            return;
        };
        match self.mmio.insert(new.base, new.len, Arc::new(Ecam { root })) {
            Ok(()) => *current = Some(new),
            Err(error) => {
                tracing::warn!(%error, "the PCI Express configuration window stays unmapped");
            }
        }
    }
}

/// The enhanced configuration access mechanism (PCIe 7.2.2): 4 KiB a function, 1 MiB a bus.
struct Ecam {
    root: Arc<PciRoot>,
}

impl Ecam {
    fn target(offset: u64) -> (PciAddress, u16) {
        let rid = (offset >> 12) as u16;
        (PciAddress::from_rid(rid), (offset & 0xfff) as u16)
    }
}

impl BusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let (address, register) = Self::target(offset);
        self.root.config_read(address, register, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let (address, register) = Self::target(offset);
        self.root.config_write(address, register, data);
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootState {
    functions: BTreeMap<PciAddress, ConfigState>,
}

/// The state is the configuration space of every function. What is behind the functions is theirs
/// to save; restore the root first.
impl Lifecycle for PciRoot {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn reset(&self) {
        for function in self.functions.read().values() {
            function.config().lock().reset();
        }
        self.announce();
    }

    fn save(&self) -> Result<Payload, StateError> {
        let functions = self.functions.read();
        let of = |(&address, function): (&PciAddress, &Arc<dyn PciFunction>)| {
            (address, function.config().lock().save())
        };
        let state = RootState {
            functions: functions.iter().map(of).collect(),
        };
        let body = serde_json::to_value(state)
            .map_err(|source| StateError::Malformed { kind: KIND, source })?;
        Ok(Payload {
            kind: KIND.to_owned(),
            version: VERSION,
            body,
        })
    }

    fn restore(&self, payload: &Payload) -> Result<(), StateError> {
        let state: RootState = payload.read(KIND, VERSION)?;
        let functions = self.functions.read().clone();
        if !functions.keys().eq(state.functions.keys()) {
            let list = |keys: Vec<&PciAddress>| {
                let texts: Vec<_> = keys.iter().map(ToString::to_string).collect();
                texts.join(", ")
            };
            return Err(StateError::Invalid {
                kind: KIND,
                what: format!(
                    "it has functions at {}, this machine at {}",
                    list(state.functions.keys().collect()),
                    list(functions.keys().collect()),
                ),
            });
        }
        if let Some(offset) = state.functions.values().find_map(ConfigState::bad_offset) {
            return Err(StateError::Invalid {
                kind: KIND,
                what: format!("configuration space offset {offset:#x} is over 0xfff"),
            });
        }
        for (address, config) in &state.functions {
            if let Some(function) = functions.get(address) {
                function.config().lock().restore(config)?;
            }
        }
        self.announce();
        Ok(())
    }
}
