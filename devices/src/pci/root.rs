//! The root complex: which function sits where, and which addresses its BARs decode.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::host_bridge::{EcamPlacement, EcamWindow};
use super::{
    Bar, BarKind, ConfigState, MappingId, MemoryMapper, PciAddress, PciFunction, RootPort,
    SlotTaken,
};
use crate::bus::{Bus, BusDevice, BusError};
use crate::state::{Lifecycle, Payload, StateError};

const KIND: &str = "pci-root";
const VERSION: u32 = 1;

/// What can be said of offset and length so that a write may move a BAR: command register, BARs
/// and expansion ROM, and of a bridge its windows.
const BAR_REGISTERS: [std::ops::Range<u16>; 2] = [0x04..0x06, 0x10..0x34];

/// Why a function could not be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// There is a function at this address already.
    #[error("the PCI address {address} is taken")]
    Taken {
        /// The address asked for.
        address: PciAddress,
    },
    /// Functions have places of their own on bus 0 only; others are in slots.
    #[error("the PCI address {address} is not on bus 0")]
    Bus {
        /// The address asked for.
        address: PciAddress,
    },
    /// There is no slot behind this address.
    #[error("there is no root port at {address}")]
    NoPort {
        /// The address asked for.
        address: PciAddress,
    },
    /// There is a device in the slot behind this address.
    #[error("the slot of the root port at {address} can't take the device")]
    Slot {
        /// The port's address.
        address: PciAddress,
        /// Why.
        #[source]
        source: SlotTaken,
    },
}

/// Bus 0 of the machine, and the buses behind its root ports: their functions, the configuration
/// spaces, and the BARs on the guest's address spaces.
///
/// BARs go where the guest puts them. One that is in the way of something else is left out, with a
/// warning, until any BAR moves again; so is one at address 0 or at the top of its address space,
/// where a sizing probe puts it for a moment.
pub struct PciRoot {
    me: Weak<PciRoot>,
    functions: RwLock<BTreeMap<PciAddress, Arc<dyn PciFunction>>>,
    /// Those of the functions that are root ports.
    ports: RwLock<BTreeMap<PciAddress, Arc<RootPort>>>,
    mmio: Arc<Bus>,
    pio: Arc<Bus>,
    mapper: Arc<dyn MemoryMapper>,
    bars: Mutex<BTreeMap<BarKey, Placed>>,
    ecam: Mutex<Option<EcamWindow>>,
}

/// Function and BAR number.
type BarKey = (Place, u8);

/// Where a function is, whatever numbers the guest gives buses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// On bus 0.
    Root(PciAddress),
    /// In the slot of the root port there.
    Slot(PciAddress),
}

