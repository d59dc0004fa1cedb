//! What a device keeps across a snapshot, and how it is written down.

use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A device whose whole state is one plain structure.
///
/// [`VERSION`](Self::VERSION) goes up with every change of [`State`](Self::State); restoring an
/// older one is up to the device, which sees the version it was written under.
pub trait Stateful {
    /// What is written down.
    type State: Serialize + DeserializeOwned;
    /// The name under which it is written, e.g. `"i8042"`.
    const KIND: &'static str;
    /// The version of [`State`](Self::State).
    const VERSION: u32;

    /// The state as it is now.
    fn save(&self) -> Self::State;
    /// Takes `state` on, or changes nothing.
    ///
    /// # Errors
    /// [`StateError::Invalid`] if a field is out of its range: a snapshot is not to be trusted.
    fn restore(&mut self, state: Self::State) -> Result<(), StateError>;
    /// As after power-on, keeping what a reset keeps on real hardware.
    fn reset(&mut self);
}

/// A saved state, ready for a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// [`Stateful::KIND`] of the device that wrote it.
    pub kind: String,
    /// [`Stateful::VERSION`] under which it was written.
    pub version: u32,
    /// The state itself.
    pub body: serde_json::Value,
}

impl Payload {
    /// The body as a `T`, if `kind` wrote it under `version`.
    ///
    /// # Errors
    /// [`StateError::Kind`], [`StateError::Version`] or [`StateError::Malformed`].
    pub fn read<T: DeserializeOwned>(
        &self,
        kind: &'static str,
        version: u32,
    ) -> Result<T, StateError> {
        if self.kind != kind {
            return Err(StateError::Kind {
                expected: kind,
                found: self.kind.clone(),
            });
        }
        if self.version != version {
            let (expected, found) = (version, self.version);
            return Err(StateError::Version {
                kind,
                expected,
                found,
            });
        }
        serde_json::from_value(self.body.clone())
            .map_err(|source| StateError::Malformed { kind, source })
    }
}

/// Why a state could not be saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The payload is another device's.
    #[error("this is the state of a {found:?}, not of a {expected:?}")]
    Kind {
        /// The device's own kind.
        expected: &'static str,
        /// The payload's.
        found: String,
    },
    /// The payload's version is one that this build can't read.
    #[error("the state of {kind:?} has version {found}; this build reads version {expected}")]
    Version {
        /// Whose state it is.
        kind: &'static str,
        /// The version this build reads.
        expected: u32,
        /// The payload's.
        found: u32,
    },
    /// The payload does not have the fields it should have.
    #[error("the state of {kind:?} is malformed")]
    Malformed {
        /// Whose state it is.
        kind: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A field is out of its range.
    #[error("the state of {kind:?} is not possible: {what}")]
    Invalid {
        /// Whose state it is.
        kind: &'static str,
        /// Which field, its value and its range.
        what: String,
    },
}

/// What the machine does to every device, whatever it is.
pub trait Lifecycle: Send + Sync {
    /// The name under which the state is written.
    fn kind(&self) -> &'static str;
    /// As after power-on.
    fn reset(&self);
    /// The state, ready for a file.
    ///
    /// # Errors
    /// [`StateError::Malformed`] if it can't be written down.
    fn save(&self) -> Result<Payload, StateError>;
    /// Takes a saved state on, or changes nothing.
    ///
    /// # Errors
    /// [`StateError`], as its variants say.
    fn restore(&self, payload: &Payload) -> Result<(), StateError>;
}

/// Writes `device`'s state down under its kind and version.
///
/// # Errors
/// [`StateError::Malformed`] if the state can't be written as JSON.
pub fn save_payload<T: Stateful>(device: &T) -> Result<Payload, StateError> {
    let body = serde_json::to_value(device.save()).map_err(|source| StateError::Malformed {
        kind: T::KIND,
        source,
    })?;
    Ok(Payload {
        kind: T::KIND.to_owned(),
        version: T::VERSION,
        body,
    })
}

/// Reads a state back into `device`, or changes nothing.
///
/// # Errors
/// [`StateError`], as its variants say.
pub fn restore_payload<T: Stateful>(device: &mut T, payload: &Payload) -> Result<(), StateError> {
    let state = payload.read(T::KIND, T::VERSION)?;
    device.restore(state)
}

impl<T: Stateful + Send> Lifecycle for Mutex<T> {
    fn kind(&self) -> &'static str {
        T::KIND
    }

    fn reset(&self) {
        self.lock().reset();
    }

    fn save(&self) -> Result<Payload, StateError> {
        save_payload(&*self.lock())
    }

    fn restore(&self, payload: &Payload) -> Result<(), StateError> {
        restore_payload(&mut *self.lock(), payload)
    }
}

/// The tests that every [`Stateful`] device owes: a fresh one and a used one survive the round
/// trip, reset gives a fresh one back, and a foreign or future payload is refused.
///
/// `$fresh` makes a new device; `$used` changes its state as a guest would.
#[macro_export]
macro_rules! state_tests {
    ($module:ident, $fresh:expr, $used:expr) => {
        #[cfg(test)]
        mod $module {
            use super::*;
            use $crate::state::{StateError, restore_payload, save_payload};

            #[test]
            fn used_state_survives_the_round_trip() {
                let mut device = $fresh;
                ($used)(&mut device);
                let saved = save_payload(&device).unwrap();
                let mut other = $fresh;

                restore_payload(&mut other, &saved).unwrap();

                assert_eq!(save_payload(&other).unwrap(), saved);
                assert_ne!(
                    save_payload(&$fresh).unwrap(),
                    saved,
                    "$used changed nothing"
                );
            }

            #[test]
            fn reset_gives_a_fresh_state() {
                let mut device = $fresh;
                ($used)(&mut device);

                $crate::state::Stateful::reset(&mut device);

                assert_eq!(
                    save_payload(&device).unwrap(),
                    save_payload(&$fresh).unwrap()
                );
            }

            #[test]
            fn a_foreign_or_future_payload_is_refused() {
                let mut device = $fresh;
                let mut foreign = save_payload(&device).unwrap();
                let mut future = foreign.clone();
                foreign.kind.push('x');
                future.version += 1;

                let as_foreign = restore_payload(&mut device, &foreign);
                let as_future = restore_payload(&mut device, &future);

                assert!(matches!(as_foreign, Err(StateError::Kind { .. })));
                assert!(matches!(as_future, Err(StateError::Version { .. })));
            }
        }
    };
}
