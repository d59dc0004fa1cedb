//! What a server makes reachable: the devices of whatever it serves.

use std::fmt;
use std::sync::Arc;

use crate::input::InputSink;
use crate::source::DisplaySource;

/// The devices behind a [`Server`](crate::Server). Clients are offered channels for those that are
/// there; none is needed:
///
/// ```
/// # use caraway_spice::{Devices, Framebuffer, Size};
/// # let screen = Framebuffer::new(Size { width: 8, height: 8 });
/// let devices = Devices { displays: vec![screen], ..Devices::default() };
/// ```
#[derive(Clone)]
pub struct Devices {
    /// Each becomes a display channel and a cursor channel of its number; at most 256 of them.
    pub displays: Vec<Arc<dyn DisplaySource>>,
    /// Takes the keys and the pointer of all clients.
    pub inputs: Arc<dyn InputSink>,
}

impl Default for Devices {
    fn default() -> Self {
        Self {
            displays: Vec::new(),
            inputs: Arc::new(()),
        }
    }
}

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Devices")
            .field("displays", &self.displays.len())
            .finish_non_exhaustive()
    }
}
