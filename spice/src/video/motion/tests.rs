use super::*;

const FULL_HD: Size = Size {
    width: 1920,
    height: 1080,
};

/// A display and a clock that is turned by hand.
struct Stage {
    motion: Motion,
    now: Instant,
}

impl Stage {
    fn new(size: Size) -> Self {
        let now = Instant::now();
        Self {
            motion: Motion::new(size, now),
            now,
        }
    }

    /// Lets time pass in steps of a millisecond. At each, `draw` is told how many have passed and names
    /// what changes; films are asked for as often as a client does that is sent pictures.
    fn play(&mut self, milliseconds: u64, draw: impl Fn(u64) -> Vec<Rect>) -> Vec<Film> {
        let mut films = Vec::new();
        for passed in 0..milliseconds {
            for rect in draw(passed) {
                self.motion.updated(rect, self.now);
            }
            self.now += Duration::from_millis(1);
            if passed % 10 == 0 {
                films = self.motion.films(self.now);
            }
        }
        films
    }
}

fn rect(left: i32, top: i32, width: i32, height: i32) -> Rect {
    Rect {
        left,
        top,
        right: left + width,
        bottom: top + height,
    }
}

/// Draws all of `area` so many times a second.
fn film(area: Rect, rate: u64) -> impl Fn(u64) -> Vec<Rect> {
    move |passed| {
        let before = passed.saturating_sub(1) * rate / 1000;
        let is_due = passed == 0 || passed * rate / 1000 != before;
        if is_due { vec![area] } else { Vec::new() }
    }
}

fn areas(films: &[Film]) -> Vec<Rect> {
    films.iter().map(|film| film.area).collect()
}

#[test]
fn a_film_is_found_exactly_within_a_second_at_any_size_and_rate() {
    let ultra_hd = Size {
        width: 3840,
        height: 2160,
    };
    let cases = [
        (FULL_HD, Rect::of_size(FULL_HD), 30),
        (ultra_hd, Rect::of_size(ultra_hd), 60),
        (ultra_hd, rect(1000, 500, 1280, 720), 25),
        (FULL_HD, rect(101, 77, 640, 360), 24),
        (FULL_HD, rect(33, 7, 160, 120), 15),
    ];
    for (size, area, rate) in cases {
        let mut stage = Stage::new(size);
        let films = stage.play(1000, film(area, rate));
        assert_eq!(areas(&films), [area], "{size:?}");
        assert!(films[0].moving);
        assert!(
            (films[0].rate - rate as f64).abs() < 2.0,
            "{}",
            films[0].rate
        );
        let churn = area.pixels() as f64 * rate as f64;
        assert!((films[0].churn / churn - 1.0).abs() < 0.1, "{churn}");
    }
}

#[test]
fn a_film_that_is_drawn_in_strips_is_one() {
    let area = rect(100, 100, 800, 600);
    let mut stage = Stage::new(FULL_HD);
    let strips = |passed: u64| match passed % 40 {
        strip @ 0..6 => vec![rect(100, 100 + strip as i32 * 100, 800, 100)],
        _ => Vec::new(),
    };
    assert_eq!(areas(&stage.play(1500, strips)), [area]);
}

#[test]
fn a_film_of_which_pictures_change_only_parts_is_one() {
    let area = rect(128, 128, 1280, 704);
    let mut stage = Stage::new(FULL_HD);
    // As a compositor's changes are: other pieces of it each time, most of it now and then.
    let parts = |passed: u64| {
        let picture = passed / 33;
        if !passed.is_multiple_of(33) {
            return Vec::new();
        }
        let piece = |at: u64| {
            rect(
                128 + (at % 20) as i32 * 64,
                128 + (at / 20) as i32 * 64,
                64,
                64,
            )
        };
        let changes = |at: &u64| !(at * 7 + picture * 13).is_multiple_of(5);
        (0..220).filter(changes).map(piece).collect()
    };

    let first = stage.play(1500, parts);
    let last = stage.play(10_000, parts);

    assert_eq!(areas(&last), [area]);
    assert_eq!(first[0].id, last[0].id);
}

#[test]
fn a_film_is_the_same_for_as_long_as_it_lasts() {
    let area = Rect::of_size(FULL_HD);
    let mut stage = Stage::new(FULL_HD);
    let first = stage.play(1000, film(area, 30));
    for _ in 0..60 {
        assert_eq!(areas(&stage.play(1000, film(area, 30))), [area]);
    }
    assert_eq!(stage.play(11, film(area, 30))[0].id, first[0].id);
}

#[test]
fn a_film_that_stops_pauses_soon_and_goes_on_as_the_same() {
    let area = rect(100, 100, 640, 360);
    let mut stage = Stage::new(FULL_HD);
    let first = stage.play(1000, film(area, 30));

    let paused = stage.play(300, |_| Vec::new());
    let later = stage.play(20_000, |_| Vec::new());
    let resumed = stage.play(200, film(area, 30));

    assert!(!paused[0].moving);
    assert!(!later[0].moving);
    assert!(resumed[0].moving);
    assert_eq!((paused[0].id, resumed[0].id), (first[0].id, first[0].id));
}

