//! Network cards and what they are joined to.

mod inherited;
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
use super::virtio::{AttachError, Slots};
use crate::config::net::{NetSpec, NetTo};
use crate::exit::{Exit, Failure};
use crate::metrics::Metrics;

pub use inherited::Inherited;
pub use passt::PASST;

use passt::{Passt, PasstError};
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

/// Why a card is joined to nothing.
#[derive(Debug, thiserror::Error)]
pub enum NetEndError {
    /// Its tap can't be used.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// There is no user-mode network.
    #[error(transparent)]
    Passt(#[from] PasstError),
}

impl NetEndError {
    /// The key of the card's config that is to blame.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Tap(_) => "tap",
            Self::Passt(error) => error.key(),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Tap(error) => error.hint(),
            Self::Passt(error) => error.hint(),
        }
    }
}

impl NetEnds {
    /// Opens what each of `specs` names.
    ///
    /// # Errors
    /// Something is not there, or not ours to use.
    pub fn open(specs: &[NetSpec], inherited: &Inherited) -> Result<Vec<Self>, Failure> {
        let open = |(index, spec): (usize, &NetSpec)| {
            Self::open_one(spec, inherited).map_err(|error| {
                Failure::of(Exit::Resource, &error)
                    .context(format!("nets[{index}].{}", error.key()))
                    .hint(error.hint())
            })
        };
        specs.iter().enumerate().map(open).collect()
    }

    /// Opens what `spec` names; starting `passt` takes a while.
    ///
    /// # Errors
    /// It is not there, or not ours to use.
    pub fn open_one(spec: &NetSpec, inherited: &Inherited) -> Result<Self, NetEndError> {
        let passt = match &spec.to {
            NetTo::Tap(name) => return Ok(Self::taps(Tap::open(name, spec.queues)?)),
            NetTo::TapFd(fd) => return Ok(Self::taps(vec![Tap::adopt(*fd, inherited)?])),
            NetTo::User(user) => Passt::Own {
                spec: user.clone(),
                mtu: spec.mtu,
            },
            NetTo::Passt(path) => Passt::Running(path.clone()),
        };
        Ok(Self {
            ends: vec![End::new(passt.join()?)],
            passt: Some(passt),
        })
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
    spec: NetSpec,
    number: usize,
    device: Arc<Net>,
    pci: Arc<VirtioPci<Net>>,
    rejoin: Option<Arc<Rejoin>>,
}

impl NetCard {
    /// Puts the card, as `spec` describes it, on the bus. Notices name it by `number`, which no other
    /// card ever has.
    ///
    /// # Errors
    /// The host or the machine lacks something for it.
    pub fn attach(
        number: usize,
        spec: &NetSpec,
        ends: NetEnds,
        slots: &mut Slots<'_>,
        notices: &Arc<Notices>,
    ) -> Result<Self, AttachError> {
        let NetEnds { ends, passt } = ends;
        let rejoin = passt.map(|passt| Rejoin::new(passt, number, Arc::clone(notices)));
        let rejoin = rejoin.transpose().map_err(AttachError::Descriptor)?;
        let timer = slots.timers.timer().map_err(AttachError::Descriptor)?;
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
                heard.post(Notice::NetLost { number, reason });
            }),
        }));
        let pci = slots.attach_to_loop(spec.address, Arc::clone(&device))?;
        let expired = Arc::clone(&device);
        slots.serve_timer(timer, move || expired.expired());
        for (pair, fd) in descriptors.into_iter().enumerate() {
            let (net, rejoin) = (Arc::clone(&device), rejoin.clone());
            let watch = Watch::new(net, pair, fd, rejoin);
            slots.board.sources.push(Source::own(watch));
        }
        Ok(Self {
            spec: spec.clone(),
            number,
            device,
            pci,
            rejoin,
        })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.spec.id
    }

    /// What notices call it by.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// What it is joined to.
    #[must_use]
    pub fn to(&self) -> &NetTo {
        &self.spec.to
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
            let labels = [("net", self.id()), ("direction", direction)];
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
