//! Tests of the whole device through what a guest and a server see.

mod compat;
mod draw;
mod hostile;
mod lifecycle;
mod model;
mod ports;
mod protocol;
mod vga;
