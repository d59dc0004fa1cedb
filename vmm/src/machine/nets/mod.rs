//! Network cards and what they are joined to.

mod passt;
mod rejoin;
mod stream;
mod tap;

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use caraway_virtio::net::{Backend, Limits, Traffic};
use caraway_virtio::{Net, NetConfig, VirtioPci};
use vm_memory::VolatileSlice;

use super::event_loop::Source;
use super::notices::{Notice, Notices};
use super::virtio::Slots;
use crate::config::net::{NetSpec, NetTo};
use crate::exit::{Exit, Failure};
use crate::metrics::Metrics;

pub use passt::PASST;

use passt::Passt;
use rejoin::{Rejoin, Watch};
use tap::{Tap, TapError};

/// The host's ends of a card, opened and not yet joined to it.
pub struct NetEnds {
    ends: Vec<End>,
    /// Where the next end comes from once the first one is gone.
    passt: Option<Passt>,
}

/// One of them: what moves frames, and what tells that there is something to do.
struct End(Box<dyn Backend>, RawFd);

impl End {
    fn new<T: Backend + AsRawFd + 'static>(end: T) -> Self {
        let fd = end.as_raw_fd();
        Self(Box::new(end), fd)
    }
}

impl NetEnds {
    /// Opens what each of `specs` names.
    ///
    /// # Errors
    /// Something is not there, or not ours to use.
    pub fn open(specs: &[NetSpec]) -> Result<Vec<Self>, Failure> {
        let open = |(index, spec): (usize, &NetSpec)| {
            let failed = |key: &str, error: &dyn std::error::Error, hint: String| {
                Failure::of(Exit::Resource, error)
                    .context(format!("nets[{index}].{key}"))
                    .hint(hint)
            };
            let tap = |error: TapError| failed("tap", &error, error.hint());
            let passt = match &spec.to {
                NetTo::Tap(name) => {
                    return Ok(Self::taps(Tap::open(name, spec.queues).map_err(tap)?));
                }
                NetTo::TapFd(fd) => return Ok(Self::taps(vec![Tap::adopt(*fd).map_err(tap)?])),
                NetTo::User(user) => Passt::Own {
                    spec: user.clone(),
                    mtu: spec.mtu,
                },
                NetTo::Passt(path) => Passt::Running(path.clone()),
            };
            let stream = passt.join();
            let stream = stream.map_err(|error| failed(passt.key(), &error, error.hint()))?;
            Ok(Self {
                ends: vec![End::new(stream)],
                passt: Some(passt),
            })
        };
        specs.iter().enumerate().map(open).collect()
    }

    fn taps(taps: Vec<Tap>) -> Self {
        Self {
            ends: taps.into_iter().map(End::new).collect(),
            passt: None,
        }
    }
}

/// A network card of the machine.
pub struct NetCard {
    id: String,
    device: Arc<Net>,
    pci: Arc<VirtioPci<Net>>,
    rejoin: Option<Arc<Rejoin>>,
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
        let NetEnds { ends, passt } = ends;
        let rejoin = passt.map(|passt| Rejoin::new(passt, index, Arc::clone(notices)));
        let rejoin = rejoin.transpose().map_err(|error| failed(&error))?;
        let timer = slots.timers.timer().map_err(|error| failed(&error))?;
        let heard = Arc::clone(notices);
        let (backends, descriptors): (_, Vec<_>) =
            ends.into_iter().map(|End(b, fd)| (b, fd)).unzip();
        let device = Arc::new(Net::new(NetConfig {
            mac: spec.mac.0,
            mtu: spec.mtu,
            backends,
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
        for (pair, fd) in descriptors.into_iter().enumerate() {
            let (net, rejoin) = (Arc::clone(&device), rejoin.clone());
            let watch = Watch::new(net, pair, fd, rejoin);
            slots.board.sources.push(Source::own(watch));
        }
        Ok(Self {
            id: spec.id.clone(),
            device,
            pci,
            rejoin,
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

    /// Tells the guest that the host's end is gone, or there again.
    pub fn tell_link(&self) {
        self.pci.config_changed();
    }

    /// Has another host's end looked for in place of one that is gone, if there can be one. Once it is
    /// there, there is [`Notice::NetJoined`].
    pub fn rejoin(&self) {
        if let Some(rejoin) = &self.rejoin {
            rejoin.begin();
        }
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

/// A piece of guest memory for the kernel.
fn guest_vector(slice: &VolatileSlice<'_>) -> libc::iovec {
    libc::iovec {
        iov_base: slice.ptr_guard_mut().as_ptr().cast(),
        iov_len: slice.len(),
    }
}
