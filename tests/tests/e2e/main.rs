//! The program on `/dev/kvm`, with tiny guests and clients that others wrote; a module for each subject.
//!
//! One binary has them all, as each would be linked with the same crates.

mod abuse;
mod agent;
mod bad_clients;
mod bad_input;
mod balloon;
mod browser;
mod canvas;
mod channels;
mod compressions;
mod console_ports;
mod devices;
mod disks;
mod display;
mod film;
mod floods;
mod guest_agent;
mod hostile_guest;
mod hotplug;
mod memory;
mod net;
mod outcomes;
mod proxy;
mod rng;
mod secure;
mod sessions;
mod slow_link;
mod stalled_viewer;
mod stills;
mod time;
mod vmgenid;
mod vsock;
