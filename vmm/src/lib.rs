//! The Caraway monitor as a library: what `caraway` the program is made of.

pub mod kvm;
pub mod vcpu;
