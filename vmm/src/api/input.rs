//! `input.*`: keys, text and pointer, as if somebody sat at the machine.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use caraway_spice::{Buttons, Key, PointerEvent};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::extract::Body;
use crate::command::{ApiError, Command, ErrorCode, InputEvent};
use crate::config::units::Span;
use crate::keymap;

/// Between a key's way down and up when typing: a guest that polls its keyboard keeps up.
const STROKE: Duration = Duration::from_millis(10);
const HOLD: Duration = Duration::from_millis(50);
const LONGEST_HOLD: Duration = Duration::from_secs(60);
const MOST_KEYS: usize = 16;
const MOST_TEXT: usize = 4096;

/// Keys to press together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeysRequest {
    /// Names such as `ctrl`, `alt`, `f2`: pressed in this order, released in the opposite one.
    #[schema(example = json!(["ctrl", "alt", "f2"]))]
    pub keys: Vec<String>,
    /// For how long; 50ms if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "100ms")]
    pub hold: Option<Span>,
}

/// Text to type on a US keyboard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TextRequest {
    /// Printable ASCII, tabs and newlines, at most 4096 characters.
    pub text: String,
}

/// What the pointer does, in the order of these fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PointerRequest {
    /// Pixels from the left; with `y`, moves there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<u32>,
    /// Pixels from the top; with `x`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<u32>,
    /// Which display `x` and `y` are on; 0 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<u8>,
    /// Moves this many pixels to the right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dx: Option<i32>,
    /// Moves this many pixels down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dy: Option<i32>,
    /// The buttons that are pressed from now on; all others are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buttons: Option<Vec<Button>>,
    /// Presses this button and lets it go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub click: Option<Button>,
    /// Turns the wheel by this many notches, away from the user positive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wheel: Option<i32>,
}

/// A button of the pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Button {
    /// The first.
    Left,
    /// The wheel.
    Middle,
    /// The second.
    Right,
    /// "Back".
    Side,
    /// "Forward".
    Extra,
}

/// Events, then a pause before the next.
struct Step {
    events: Vec<InputEvent>,
    pause: Duration,
}

fn bad(path: &str, message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message).path(path)
}

/// Press keys together and let them go.
#[utoipa::path(put, path = "/api/v1/input.keys", tag = "input", request_body = KeysRequest,
    responses((status = 204), (status = 400, body = ApiError), (status = "default", body = ApiError)))]
pub(super) async fn keys(
    State(api): State<Api>,
    Body(request): Body<KeysRequest>,
) -> Result<StatusCode, ApiError> {
    let steps = request.steps()?;
    play(api, steps).await
}

/// Type text on a US keyboard; answers when the last key is up.
#[utoipa::path(put, path = "/api/v1/input.text", tag = "input", request_body = TextRequest,
    responses((status = 204), (status = 400, body = ApiError), (status = "default", body = ApiError)))]
pub(super) async fn text(
    State(api): State<Api>,
    Body(request): Body<TextRequest>,
) -> Result<StatusCode, ApiError> {
    let steps = request.steps()?;
    play(api, steps).await
}

/// Move the pointer, press its buttons, turn its wheel.
#[utoipa::path(put, path = "/api/v1/input.pointer", tag = "input", request_body = PointerRequest,
    responses((status = 204), (status = 400, body = ApiError), (status = "default", body = ApiError)))]
pub(super) async fn pointer(
    State(api): State<Api>,
    Body(request): Body<PointerRequest>,
) -> Result<StatusCode, ApiError> {
    let steps = request.steps()?;
    play(api, steps).await
}

/// Plays `steps` to their end even if the asker goes away, so that no key stays pressed; what
/// several askers type does not mix.
async fn play(api: Api, steps: Vec<Step>) -> Result<StatusCode, ApiError> {
    let played = tokio::spawn(async move {
        let _turn = api.typing.lock().await;
        for Step { events, pause } in steps {
            api.control
                .call(|reply| Command::Input { events, reply })
                .await?;
            tokio::time::sleep(pause).await;
        }
        Ok(StatusCode::NO_CONTENT)
    });
    let stopped = |_| ApiError::new(ErrorCode::Gone, "the machine has ended");
    played.await.map_err(stopped)?
}

