//! Where keys and pointer events go: to whichever device the guest listens to.

use std::sync::Arc;

use caraway_devices::I8042;
use caraway_devices::i8042::MouseButtons;
use caraway_spice::{Buttons, DisplaySource, InputSink, Key, Locks, PointerEvent};
use caraway_virtio::input::{Button, Keyboard, Tablet};
use parking_lot::Mutex;

/// The machine's keyboards and pointers as one [`InputSink`].
pub struct Input {
    ps2: Arc<Mutex<I8042>>,
    tablet: Option<Arc<Tablet>>,
    keyboard: Option<Arc<Keyboard>>,
    /// What a position is a position on.
    display: Option<Arc<dyn DisplaySource>>,
}

/// What our keyboards call the key that has no code of its own.
const PAUSE: Key = Key {
    code: 0x46,
    extended: true,
};

/// A virtio tablet's axes go from 0 to this.
const TABLET_MAX: u64 = 32767;

impl Input {
    /// Joins the devices that the machine has.
    #[must_use]
    pub fn new(
        ps2: Arc<Mutex<I8042>>,
        tablet: Option<Arc<Tablet>>,
        keyboard: Option<Arc<Keyboard>>,
        display: Option<Arc<dyn DisplaySource>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            ps2,
            tablet,
            keyboard,
            display,
        })
    }

    /// The tablet, if the guest listens to it.
    fn active_tablet(&self) -> Option<&Tablet> {
        self.tablet.as_deref().filter(|tablet| tablet.is_active())
    }

    /// The virtio keyboard, if the guest listens to it.
    fn active_keyboard(&self) -> Option<&Keyboard> {
        self.keyboard
            .as_deref()
            .filter(|keyboard| keyboard.is_active())
    }

    fn position(&self, x: u32, y: u32) {
        let size = self
            .display
            .as_ref()
            .and_then(|display| display.layout().primary);
        let (Some(tablet), Some(size)) = (self.active_tablet(), size) else {
            return;
        };
        tablet.position(scale(x, size.width), scale(y, size.height));
    }

    fn buttons(&self, pressed: Buttons) {
        let Buttons {
            left,
            middle,
            right,
            side,
            extra,
        } = pressed;
        match self.active_tablet() {
            Some(tablet) => {
                let all = [
                    (Button::Left, left),
                    (Button::Middle, middle),
                    (Button::Right, right),
                    (Button::Side, side),
                    (Button::Extra, extra),
                ];
                all.into_iter()
                    .for_each(|(button, down)| tablet.button(button, down));
            }
            None => {
                let buttons = MouseButtons {
                    left,
                    right,
                    middle,
                    side,
                    extra,
                };
                self.ps2.lock().mouse_buttons(buttons);
            }
        }
    }
}

/// A pixel's place on an axis of `size` pixels, so that the last pixel is the axis' end.
fn scale(pixel: u32, size: u32) -> u16 {
    let last = u64::from(size.saturating_sub(1).max(1));
    (u64::from(pixel).min(last) * TABLET_MAX / last) as u16
}

impl InputSink for Input {
    fn key(&self, key: Key, down: bool) {
        let key = if key == Key::PAUSE { PAUSE } else { key };
        match self.active_keyboard() {
            Some(keyboard) => keyboard.key(key.code, key.extended, down),
            None => self.ps2.lock().keyboard_event(key.code, key.extended, down),
        }
    }

    fn pointer(&self, event: PointerEvent) {
        match event {
            PointerEvent::Motion { dx, dy } => self.ps2.lock().mouse_motion(dx, dy),
            PointerEvent::Position { x, y, .. } => self.position(x, y),
            PointerEvent::Buttons(buttons) => self.buttons(buttons),
            PointerEvent::Wheel(notches) => match self.active_tablet() {
                Some(tablet) => tablet.wheel(notches),
                None => self.ps2.lock().wheel(-notches),
            },
        }
    }

    fn locks(&self) -> Locks {
        match self.active_keyboard() {
            Some(keyboard) => {
                let leds = keyboard.leds();
                Locks {
                    scroll: leds.scroll,
                    num: leds.num,
                    caps: leds.caps,
                }
            }
            None => {
                let leds = self.ps2.lock().leds();
                Locks {
                    scroll: leds.scroll,
                    num: leds.num,
                    caps: leds.caps,
                }
            }
        }
    }

    fn absolute(&self) -> bool {
        self.active_tablet().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pixel_is_the_end_of_the_axis() {
        assert_eq!(scale(0, 640), 0);
        assert_eq!(scale(639, 640), 32767);
        assert_eq!(scale(10_000, 640), 32767);
        assert_eq!(scale(0, 1), 0);
    }
}
