//! A keyboard, fed with PC scancodes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::config::{self, Query};
use super::event::{EV_KEY, EV_LED, EV_REP, Event};
use super::scancodes;
use super::{Input, MAX_PENDING, Model, query};

const LED_NUM: u16 = 0;
const LED_CAPS: u16 = 1;
const LED_SCROLL: u16 = 2;
const REP_DELAY: u16 = 0;
const REP_PERIOD: u16 = 1;

/// The lights of a keyboard.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leds {
    /// Num Lock.
    pub num: bool,
    /// Caps Lock.
    pub caps: bool,
    /// Scroll Lock.
    pub scroll: bool,
}

/// A PC keyboard.
pub type Keyboard = Input<KeyboardModel>;

/// What makes an input device a [`Keyboard`].
pub enum KeyboardModel {}

/// The keys that the guest holds for pressed, and the lights it wants.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyboardData {
    down: BTreeSet<u16>,
    leds: Leds,
}

impl Model for KeyboardModel {
    const KIND: &'static str = "virtio-keyboard";
    const PCI_CLASS: u32 = 0x09_00_00;
    type Data = KeyboardData;

    fn answer(select: u8, subsel: u8) -> Vec<u8> {
        match query(select, subsel) {
            Some(Query::Name) => b"Caraway Virtio Keyboard".to_vec(),
            Some(Query::Serial) => b"0".to_vec(),
            Some(Query::Ids) => config::ids(1),
            Some(Query::Codes(EV_KEY)) => config::bitmap(scancodes::all_keys()),
            Some(Query::Codes(EV_LED)) => config::bitmap([LED_NUM, LED_CAPS, LED_SCROLL]),
            Some(Query::Codes(EV_REP)) => config::bitmap([REP_DELAY, REP_PERIOD]),
            _ => Vec::new(),
        }
    }

    fn lights(data: &KeyboardData) -> Leds {
        data.leds
    }

    fn feedback(data: &mut KeyboardData, event: Event) -> Option<Leds> {
        if event.kind != EV_LED {
            return None;
        }
        let light = match event.code {
            LED_NUM => &mut data.leds.num,
            LED_CAPS => &mut data.leds.caps,
            LED_SCROLL => &mut data.leds.scroll,
            _ => return None,
        };
        let on = event.value != 0;
        (std::mem::replace(light, on) != on).then_some(data.leds)
    }
}

impl Keyboard {
    /// A keyboard with no key pressed and no light on; `on_leds` hears of every change of the
    /// lights, on the thread that serves the device or resets it.
    #[must_use]
    pub fn new(on_leds: impl Fn(Leds) + Send + Sync + 'static) -> Self {
        Self {
            on_leds: Some(Box::new(on_leds)),
            ..Self::default()
        }
    }

    /// Presses (`down`) or releases the key with the set-1 scancode `code` (of the press: bit 7
    /// clear), after an 0xe0 prefix if `extended`. Pause is extended 0x46. The guest repeats keys
    /// by itself: a press of a key that is down changes nothing, and neither does a key that no
    /// PC keyboard has.
    pub fn key(&self, code: u8, extended: bool, down: bool) {
        let Some(key) = scancodes::key_of(code, extended) else {
            return;
        };
        self.send(|data, pending| {
            let changed = if !down {
                data.down.remove(&key)
            } else if pending.len() < MAX_PENDING {
                data.down.insert(key)
            } else {
                // A press that finds no room is lost; a release of what was pressed never is.
                false
            };
            if changed {
                pending.push_back(vec![Event::new(EV_KEY, key, i32::from(down))]);
            }
        });
    }

    /// Releases every key that is down.
    pub fn release_all(&self) {
        self.send(|data, pending| {
            for key in std::mem::take(&mut data.down) {
                pending.push_back(vec![Event::new(EV_KEY, key, 0)]);
            }
        });
    }

    /// The lights as the guest wants them.
    #[must_use]
    pub fn leds(&self) -> Leds {
        self.inner.lock().data.leds
    }
}
