//! Network cards and what they are joined to.

mod tap;

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use caraway_virtio::net::{Backend, Limits, Traffic};
use caraway_virtio::{Net, NetConfig, VirtioPci};
use event_manager::{EventOps, Events, MutEventSubscriber};
use vmm_sys_util::epoll::EventSet;

use super::event_loop::Source;
use super::notices::{Notice, Notices};
use super::virtio::Slots;
use crate::config::net::{NetSpec, NetTo};
use crate::exit::{Exit, Failure};
use crate::metrics::Metrics;

use tap::{Tap, TapError};

/// The host's ends of a card, opened and not yet joined to it.
pub struct NetEnds {
    ends: Vec<Box<dyn Backend>>,
    /// What tells that there is something to do, for each of them.
    descriptors: Vec<RawFd>,
}

impl NetEnds {
    /// Opens what each of `specs` names.
    ///
    /// # Errors
    /// Something is not there, or not ours to use.
    pub fn open(specs: &[NetSpec]) -> Result<Vec<Self>, Failure> {
        let open = |(index, spec): (usize, &NetSpec)| {
            let failed = |error: TapError| {
                let hint = error.hint();
                Failure::of(Exit::Resource, &error)
                    .context(format!("nets[{index}].tap"))
                    .hint(hint)
            };
            match &spec.to {
                NetTo::Tap(name) => Tap::open(name, spec.queues).map(Self::of).map_err(failed),
                NetTo::TapFd(fd) => Tap::adopt(*fd)
                    .map(|tap| Self::of(vec![tap]))
                    .map_err(failed),
            }
        };
        specs.iter().enumerate().map(open).collect()
    }

    fn of<T: Backend + AsRawFd + 'static>(ends: Vec<T>) -> Self {
        let descriptors = ends.iter().map(AsRawFd::as_raw_fd).collect();
        let boxed = |end| Box::new(end) as Box<dyn Backend>;
        Self {
            ends: ends.into_iter().map(boxed).collect(),
            descriptors,
        }
    }
}

/// A network card of the machine.
pub struct NetCard {
    id: String,
    device: Arc<Net>,
    pci: Arc<VirtioPci<Net>>,
}

impl NetCard {
    /// Puts the card number `index`, as `spec` describes it, on the bus.
    ///
    /// # Errors
    /// The host or the machine lacks something for it.
    pub fn attach(
        index: usize,
        spec: &NetSpec,
        ends: NetEnds,
        slots: &mut Slots<'_>,
        notices: &Arc<Notices>,
    ) -> Result<Self, Failure> {
        let failed = |error: &dyn std::error::Error| {
            Failure::of(Exit::Resource, error).context(format!("nets[{index}] can't be made"))
        };
        let timer = slots.timers.timer().map_err(|error| failed(&error))?;
        let heard = Arc::clone(notices);
        let device = Arc::new(Net::new(NetConfig {
            mac: spec.mac.0,
            mtu: spec.mtu,
            backends: ends.ends,
            receive: spec.receive,
            transmit: spec.transmit,
            clock: slots.clock.clone(),
            timer: timer.clone(),
            lost: Box::new(move |error| {
                let reason = error.to_string();
                heard.post(Notice::NetLost { index, reason });
            }),
        }));
        let pci = slots
            .attach_to_loop(spec.address, Arc::clone(&device))
            .map_err(|error| failed(&error))?;
        let expired = Arc::clone(&device);
        slots.serve_timer(timer, move || expired.expired());
        for (pair, fd) in ends.descriptors.into_iter().enumerate() {
            let net = Arc::clone(&device);
            slots
                .board
                .sources
                .push(Source::own(Watch { net, pair, fd }));
        }
        Ok(Self {
            id: spec.id.clone(),
            device,
            pci,
        })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The card itself.
    #[must_use]
    pub fn device(&self) -> &Net {
        &self.device
    }

    /// Puts its cable in or pulls it; whether that changes anything.
    pub fn set_link(&self, up: bool) -> bool {
        let changed = self.device.set_link(up);
        if changed {
            self.pci.config_changed();
        }
        changed
    }

    /// Tells the guest that the host's end is gone.
    pub fn tell_lost(&self) {
        self.pci.config_changed();
    }

    /// Holds to other limits from now on; those that are `None` stay.
    pub fn set_limits(&self, receive: Option<Limits>, transmit: Option<Limits>) {
        let (old_receive, old_transmit) = self.device.limits();
        self.device.set_limits(
            receive.unwrap_or(old_receive),
            transmit.unwrap_or(old_transmit),
        );
    }

    /// Shows what passed.
    pub fn export(&self, metrics: &Metrics) {
        let (received, transmitted) = self.device.counters();
        for (direction, counters) in [("receive", received), ("transmit", transmitted)] {
            let labels = [("net", self.id.as_str()), ("direction", direction)];
            let count = |name, help, of: fn(Traffic) -> u64| {
                let counters = Arc::clone(counters);
                metrics.counter_of(name, help, &labels, move || of(counters.read()));
            };
            count(
                "net_packets_total",
                "Frames that passed a network card, as the guest sees them.",
                |traffic| traffic.packets,
            );
            count("net_bytes_total", "Bytes of these frames.", |traffic| {
                traffic.bytes
            });
            count(
                "net_drops_total",
                "Frames that a network card threw away.",
                |traffic| traffic.drops,
            );
        }
    }
}

/// Waits for the host's end of one pair of queues. Each event is told once: what comes of it is
/// asked for until there is no more, or until the guest has buffers again.
struct Watch {
    net: Arc<Net>,
    pair: usize,
    fd: RawFd,
}

impl MutEventSubscriber for Watch {
    fn process(&mut self, _: Events, _: &mut EventOps) {
        self.net.serve_pair(self.pair);
    }

    fn init(&mut self, ops: &mut EventOps) {
        let edges = EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED;
        if let Err(error) = ops.add(Events::new_raw(self.fd, edges)) {
            tracing::warn!(%error, "a network card's host end could not join the event loop");
        }
    }
}