#[test]
fn a_small_thing_that_moves_on_a_film_that_pauses_does_not_make_it_go_on() {
    let area = rect(0, 0, 1280, 720);
    let mut stage = Stage::new(FULL_HD);
    stage.play(1000, film(area, 30));
    let films = stage.play(5000, film(rect(600, 300, 64, 64), 30));
    assert!(!films[0].moving);
}

#[test]
fn a_film_that_pauses_for_long_is_forgotten() {
    let mut stage = Stage::new(FULL_HD);
    stage.play(1000, film(rect(0, 0, 640, 360), 30));
    assert_eq!(stage.play(61_000, |_| Vec::new()), []);
}

#[test]
fn what_changes_now_and_then_is_no_film() {
    let whole = Rect::of_size(FULL_HD);
    // A cursor that blinks, a clock, a terminal whose screen is drawn four times a second, a spinner.
    for (area, rate) in [
        (rect(50, 50, 10, 20), 2),
        (rect(1800, 0, 120, 30), 1),
        (whole, 4),
        (rect(400, 400, 48, 48), 30),
    ] {
        let mut stage = Stage::new(FULL_HD);
        assert_eq!(stage.play(20_000, film(area, rate)), [], "{area:?}");
    }
}

#[test]
fn keys_that_are_typed_fast_are_no_film() {
    let mut stage = Stage::new(FULL_HD);
    let typed = |passed: u64| match passed % 60 {
        0 => vec![rect((passed / 60 % 100) as i32 * 10, 500, 10, 20)],
        _ => Vec::new(),
    };
    assert_eq!(stage.play(20_000, typed), []);
}

#[test]
fn subtitles_and_a_bar_that_grows_do_not_change_the_film() {
    let area = rect(192, 128, 1280, 720);
    let mut stage = Stage::new(FULL_HD);
    let first = stage.play(1000, film(area, 25));
    let play = film(area, 25);
    let films = stage.play(20_000, |passed| {
        let mut rects = play(passed);
        if passed % 1500 == 7 {
            rects.push(rect(400, 780, 800, 120));
        }
        if passed % 200 == 9 {
            rects.push(rect(192, 860, (passed / 20) as i32 % 1280, 10));
        }
        rects
    });
    assert_eq!(areas(&films), [area]);
    assert_eq!(films[0].id, first[0].id);
}

#[test]
fn two_films_are_two() {
    let (left, right) = (rect(64, 64, 640, 360), rect(900, 300, 853, 480));
    let mut stage = Stage::new(FULL_HD);
    let (one, other) = (film(left, 25), film(right, 30));
    let films = stage.play(1500, |passed| [one(passed), other(passed)].concat());
    assert_eq!(films.len(), 2);
    let films = stage.play(400, film(left, 25));
    let moves = |area| {
        films
            .iter()
            .find(|film| film.area == area)
            .map(|film| film.moving)
    };
    assert_eq!([moves(left), moves(right)], [Some(true), Some(false)]);
}

#[test]
fn a_film_that_moved_is_another() {
    let mut stage = Stage::new(FULL_HD);
    let before = stage.play(1000, film(rect(0, 0, 640, 360), 30));
    let there = rect(500, 300, 640, 360);
    let after = stage.play(4000, film(there, 30));
    assert_eq!(areas(&after), [there]);
    assert_ne!(before[0].id, after[0].id);
}

#[test]
fn a_film_that_fills_the_screen_and_leaves_it_again_stays_one() {
    let small = rect(192, 128, 1280, 720);
    let mut stage = Stage::new(FULL_HD);
    let id = stage.play(1000, film(small, 30))[0].id;

    let large = stage.play(1500, film(Rect::of_size(FULL_HD), 30));
    let small_again = stage.play(4000, film(small, 30));

    assert_eq!(areas(&large), [Rect::of_size(FULL_HD)]);
    assert_eq!(areas(&small_again), [small]);
    assert_eq!((large[0].id, small_again[0].id), (id, id));
}

#[test]
fn films_are_few_and_never_meet() {
    let mut stage = Stage::new(FULL_HD);
    let many = |passed: u64| {
        let piece = |at: i32| rect(at % 5 * 384, at / 5 * 256, 200, 130);
        if passed.is_multiple_of(40) {
            (0..20).map(piece).collect()
        } else {
            Vec::new()
        }
    };
    assert_eq!(stage.play(1500, many).len(), MAX_FILMS);
}

#[test]
fn another_surface_has_no_films_and_its_films_have_new_numbers() {
    let area = rect(0, 0, 640, 360);
    let mut stage = Stage::new(FULL_HD);
    let before = stage.play(1000, film(area, 30))[0].id;
    stage.motion.restart(FULL_HD, stage.now);
    assert_eq!(stage.motion.films(stage.now), []);
    assert_ne!(stage.play(1000, film(area, 30))[0].id, before);
}

#[test]
fn updates_outside_of_the_surface_and_surfaces_without_pixels_do_no_harm() {
    let nothing = Size {
        width: 0,
        height: 0,
    };
    for size in [nothing, FULL_HD] {
        let mut stage = Stage::new(size);
        stage.play(1000, film(rect(-5000, -5000, 4000, 4000), 30));
        let everything = Rect {
            left: i32::MIN,
            top: i32::MIN,
            right: i32::MAX,
            bottom: i32::MAX,
        };
        let films = stage.play(1000, film(everything, 30));
        assert_eq!(films.len(), usize::from(size == FULL_HD));
    }
}
