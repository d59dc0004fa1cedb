//! What the fuzz targets share.
//!
//! Bytes alone rarely get past the first check of a protocol, so the targets take them as the answers
//! to questions ([`Dice`]): which message, which field, is this one damaged. Most of what comes out
//! is what a sound peer would send, and now and then something is wrong with it. Every target looks
//! at what the code under test does with it, not only at whether it panics.

pub mod client;
pub mod dice;
pub mod memory;
pub mod messages;
pub mod server;
pub mod virtio;

pub use dice::Dice;