fn key(key: Key, down: bool) -> InputEvent {
    InputEvent::Key { key, down }
}

impl KeysRequest {
    fn steps(&self) -> Result<Vec<Step>, ApiError> {
        if !(1..=MOST_KEYS).contains(&self.keys.len()) {
            return Err(bad("keys", format!("{} keys", self.keys.len()))
                .hint(format!("give 1 to {MOST_KEYS} keys")));
        }
        let hold = self.hold.map_or(HOLD, |span| span.0);
        if hold > LONGEST_HOLD {
            return Err(bad("hold", "that is too long to hold keys").hint("use at most 60s"));
        }
        let keys: Vec<Key> = self
            .keys
            .iter()
            .enumerate()
            .map(|(index, name)| keymap::named(name).ok_or_else(|| unknown_key(index, name)))
            .collect::<Result<_, _>>()?;
        Ok(vec![
            Step {
                events: keys.iter().map(|k| key(*k, true)).collect(),
                pause: hold,
            },
            Step {
                events: keys.iter().rev().map(|k| key(*k, false)).collect(),
                pause: STROKE,
            },
        ])
    }
}

fn unknown_key(index: usize, name: &str) -> ApiError {
    let error = bad(
        &format!("keys[{index}]"),
        format!("there is no key {name:?}"),
    );
    let lower = name.to_lowercase();
    let near = keymap::names()
        .map(|known| (strsim::damerau_levenshtein(&lower, known), known))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, known)| *distance <= known.len() / 2);
    match near {
        Some((_, known)) => error.hint(format!("did you mean {known:?}?")),
        None => error.hint("keys have names such as \"ctrl\", \"alt\", \"f2\", \"a\", \"enter\""),
    }
}

impl TextRequest {
    fn steps(&self) -> Result<Vec<Step>, ApiError> {
        let length = self.text.chars().count();
        if length > MOST_TEXT {
            return Err(bad("text", format!("{length} characters"))
                .hint(format!("type at most {MOST_TEXT} at once")));
        }
        let strokes = self.text.chars().map(|c| {
            keymap::typed(c).ok_or_else(|| {
                bad("text", format!("no key of a US keyboard types {c:?}"))
                    .hint("use printable ASCII, tabs and newlines")
            })
        });
        let mut steps = Vec::new();
        for stroke in strokes {
            let (typed, shift) = stroke?;
            let shift = shift.then_some(keymap::SHIFT);
            let down = shift.into_iter().chain([typed]).map(|k| key(k, true));
            let up = [typed].into_iter().chain(shift).map(|k| key(k, false));
            steps.extend([down.collect(), up.collect()].map(|events| Step {
                events,
                pause: STROKE,
            }));
        }
        Ok(steps)
    }
}

impl PointerRequest {
    fn steps(&self) -> Result<Vec<Step>, ApiError> {
        let mut events = Vec::new();
        match (self.x, self.y) {
            (Some(x), Some(y)) => {
                let display = self.display.unwrap_or(0);
                events.push(PointerEvent::Position { x, y, display });
            }
            (None, None) if self.display.is_none() => {}
            _ => return Err(bad("x", "a place needs both `x` and `y`")),
        }
        if self.dx.is_some() || self.dy.is_some() {
            let (dx, dy) = (self.dx.unwrap_or(0), self.dy.unwrap_or(0));
            events.push(PointerEvent::Motion { dx, dy });
        }
        let pressed = self.buttons.as_deref().map(pressed);
        events.extend(pressed.map(PointerEvent::Buttons));
        let mut steps = vec![Step {
            events: Vec::new(),
            pause: Duration::ZERO,
        }];
        if let Some(click) = self.click {
            events.push(PointerEvent::Buttons(with(
                pressed.unwrap_or_default(),
                click,
            )));
            steps[0].pause = HOLD;
            let released = PointerEvent::Buttons(pressed.unwrap_or_default());
            steps.push(Step {
                events: vec![InputEvent::Pointer(released)],
                pause: STROKE,
            });
        }
        if let Some(notches) = self.wheel {
            if notches.unsigned_abs() > 100 {
                return Err(bad("wheel", format!("{notches} notches")).hint("use at most 100"));
            }
            events.push(PointerEvent::Wheel(notches));
        }
        if events.is_empty() {
            return Err(
                ApiError::new(ErrorCode::BadRequest, "the pointer has nothing to do")
                    .hint("give x and y, dx or dy, buttons, click or wheel"),
            );
        }
        steps[0].events = events.into_iter().map(InputEvent::Pointer).collect();
        Ok(steps)
    }
}

