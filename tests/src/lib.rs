//! What the end-to-end tests share: the guests, a machine under the built program, the clients that
//! others wrote, and pictures to compare.
//!
//! The tests themselves are in `tests/tests/e2e/`, one file a promise. They need `/dev/kvm` and what
//! `tests/scripts/install.sh test` installs, and take the program from `CARAWAY_BIN`, or else from
//! cargo's target folder.

// All of this is test code: a failed step ends the test, with what failed.
#![allow(clippy::unwrap_used, clippy::panic)]

pub mod agent;
pub mod api;
pub mod browser;
pub mod certificates;
pub mod cinema;
pub mod client;
pub mod flood;
pub mod glib_agent;
pub mod guest;
pub mod hold;
pub mod kerbside;
pub mod latency;
pub mod link;
pub mod netns;
pub mod picture;
pub mod process;
pub mod pulse;
pub mod qemu;
pub mod screen;
pub mod server;
pub mod throttle;
pub mod ticks;
pub mod usage;
pub mod vm;
pub mod wait;
