//! Between a display and everybody who looks at it: who must be told what.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::geometry::Rect;
use crate::region::{Region, Scan};
use crate::source::{ClientCapabilities, DisplayObserver, DisplaySource, Update};

/// What changed on a display since one client last looked. Bounded, whatever the client does.
#[derive(Debug, Default)]
pub(crate) struct Viewer {
    state: Mutex<ViewerState>,
    /// Rung for every change, and by the channel's own reader.
    pub(crate) wake: Notify,
}

#[derive(Debug, Default)]
struct ViewerState {
    damage: Region,
    scan: Scan,
    layout_changed: bool,
}

impl Viewer {
    /// Whether the layout changed since the last call.
    pub(crate) fn take_layout_change(&self) -> bool {
        std::mem::take(&mut self.state.lock().layout_changed)
    }

    /// Makes [`Viewer::take_layout_change`] return `true`.
    pub(crate) fn recheck_layout(&self) {
        self.state.lock().layout_changed = true;
    }

    pub(crate) fn has_damage(&self) -> bool {
        !self.state.lock().damage.is_empty()
    }

    /// Whether the next piece is the first of another pass over the damage.
    pub(crate) fn begins_pass(&self) -> bool {
        let state = self.state.lock();
        state.damage.is_passed(&state.scan)
    }

    /// Forgets all damage but `whole`.
    pub(crate) fn restart(&self, whole: Rect) {
        let mut state = self.state.lock();
        state.damage.clear();
        state.damage.add(whole);
        state.scan = Scan::default();
    }

    /// The next piece of damage inside of `bounds`, of at most `max_pixels`.
    pub(crate) fn take_damage(&self, bounds: Rect, max_pixels: u32) -> Option<Rect> {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.damage.clip(bounds);
        state.damage.take(&mut state.scan, max_pixels)
    }
}

/// Observes one display on behalf of all clients.
pub(crate) struct Hub {
    pub(crate) source: Arc<dyn DisplaySource>,
    audience: Mutex<Audience>,
}

#[derive(Default)]
struct Audience {
    viewers: Vec<(Arc<Viewer>, u32)>,
    cursors: Vec<Arc<Notify>>,
}

impl Hub {
    /// A hub that `source` tells of its changes.
    pub(crate) fn new(source: Arc<dyn DisplaySource>) -> Arc<Self> {
        let hub = Arc::new(Self {
            source,
            audience: Mutex::default(),
        });
        let observer: Weak<dyn DisplayObserver> = Arc::<Self>::downgrade(&hub);
        hub.source.observe(observer);
        hub
    }

    /// Adds a client with this first word of display capabilities, until the guard is dropped.
    pub(crate) fn view(self: &Arc<Self>, capabilities: u32) -> ViewGuard {
        let viewer = Arc::new(Viewer::default());
        viewer.recheck_layout();
        self.audience
            .lock()
            .viewers
            .push((viewer.clone(), capabilities));
        self.tell_source();
        ViewGuard {
            hub: self.clone(),
            viewer,
        }
    }

    /// Adds somebody who wants to know of the cursor, until the guard is dropped.
    pub(crate) fn watch_cursor(self: &Arc<Self>, wake: Arc<Notify>) -> CursorGuard {
        self.audience.lock().cursors.push(wake.clone());
        CursorGuard {
            hub: self.clone(),
            wake,
        }
    }

    fn tell_source(&self) {
        let clients = {
            let audience = self.audience.lock();
            let all = audience.viewers.iter().map(|&(_, bits)| bits);
            ClientCapabilities {
                present: !audience.viewers.is_empty(),
                bits: all.reduce(|a, b| a & b).unwrap_or(0),
            }
        };
        self.source.clients_changed(clients);
    }
}

impl DisplayObserver for Hub {
    fn updated(&self, updates: &[Update]) {
        for (viewer, _) in &self.audience.lock().viewers {
            {
                let mut state = viewer.state.lock();
                for update in updates {
                    match update {
                        Update::Pixels(rect) => state.damage.add(*rect),
                    }
                }
            }
            viewer.wake.notify_one();
        }
    }

    fn layout_changed(&self) {
        for (viewer, _) in &self.audience.lock().viewers {
            viewer.recheck_layout();
            viewer.wake.notify_one();
        }
    }

    fn cursor_changed(&self) {
        for wake in &self.audience.lock().cursors {
            wake.notify_one();
        }
    }
}

/// A client that looks at a display.
pub(crate) struct ViewGuard {
    hub: Arc<Hub>,
    pub(crate) viewer: Arc<Viewer>,
}

impl ViewGuard {
    pub(crate) fn source(&self) -> &dyn DisplaySource {
        &*self.hub.source
    }
}

impl Drop for ViewGuard {
    fn drop(&mut self) {
        self.hub
            .audience
            .lock()
            .viewers
            .retain(|(viewer, _)| !Arc::ptr_eq(viewer, &self.viewer));
        self.hub.tell_source();
    }
}

/// Somebody who wants to know of a display's cursor.
pub(crate) struct CursorGuard {
    hub: Arc<Hub>,
    pub(crate) wake: Arc<Notify>,
}

impl CursorGuard {
    pub(crate) fn source(&self) -> &dyn DisplaySource {
        &*self.hub.source
    }
}

impl Drop for CursorGuard {
    fn drop(&mut self) {
        self.hub
            .audience
            .lock()
            .cursors
            .retain(|wake| !Arc::ptr_eq(wake, &self.wake));
    }
}
