//! virtio-input (5.8): a tablet and a keyboard.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use caraway_devices::StateError;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress};

use crate::device::{DeviceType, VirtioDevice};
use crate::queue::{Chain, Virtqueue};

mod config;
mod event;
mod keyboard;
mod scancodes;
mod tablet;

pub use event::Event;
pub use keyboard::{Keyboard, KeyboardModel, Leds};
pub use tablet::{Button, Tablet, TabletModel};

use config::Query;
use event::EVENT_SIZE;

/// Events to the driver.
const EVENT_QUEUE: u16 = 0;
/// Lights from the driver.
const STATUS_QUEUE: u16 = 1;
/// Enough buffers for many batches; what QEMU offers.
const QUEUE_SIZES: [u16; 2] = [64, 64];
/// How many batches wait at most while the driver gives no buffers.
const MAX_PENDING: usize = 256;
/// How many events a batch of a saved state may have.
const MAX_BATCH: usize = 64;

/// Events that the guest is to see at once, without the report that ends them.
type Batch = Vec<Event>;

/// What distinguishes one input device from another.
pub trait Model: Send + Sync + 'static {
    /// The name under which it is saved.
    const KIND: &'static str;
    /// Its PCI class code.
    const PCI_CLASS: u32;
    /// What the device remembers of what was sent.
    type Data: Default + Clone + Send + Serialize + DeserializeOwned;

    /// The answer to a query of the driver; empty for none. (Not for use outside of this crate.)
    #[doc(hidden)]
    fn answer(select: u8, subsel: u8) -> Vec<u8>;

    /// The lights that are on.
    #[doc(hidden)]
    fn lights(data: &Self::Data) -> Leds {
        let _ = data;
        Leds::default()
    }

    /// The driver sent `event`; gives the lights back if it changed them.
    #[doc(hidden)]
    fn feedback(data: &mut Self::Data, event: Event) -> Option<Leds> {
        let _ = (data, event);
        None
    }
}

/// An input device; see [`Tablet`] and [`Keyboard`].
pub struct Input<M: Model> {
    inner: Mutex<Inner<M>>,
    on_leds: Option<LedSink>,
    on_listening: Option<Box<dyn Fn() + Send + Sync>>,
}

/// Whoever wants to know the keyboard's lights.
type LedSink = Box<dyn Fn(Leds) + Send + Sync>;

struct Inner<M: Model> {
    select: u8,
    subsel: u8,
    data: M::Data,
    pending: VecDeque<Batch>,
    events: Option<Arc<Virtqueue>>,
    status: Option<Arc<Virtqueue>>,
}

impl<M: Model> Default for Inner<M> {
    fn default() -> Self {
        Self {
            select: 0,
            subsel: 0,
            data: M::Data::default(),
            pending: VecDeque::new(),
            events: None,
            status: None,
        }
    }
}

/// What a snapshot keeps of an input device with data `D`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputState<D> {
    select: u8,
    subsel: u8,
    data: D,
    pending: Vec<Batch>,
}

impl<M: Model> Default for Input<M> {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            on_leds: None,
            on_listening: None,
        }
    }
}

impl<M: Model> Input<M> {
    /// Calls `hook` whenever [`is_active`](Self::is_active) may have changed.
    #[must_use]
    pub fn on_listening(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_listening = Some(Box::new(hook));
        self
    }

    fn listening_changed(&self) {
        if let Some(hook) = &self.on_listening {
            hook();
        }
    }

    /// Whether the guest listens: its driver has set the event queue up.
    #[must_use]
    pub fn is_active(&self) -> bool {
        let inner = self.inner.lock();
        inner.events.is_some()
    }

    /// Queues the batch that `make` makes of the device's data, and delivers what can be delivered.
    /// A guest without a driver gets nothing.
    fn send(&self, make: impl FnOnce(&mut M::Data, &mut VecDeque<Batch>)) {
        let mut inner = self.inner.lock();
        if inner.events.is_some() {
            let Inner { data, pending, .. } = &mut *inner;
            make(data, pending);
            inner.deliver();
        }
    }

    fn take_feedback(&self) {
        let mut leds = None;
        let mut inner = self.inner.lock();
        let Some(queue) = inner.status.clone() else {
            return;
        };
        queue.serve(|chain| {
            for event in read_events(&queue, &chain) {
                leds = M::feedback(&mut inner.data, event).or(leds);
            }
            queue.complete(chain.head, 0);
            ControlFlow::Continue(())
        });
        queue.interrupt();
        drop(inner);
        if let (Some(on_leds), Some(leds)) = (&self.on_leds, leds) {
            on_leds(leds);
        }
    }
}

