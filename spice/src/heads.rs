//! Which display is asked for which of the monitors that a client wishes for.

use std::sync::Arc;

use crate::source::{DisplaySource, HeadRequest};

/// Asks each display for its own; whether all of their guest's drivers take them. The guest's agent is
/// to hear of them otherwise, and puts them in order as a whole.
pub(crate) fn request(displays: &[Arc<dyn DisplaySource>], heads: &[HeadRequest]) -> bool {
    let most = |display: &Arc<dyn DisplaySource>| display.layout().max_heads as usize;
    let parts = match displays {
        // It knows best what to do with more than it has.
        [_] => vec![heads.to_vec()],
        _ => parts(heads, displays.iter().map(most)),
    };
    let asked = displays.iter().zip(&parts);
    // Each is asked, whatever the others say.
    let deaf = asked.filter(|(display, part)| !display.request_heads(part));
    deaf.count() == 0 && !displays.is_empty()
}

/// The heads of each display, of which `most` says how many it has at most: clients count through one
/// display after the other. On its own surface a display's heads begin at the top left.
fn parts(heads: &[HeadRequest], most: impl Iterator<Item = usize>) -> Vec<Vec<HeadRequest>> {
    let mut rest = heads;
    let part = |most: usize| {
        let (part, others) = rest.split_at(most.min(rest.len()));
        rest = others;
        let on = || part.iter().filter(|head| head.width > 0);
        let left = on().map(|head| head.x).min().unwrap_or(0);
        let top = on().map(|head| head.y).min().unwrap_or(0);
        let moved = part.iter().map(|head| HeadRequest {
            x: head.x.saturating_sub(left),
            y: head.y.saturating_sub(top),
            ..*head
        });
        moved.collect()
    };
    most.map(part).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use parking_lot::Mutex;

    use super::*;
    use crate::geometry::Rect;
    use crate::source::{CursorState, DisplayObserver, Layout};

    /// A display whose driver takes wishes, or does not.
    struct Display {
        most: u32,
        listens: bool,
        asked: Mutex<Vec<Vec<HeadRequest>>>,
    }

    impl DisplaySource for Display {
        fn layout(&self) -> Layout {
            Layout {
                primary: None,
                heads: Vec::new(),
                max_heads: self.most,
                generation: 0,
            }
        }

        fn read(&self, _: u64, _: Rect, _: &mut [u8]) -> bool {
            false
        }

        fn cursor(&self) -> CursorState {
            CursorState::default()
        }

        fn observe(&self, _: Weak<dyn DisplayObserver>) {}

        fn request_heads(&self, heads: &[HeadRequest]) -> bool {
            self.asked.lock().push(heads.to_vec());
            self.listens
        }
    }

    fn head(x: i32, y: i32) -> HeadRequest {
        HeadRequest {
            width: 640,
            height: 480,
            x,
            y,
        }
    }

    /// What each of these displays (heads, and whether its driver listens) was asked for, and the answer.
    fn asked(displays: &[(u32, bool)], heads: &[HeadRequest]) -> (Vec<Vec<HeadRequest>>, bool) {
        let display = |&(most, listens): &(u32, bool)| {
            let asked = Mutex::default();
            Arc::new(Display {
                most,
                listens,
                asked,
            })
        };
        let displays: Vec<Arc<Display>> = displays.iter().map(display).collect();
        let sources: Vec<Arc<dyn DisplaySource>> = displays
            .iter()
            .map(|display| Arc::clone(display) as Arc<dyn DisplaySource>)
            .collect();
        let told = request(&sources, heads);
        let asked = displays.iter().flat_map(|one| one.asked.lock().clone());
        (asked.collect(), told)
    }

    #[test]
    fn every_display_is_asked_for_its_own_monitors() {
        let heads = [head(0, 0), head(640, 0), head(1280, 100), head(1920, 40)];

        let (asked, told) = asked(&[(1, true), (2, true), (1, true)], &heads);

        let second = vec![head(0, 0), head(640, 100)];
        assert_eq!(asked, [vec![head(0, 0)], second, vec![head(0, 0)]]);
        assert!(told);
    }

    #[test]
    fn displays_without_a_wish_are_asked_for_none() {
        let (asked, told) = asked(&[(1, true), (1, true)], &[head(0, 0)]);

        assert_eq!(asked, [vec![head(0, 0)], vec![]]);
        assert!(told);
    }

    #[test]
    fn a_monitor_that_is_off_does_not_say_where_the_others_begin() {
        let off = HeadRequest {
            width: 0,
            height: 0,
            x: 0,
            y: 0,
        };

        let (asked, _) = asked(&[(1, true), (2, true)], &[head(0, 0), off, head(640, 0)]);

        assert_eq!(asked[1][1], head(0, 0));
    }

    #[test]
    fn the_agent_is_needed_if_one_driver_does_not_listen() {
        for displays in [[(1, false), (1, true)], [(1, true), (1, false)]] {
            let (asked, told) = asked(&displays, &[head(0, 0), head(640, 0)]);

            assert_eq!(asked.len(), 2);
            assert!(!told);
        }
    }

    #[test]
    fn one_display_gets_all_wishes_where_they_are() {
        let heads = [head(5, 5), head(645, 5)];

        let (asked, _) = asked(&[(1, true)], &heads);

        assert_eq!(asked, [heads.to_vec()]);
    }
}