/// A function, and where it is.
struct Located {
    place: Place,
    function: Arc<dyn PciFunction>,
    /// What it is behind.
    port: Option<Arc<RootPort>>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root(address) => address.fmt(f),
            Self::Slot(port) => write!(f, "the slot of {port}"),
        }
    }
}

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
            ports: RwLock::default(),
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

    /// Puts the root port `port` at `address`.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_port(&self, address: PciAddress, port: Arc<RootPort>) -> Result<(), RootError> {
        self.add(address, port.clone())?;
        self.ports.write().insert(address, port);
        Ok(())
    }

    /// The root port at `address`.
    #[must_use]
    pub fn port(&self, address: PciAddress) -> Option<Arc<RootPort>> {
        self.ports.read().get(&address).cloned()
    }

    /// Puts `function` into the slot of the root port at `address`, and tells the guest.
    ///
    /// # Errors
    /// [`RootError`] if there is no such port or its slot is taken.
    pub fn plug(
        &self,
        address: PciAddress,
        function: Arc<dyn PciFunction>,
    ) -> Result<(), RootError> {
        let port = self.port(address).ok_or(RootError::NoPort { address })?;
        port.plug(function)
            .map_err(|source| RootError::Slot { address, source })
    }

    /// Takes what is in the slot of the root port at `address` away, with its BARs, and tells the
    /// guest.
    pub fn unplug(&self, address: PciAddress) -> Option<Arc<dyn PciFunction>> {
        let function = self.port(address)?.unplug()?;
        let mut placed = self.bars.lock();
        let gone: Vec<BarKey> = placed
            .keys()
            .filter(|(place, _)| *place == Place::Slot(address))
            .copied()
            .collect();
        for key in gone {
            if let Some(old) = placed.remove(&key) {
                self.take_away(old);
                function.bar_moved(key.1, None);
            }
        }
        Some(function)
    }

    /// The function that the guest finds at `address`.
    #[must_use]
    pub fn function(&self, address: PciAddress) -> Option<Arc<dyn PciFunction>> {
        if address.bus() == 0 {
            return self.functions.read().get(&address).cloned();
        }
        if (address.device(), address.function()) != (0, 0) {
            return None;
        }
        let ports = self.ports.read();
        ports.values().find_map(|port| port.on_bus(address.bus()))
    }

    /// Every function, with the port that it is behind.
    fn places(&self) -> Vec<Located> {
        let functions = self.functions.read();
        let on_root = functions.iter().map(|(&address, function)| Located {
            place: Place::Root(address),
            function: Arc::clone(function),
            port: None,
        });
        let ports = self.ports.read();
        let in_slots = ports.iter().filter_map(|(&address, port)| {
            Some(Located {
                place: Place::Slot(address),
                function: port.device()?,
                port: Some(Arc::clone(port)),
            })
        });
        on_root.chain(in_slots).collect()
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
        let mut placed = self.bars.lock();
        let places = self.places();
        let mut wanted = Vec::new();
        for Located {
            place,
            function,
            port,
        } in &places
        {
            let bars = function.config().lock().bars();
            for bar in bars {
                let key = (*place, bar.index);
                let base = decoded_base(&bar);
                let base = base.filter(|_| port.as_ref().is_none_or(|port| port.passes_on(&bar)));
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
        for located in self.places() {
            located.function.config_restored();
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
    /// Of bus 0.
    functions: BTreeMap<PciAddress, ConfigState>,
    /// In the slots of the root ports there.
    slots: BTreeMap<PciAddress, ConfigState>,
}

impl RootState {
    fn of(&self, place: Place) -> Option<&ConfigState> {
        match place {
            Place::Root(address) => self.functions.get(&address),
            Place::Slot(port) => self.slots.get(&port),
        }
    }

    fn places(&self) -> Vec<Place> {
        let on_root = self.functions.keys().copied().map(Place::Root);
        let in_slots = self.slots.keys().copied().map(Place::Slot);
        on_root.chain(in_slots).collect()
    }
}

/// The state is the configuration space of every function. What is behind the functions is theirs
/// to save; restore the root first.
impl Lifecycle for PciRoot {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn reset(&self) {
        for located in self.places() {
            located.function.config().lock().reset();
        }
        self.announce();
    }

    fn save(&self) -> Result<Payload, StateError> {
        let mut state = RootState {
            functions: BTreeMap::new(),
            slots: BTreeMap::new(),
        };
        for located in self.places() {
            let config = located.function.config().lock().save();
            match located.place {
                Place::Root(address) => state.functions.insert(address, config),
                Place::Slot(port) => state.slots.insert(port, config),
            };
        }
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
        let places = self.places();
        let here: Vec<Place> = places.iter().map(|located| located.place).collect();
        if here != state.places() {
            let list = |places: &[Place]| {
                let texts: Vec<_> = places.iter().map(ToString::to_string).collect();
                texts.join(", ")
            };
            return Err(StateError::Invalid {
                kind: KIND,
                what: format!(
                    "it has functions at {}, this machine at {}",
                    list(&state.places()),
                    list(&here),
                ),
            });
        }
        let mut configs = state.functions.values().chain(state.slots.values());
        if let Some(offset) = configs.find_map(ConfigState::bad_offset) {
            return Err(StateError::Invalid {
                kind: KIND,
                what: format!("configuration space offset {offset:#x} is over 0xfff"),
            });
        }
        for Located {
            place, function, ..
        } in &places
        {
            if let Some(config) = state.of(*place) {
                function.config().lock().restore(config)?;
            }
        }
        self.announce();
        Ok(())
    }
}
