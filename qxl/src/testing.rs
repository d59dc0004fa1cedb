//! The driver's side, for tests.
