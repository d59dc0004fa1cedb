//! The pointer of a guest whose agent moves it.

use std::collections::VecDeque;

use super::wire::{Outgoing, kind};
use crate::input::{Buttons, PointerEvent};

/// States that wait for a guest that does not read. Past that only the newest counts.
const MAX_WAITING: usize = 64;

/// `VD_AGENT_*BUTTON_MASK`.
mod mask {
    pub(super) const LEFT: u32 = 1 << 1;
    pub(super) const MIDDLE: u32 = 1 << 2;
    pub(super) const RIGHT: u32 = 1 << 3;
    pub(super) const UP: u32 = 1 << 4;
    pub(super) const DOWN: u32 = 1 << 5;
    pub(super) const SIDE: u32 = 1 << 6;
    pub(super) const EXTRA: u32 = 1 << 7;
}

/// `VDAgentMouseState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct State {
    x: u32,
    y: u32,
    buttons: u32,
    display: u8,
}

/// Makes the states that an agent wants of the events that clients send.
#[derive(Debug, Default)]
pub(super) struct Pointer {
    now: State,
    waiting: VecDeque<State>,
}

impl Pointer {
    pub(super) fn take(&mut self, event: PointerEvent) {
        match event {
            PointerEvent::Position { x, y, display } => {
                (self.now.x, self.now.y, self.now.display) = (x, y, display);
                // A place that nobody saw yet is of no use if only the place is new.
                let pressed = self.now.buttons;
                let moves = |state: &&mut State| state.buttons == pressed;
                let again = self.waiting.len() > 1;
                match self.waiting.back_mut().filter(moves).filter(|_| again) {
                    Some(last) => *last = self.now,
                    None => self.queue(self.now),
                }
            }
            PointerEvent::Buttons(buttons) => {
                self.now.buttons = bits(buttons);
                self.queue(self.now);
            }
            PointerEvent::Wheel(notches) => {
                let bit = if notches > 0 { mask::UP } else { mask::DOWN };
                for _ in 0..notches.unsigned_abs().min(MAX_WAITING as u32 / 2) {
                    let buttons = self.now.buttons | bit;
                    self.queue(State {
                        buttons,
                        ..self.now
                    });
                    self.queue(self.now);
                }
            }
            // An agent knows places only.
            PointerEvent::Motion { .. } => {}
        }
    }

    fn queue(&mut self, state: State) {
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.clear();
            self.waiting.push_back(self.now);
        } else {
            self.waiting.push_back(state);
        }
    }

    /// The next state, as a message.
    pub(super) fn next(&mut self) -> Option<Outgoing> {
        let state = self.waiting.pop_front()?;
        let mut body = Vec::with_capacity(13);
        for field in [state.x, state.y, state.buttons] {
            body.extend(field.to_le_bytes());
        }
        body.push(state.display);
        Some(Outgoing::new(kind::MOUSE_STATE, &body))
    }
}

fn bits(buttons: Buttons) -> u32 {
    let all = [
        (buttons.left, mask::LEFT),
        (buttons.middle, mask::MIDDLE),
        (buttons.right, mask::RIGHT),
        (buttons.side, mask::SIDE),
        (buttons.extra, mask::EXTRA),
    ];
    all.into_iter()
        .filter_map(|(pressed, bit)| pressed.then_some(bit))
        .sum()
}
