//! A pointer with absolute coordinates: the mouse goes where the viewer's cursor is.

use serde::{Deserialize, Serialize};

use super::config::{self, Query};
use super::event::{EV_ABS, EV_KEY, EV_REL, Event};
use super::{Batch, Input, MAX_PENDING, Model, query};

const ABS_X: u16 = 0;
const ABS_Y: u16 = 1;
const REL_WHEEL: u16 = 8;
/// The highest coordinate of both axes.
const MAX: u16 = 32767;

/// A button of the pointer; the number is Linux' `BTN_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Button {
    /// The first button.
    Left = 0x110,
    /// The second button.
    Right = 0x111,
    /// The wheel pressed.
    Middle = 0x112,
    /// "Back".
    Side = 0x113,
    /// "Forward".
    Extra = 0x114,
}

impl Button {
    const ALL: [Self; 5] = [
        Self::Left,
        Self::Right,
        Self::Middle,
        Self::Side,
        Self::Extra,
    ];

    const fn bit(self) -> u8 {
        1 << (self as u16 - Self::Left as u16)
    }
}

/// A tablet: absolute position, five buttons and a wheel.
pub type Tablet = Input<TabletModel>;

/// What makes an input device a [`Tablet`].
pub enum TabletModel {}

/// The buttons that the guest holds for pressed.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TabletData {
    buttons: u8,
}

impl Model for TabletModel {
    const KIND: &'static str = "virtio-tablet";
    const PCI_CLASS: u32 = 0x09_80_00;
    type Data = TabletData;

    fn answer(select: u8, subsel: u8) -> Vec<u8> {
        match query(select, subsel) {
            Some(Query::Name) => b"Caraway Virtio Tablet".to_vec(),
            Some(Query::Serial) => b"0".to_vec(),
            Some(Query::Ids) => config::ids(3),
            Some(Query::Codes(EV_KEY)) => config::bitmap(Button::ALL.map(|b| b as u16)),
            Some(Query::Codes(EV_REL)) => config::bitmap([REL_WHEEL]),
            Some(Query::Codes(EV_ABS)) => config::bitmap([ABS_X, ABS_Y]),
            Some(Query::Axis(ABS_X | ABS_Y)) => config::axis(u32::from(MAX)),
            _ => Vec::new(),
        }
    }
}

impl Tablet {
    /// A tablet in the middle of nowhere, with no button pressed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The pointer is at `x` of 32767 from the left and at `y` of 32767 from the top.
    pub fn position(&self, x: u16, y: u16) {
        let at = |code, value: u16| Event::new(EV_ABS, code, i32::from(value.min(MAX)));
        let batch = vec![at(ABS_X, x), at(ABS_Y, y)];
        self.send(|_, pending| {
            let moves = |batch: &Batch| batch.iter().all(|event| event.kind == EV_ABS);
            let full = pending.len() >= MAX_PENDING;
            match pending.back_mut() {
                // Where it was before nobody saw it does not matter.
                Some(last) if moves(last) => *last = batch,
                _ if full => {}
                _ => pending.push_back(batch),
            }
        });
    }

    /// Presses (`true`) or releases one button.
    pub fn button(&self, button: Button, down: bool) {
        self.send(|data, pending| {
            let mut buttons = data.buttons & !button.bit();
            if down {
                buttons |= button.bit();
            }
            // A press that finds no room is lost; a release of what was pressed never is.
            if buttons == data.buttons || down && pending.len() >= MAX_PENDING {
                return;
            }
            data.buttons = buttons;
            pending.push_back(vec![Event::new(EV_KEY, button as u16, i32::from(down))]);
        });
    }

    /// Makes the buttons be as `pressed` says, all others released.
    pub fn buttons(&self, pressed: &[Button]) {
        for button in Button::ALL {
            self.button(button, pressed.contains(&button));
        }
    }

    /// Turns the wheel by `notches`, away from the user if positive.
    pub fn wheel(&self, notches: i32) {
        self.send(|_, pending| {
            if notches != 0 && pending.len() < MAX_PENDING {
                pending.push_back(vec![Event::new(EV_REL, REL_WHEEL, notches)]);
            }
        });
    }
}
