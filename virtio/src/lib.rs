//! The virtio-pci transport and the virtio devices, one folder a device.
//!
//! Section numbers are those of the Virtual I/O Device specification, version 1.2. A device here
//! implements [`VirtioDevice`] and knows nothing of PCI; [`VirtioPci`] carries it. Nothing here
//! starts a thread: each queue has an eventfd, and whichever thread waits on it calls
//! [`VirtioPci::process_queue`].

pub mod balloon;
pub mod block;
mod chain;
pub mod console;
mod device;
pub mod input;
pub mod net;
mod poll;
mod queue;
pub mod rng;
mod split;
#[cfg(test)]
mod testing;
mod transport;
pub mod vsock;

pub use balloon::{Balloon, BalloonConfig, BalloonInfo};
pub use block::{Block, BlockConfig, BlockError, BlockWorker};
pub use console::{Console, PortConfig, PortEnd};
pub use device::{DeviceType, VirtioDevice};
pub use input::{Button, Keyboard, Leds, Tablet};
pub use net::{Net, NetConfig};
pub use queue::{Chain, Segment, Segments, Virtqueue};
pub use rng::{Rng, RngCounts};
pub use transport::{NotifyRegistrar, VirtioPci, VirtioPciError, VirtioPciState};
pub use vsock::{Vsock, VsockCounts};
