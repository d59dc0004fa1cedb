//! Tickets: who may connect, for how long, and what for.

mod permissions;

pub use permissions::Permissions;
