//! A SPICE server for any program that has pixels.
//!
//! The program implements [`DisplaySource`] for what it shows and [`InputSink`] for what it takes,
//! and gives both to a server.

pub mod geometry;
pub mod input;
pub mod source;

pub use geometry::{Point, Rect, Size};
pub use input::{Buttons, InputSink, Key, Locks, PointerEvent};
pub use source::{
    ClientCapabilities, CursorImage, CursorKind, CursorState, DisplayObserver, DisplaySource, Head,
    HeadRequest, Layout, PixelFormat, Update,
};
