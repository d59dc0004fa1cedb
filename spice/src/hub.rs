//! Between a display and everybody who looks at it: who must be told what.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::damage::{Damage, Move, Next};
use crate::geometry::{Rect, Size};
use crate::source::{ClientCapabilities, DisplayObserver, DisplaySource, Update};
use crate::video::motion::{Film, Motion};
use crate::video::streams::Knowledge;

/// What changed on a display since one client last looked. Bounded, whatever the client does.
#[derive(Debug)]
pub(crate) struct Viewer {
    state: Mutex<ViewerState>,
    /// Rung for changes that somebody waits for, and by the channel's own reader.
    pub(crate) wake: Notify,
}

#[derive(Debug)]
struct ViewerState {
    damage: Damage,
    layout_changed: bool,
    sender: SenderState,
}

/// When more damage is news. A sender that waits for its client's link asks by itself once there is
/// room, however much is drawn meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SenderState {
    Busy,
    /// It has nothing to send.
    Waiting,
    /// It has nothing to send before.
    Until(Instant),
}

impl Viewer {
    fn new() -> Self {
        Self {
            state: Mutex::new(ViewerState {
                damage: Damage::new(Size::default(), Instant::now()),
                layout_changed: true,
                sender: SenderState::Waiting,
            }),
            wake: Notify::new(),
        }
    }

    /// Whether the layout changed since the last call.
    pub(crate) fn take_layout_change(&self) -> bool {
        std::mem::take(&mut self.state.lock().layout_changed)
    }

    /// Makes [`Viewer::take_layout_change`] return `true`.
    pub(crate) fn recheck_layout(&self) {
        self.state.lock().layout_changed = true;
    }

    /// Forgets all damage; what is drawn on a surface of this size is damage from here on, while
    /// all of it is read.
    pub(crate) fn restart(&self, size: Size) {
        self.state.lock().damage = Damage::of_read(size, Instant::now());
    }

    /// More damage, or damage again.
    pub(crate) fn add_damage(&self, rect: Rect) {
        self.state.lock().damage.add(rect);
    }

    /// What to send next, in about so many bytes, in haste or not. If that is nothing, [`Viewer::wake`] rings
    /// for more damage.
    pub(crate) fn take_damage(&self, budget: usize, haste: bool) -> Next {
        let mut state = self.state.lock();
        let next = state.damage.take(Instant::now(), budget, haste);
        state.sender = match next {
            Next::Copy(_) | Next::Piece(_) | Next::Refinement(_) => SenderState::Busy,
            Next::At(time) => SenderState::Until(time),
            Next::Nothing => SenderState::Waiting,
        };
        next
    }

    /// From here on these areas go as pictures of films.
    pub(crate) fn set_films(&self, films: Vec<Rect>) {
        self.state.lock().damage.set_films(films);
    }

    /// Takes what is new of a film, for a picture that is read next; see [`Damage::begin_picture`].
    pub(crate) fn begin_picture(&self, films: Vec<Rect>, film: Rect) -> bool {
        self.state.lock().damage.begin_picture(films, film)
    }

    /// Whether the client has to copy pixels before it gets any.
    pub(crate) fn has_copies(&self) -> bool {
        self.state.lock().damage.has_copies()
    }

    /// These pixels of a piece that was taken are not sent yet.
    pub(crate) fn put_damage_back(&self, rest: Rect) {
        self.state.lock().damage.put_back(rest);
    }

    /// A piece took this many bytes and was sent, exactly or as a lossy image.
    pub(crate) fn sent_damage(&self, piece: Rect, bytes: usize, is_exact: bool) {
        let (damage, now) = (&mut self.state.lock().damage, Instant::now());
        if is_exact {
            damage.sent(piece, bytes, now);
        } else {
            damage.sent_lossy(piece, bytes, now);
        }
    }

    /// The client has all of `area` in one colour, for this many bytes.
    pub(crate) fn filled(&self, area: Rect, bytes: usize) {
        self.state.lock().damage.filled(area, bytes, Instant::now());
    }

    /// Bytes that all damage is likely to take if it is sent exactly.
    pub(crate) fn exact_bytes(&self) -> f64 {
        self.state.lock().damage.exact_bytes()
    }

    /// A piece would take this many bytes, which is too much at once: it is damage again.
    pub(crate) fn refuse_damage(&self, piece: Rect, bytes: usize, is_exact: bool) {
        self.state.lock().damage.refused(piece, bytes, is_exact);
    }

    fn updated(&self, updates: &[Update]) {
        let ring = {
            let mut state = self.state.lock();
            for update in updates {
                match update {
                    Update::Pixels(rect) => state.damage.add(*rect),
                    Update::Copy { from, to } => {
                        state.damage.copied(Move {
                            from: *from,
                            to: *to,
                        });
                    }
                }
            }
            let is_news = match (state.damage.news(), state.sender) {
                (None, _) | (_, SenderState::Busy) => false,
                (Some(_), SenderState::Waiting) => true,
                (Some(due), SenderState::Until(time)) => due < time,
            };
            if is_news {
                state.sender = SenderState::Busy;
            }
            is_news
        };
        if ring {
            self.wake.notify_one();
        }
    }
}

impl Knowledge for Viewer {
    fn density(&self, area: Rect) -> f64 {
        self.state.lock().damage.density(area)
    }

    fn is_damaged(&self, area: Rect) -> bool {
        self.state.lock().damage.touches(area)
    }
}

/// Observes one display on behalf of all clients.
pub(crate) struct Hub {
    pub(crate) source: Arc<dyn DisplaySource>,
    audience: Mutex<Audience>,
    motion: Mutex<Watched>,
}

/// Where films are, on the surface that clients know.
struct Watched {
    generation: u64,
    size: Size,
    motion: Motion,
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
            motion: Mutex::new(Watched {
                generation: 0,
                size: Size::default(),
                motion: Motion::new(Size::default(), Instant::now()),
            }),
        });
        let observer: Weak<dyn DisplayObserver> = Arc::<Self>::downgrade(&hub);
        hub.source.observe(observer);
        hub
    }

    /// Adds a client with this first word of display capabilities, until the guard is dropped.
    pub(crate) fn view(self: &Arc<Self>, capabilities: u32) -> ViewGuard {
        let viewer = Arc::new(Viewer::new());
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

    /// The films of now on this surface.
    fn films(&self, generation: u64, size: Size, now: Instant) -> Vec<Film> {
        let mut watched = self.motion.lock();
        if generation < watched.generation {
            return Vec::new();
        }
        if (watched.generation, watched.size) != (generation, size) {
            (watched.generation, watched.size) = (generation, size);
            watched.motion.restart(size, now);
        }
        watched.motion.films(now)
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
        let now = Instant::now();
        let mut watched = self.motion.lock();
        for update in updates {
            // What is only moved is no new picture.
            if let Update::Pixels(rect) = update {
                watched.motion.updated(*rect, now);
            }
        }
        drop(watched);
        for (viewer, _) in &self.audience.lock().viewers {
            viewer.updated(updates);
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
    pub(crate) fn source(&self) -> &Arc<dyn DisplaySource> {
        &self.hub.source
    }

    /// The films of now on this surface.
    pub(crate) fn films(&self, generation: u64, size: Size, now: Instant) -> Vec<Film> {
        self.hub.films(generation, size, now)
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