impl<M: Model> Inner<M> {
    /// Delivers whole batches while the driver's buffers last.
    fn deliver(&mut self) {
        let Some(queue) = self.events.clone() else {
            return;
        };
        let mut delivered = false;
        while let Some(batch) = self.pending.front() {
            let needed = batch.len() + 1;
            if needed <= usize::from(queue.available()) {
                let batch = self.pending.pop_front().unwrap_or_default();
                for event in batch.into_iter().chain([Event::SYNC]) {
                    deliver_one(&queue, event);
                }
                delivered = true;
            } else if needed > usize::from(queue.size()) {
                self.pending.pop_front();
            } else if !(queue.want_doorbell() && needed <= usize::from(queue.available())) {
                break;
            }
        }
        if delivered {
            queue.interrupt();
        }
    }
}

fn deliver_one(queue: &Virtqueue, event: Event) {
    let Some(chain) = queue.pop() else { return };
    let bytes = event.to_bytes();
    let mut rest = &bytes[..];
    for segment in &chain.writable {
        let (now, later) = rest.split_at(rest.len().min(segment.len as usize));
        if queue.memory().write_slice(now, segment.address).is_err() {
            return queue.fail(&"an event buffer is not in RAM");
        }
        rest = later;
    }
    if rest.is_empty() {
        queue.complete(chain.head, EVENT_SIZE as u32);
    } else {
        queue.fail(&"an event buffer has fewer than 8 bytes");
    }
}

/// The events in a buffer of the driver, which has one as a rule.
fn read_events(queue: &Virtqueue, chain: &Chain) -> Vec<Event> {
    let whole = chain.readable.iter().flat_map(|segment| {
        let count = (segment.len as usize / EVENT_SIZE).min(MAX_BATCH);
        (0..count).map(|n| segment.address.0 + (n * EVENT_SIZE) as u64)
    });
    whole
        .filter_map(|address| queue.memory().read_obj(GuestAddress(address)).ok())
        .map(Event::from_bytes)
        .collect()
}

impl<M: Model> VirtioDevice for Input<M> {
    type State = InputState<M::Data>;
    const KIND: &'static str = M::KIND;
    const VERSION: u32 = 1;
    const TYPE: DeviceType = DeviceType {
        id: 18,
        pci_class: M::PCI_CLASS,
    };

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let (select, subsel) = {
            let inner = self.inner.lock();
            (inner.select, inner.subsel)
        };
        let image = config::image(select, subsel, &M::answer(select, subsel));
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (target, source) in data.iter_mut().zip(image.iter().skip(from)) {
            *target = *source;
        }
    }

    fn write_config(&self, offset: u64, data: &[u8]) {
        let mut inner = self.inner.lock();
        for (at, &byte) in (offset..).zip(data) {
            match at {
                0 => inner.select = byte,
                1 => inner.subsel = byte,
                _ => {}
            }
        }
    }

    fn start_queue(&self, queue: Arc<Virtqueue>) {
        let mut inner = self.inner.lock();
        match queue.index() {
            EVENT_QUEUE => inner.events = Some(queue),
            _ => inner.status = Some(queue),
        }
        drop(inner);
        self.listening_changed();
    }

    fn stop_queue(&self, index: u16) {
        let mut inner = self.inner.lock();
        match index {
            EVENT_QUEUE => inner.events = None,
            _ => inner.status = None,
        }
        drop(inner);
        self.listening_changed();
    }

    fn process_queue(&self, index: u16) {
        match index {
            EVENT_QUEUE => self.inner.lock().deliver(),
            STATUS_QUEUE => self.take_feedback(),
            _ => {}
        }
    }

    fn reset(&self) {
        let before = std::mem::take(&mut *self.inner.lock());
        let dark = Leds::default();
        if let Some(on_leds) = &self.on_leds
            && M::lights(&before.data) != dark
        {
            on_leds(dark);
        }
    }

    fn save(&self) -> Self::State {
        let inner = self.inner.lock();
        InputState {
            select: inner.select,
            subsel: inner.subsel,
            data: inner.data.clone(),
            pending: inner.pending.iter().cloned().collect(),
        }
    }

    fn restore(&self, state: Self::State) -> Result<(), StateError> {
        let longest = state.pending.iter().map(Vec::len).max().unwrap_or(0);
        if longest > MAX_BATCH || state.pending.len() > 2 * MAX_PENDING {
            let what = format!(
                "{} pending batches of up to {longest} events; the limits are {} and {MAX_BATCH}",
                state.pending.len(),
                2 * MAX_PENDING
            );
            return Err(StateError::Invalid {
                kind: M::KIND,
                what,
            });
        }
        let mut inner = self.inner.lock();
        inner.select = state.select;
        inner.subsel = state.subsel;
        inner.data = state.data;
        inner.pending = state.pending.into();
        Ok(())
    }
}

/// The query behind the registers, for a model's `answer`.
fn query(select: u8, subsel: u8) -> Option<Query> {
    Query::from_registers(select, subsel)
}

#[cfg(test)]
mod tests;