fn pressed(buttons: &[Button]) -> Buttons {
    buttons
        .iter()
        .fold(Buttons::default(), |state, button| with(state, *button))
}

fn with(state: Buttons, button: Button) -> Buttons {
    match button {
        Button::Left => Buttons {
            left: true,
            ..state
        },
        Button::Middle => Buttons {
            middle: true,
            ..state
        },
        Button::Right => Buttons {
            right: true,
            ..state
        },
        Button::Side => Buttons {
            side: true,
            ..state
        },
        Button::Extra => Buttons {
            extra: true,
            ..state
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(steps: Vec<Step>) -> Vec<InputEvent> {
        steps.into_iter().flat_map(|step| step.events).collect()
    }

    #[test]
    fn keys_go_up_in_the_opposite_order() {
        let request = KeysRequest {
            keys: vec!["ctrl".into(), "c".into()],
            hold: None,
        };
        let (ctrl, c) = (keymap::named("ctrl").unwrap(), keymap::named("c").unwrap());

        let events = flat(request.steps().unwrap());

        assert_eq!(
            events,
            [
                key(ctrl, true),
                key(c, true),
                key(c, false),
                key(ctrl, false)
            ]
        );
    }

    #[test]
    fn capitals_are_typed_with_shift() {
        let a = keymap::named("a").unwrap();
        let request = TextRequest { text: "A".into() };

        let events = flat(request.steps().unwrap());

        assert_eq!(
            events,
            [
                key(keymap::SHIFT, true),
                key(a, true),
                key(a, false),
                key(keymap::SHIFT, false)
            ]
        );
    }

    #[test]
    fn a_misspelt_key_finds_its_name() {
        let request = KeysRequest {
            keys: vec!["ctrl".into(), "entre".into()],
            hold: None,
        };

        let error = request.steps().err().unwrap();

        assert_eq!(error.path.as_deref(), Some("keys[1]"));
        assert_eq!(error.hint.as_deref(), Some("did you mean \"enter\"?"));
    }

    #[test]
    fn text_that_has_no_key_is_refused_whole() {
        let request = TextRequest {
            text: "abcö".into(),
        };

        let error = request.steps().err().unwrap();

        assert!(error.message.contains('ö'), "{error}");
    }

    #[test]
    fn a_click_presses_and_releases() {
        let request = PointerRequest {
            x: Some(3),
            y: Some(4),
            click: Some(Button::Right),
            ..PointerRequest::default()
        };

        let events = flat(request.steps().unwrap());

        let right = Buttons {
            right: true,
            ..Buttons::default()
        };
        assert_eq!(
            events,
            [
                PointerEvent::Position {
                    x: 3,
                    y: 4,
                    display: 0
                },
                PointerEvent::Buttons(right),
                PointerEvent::Buttons(Buttons::default()),
            ]
            .map(InputEvent::Pointer)
        );
    }

    #[test]
    fn half_a_place_is_refused() {
        let request = PointerRequest {
            x: Some(3),
            ..PointerRequest::default()
        };

        assert!(request.steps().is_err());
    }
}
