//! What people do at a client: keys, pointer, and the lamps of the keyboard.

/// A key going down or up, as the bytes that a PC keyboard sends in scancode set 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Set 1 make code without prefix, 0x01 to 0x7f.
    pub code: u8,
    /// Whether the prefix 0xe0 comes before it.
    pub extended: bool,
}

impl Key {
    /// The Pause key, which has no code of its own: a PC keyboard sends e1 1d 45 when it goes down
    /// and e1 9d c5 when it goes up, and so should whoever emulates one.
    pub const PAUSE: Self = Self {
        code: 0x45,
        extended: true,
    };
}

/// Lock keys: what a client believes or the guest's lamps show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Locks {
    /// Scroll lock.
    pub scroll: bool,
    /// Num lock.
    pub num: bool,
    /// Caps lock.
    pub caps: bool,
}

/// Pressed buttons of a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Buttons {
    /// Left.
    pub left: bool,
    /// Middle.
    pub middle: bool,
    /// Right.
    pub right: bool,
    /// Side ("back").
    pub side: bool,
    /// Extra ("forward").
    pub extra: bool,
}

/// What a pointer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointerEvent {
    /// Moved by this many pixels (server mouse mode).
    Motion {
        /// To the right.
        dx: i32,
        /// Down.
        dy: i32,
    },
    /// Moved to a place on a display's primary surface (client mouse mode).
    Position {
        /// Pixels from the left.
        x: u32,
        /// Pixels from the top.
        y: u32,
        /// Which display channel.
        display: u8,
    },
    /// These buttons are pressed now.
    Buttons(Buttons),
    /// The wheel turned by this many notches, up (away from the user) positive.
    Wheel(i32),
}

/// Whoever takes input: a machine's keyboard and pointer.
///
/// Calls come from the server's threads and must not wait for the guest.
pub trait InputSink: Send + Sync {
    /// A key went down or up.
    fn key(&self, key: Key, down: bool);
    /// The pointer did something.
    fn pointer(&self, event: PointerEvent);
    /// The guest's lamps.
    fn locks(&self) -> Locks;
    /// Whether the guest listens to an absolute pointer now, so that client mouse mode works.
    fn absolute(&self) -> bool;
}

/// Takes nothing.
impl InputSink for () {
    fn key(&self, _: Key, _: bool) {}
    fn pointer(&self, _: PointerEvent) {}
    fn locks(&self) -> Locks {
        Locks::default()
    }
    fn absolute(&self) -> bool {
        false
    }
}
