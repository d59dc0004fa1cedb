//! Caraway: a KVM virtual machine monitor that serves its own desktop over SPICE.
//!
//! [`cli`] reads the command line, [`config`] the machine's JSON file; [`machine`] runs it. What
//! people and programs ask of a running machine goes to its control loop as a
//! [`command::Command`]; what happens to it comes back through [`events`] and [`metrics`].

pub mod access;
pub mod api;
pub mod balloon;
pub mod cli;
pub mod client;
pub mod command;
pub mod config;
pub mod console;
pub mod control;
pub mod device;
pub mod disk;
pub mod doctor;
pub mod events;
pub mod exit;
pub mod footprint;
pub mod guest_agent;
pub mod keymap;
pub mod kvm;
pub mod logging;
pub mod machine;
pub mod metrics;
pub mod nets;
pub mod picture;
pub mod pki;
pub mod socket;
pub mod vcpu;
pub mod vv;
