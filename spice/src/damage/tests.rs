mod copies;
mod films;
mod lossy;
mod model;

use proptest::prelude::*;

use super::*;

impl Damage {
    /// Whether the client has everything.
    fn is_empty(&self) -> bool {
        self.damaged == 0 && self.moves.is_empty() && self.refine_at.is_none()
    }
}

const SIZE: Size = Size {
    width: 500,
    height: 300,
};
const ANY_BUDGET: usize = 1 << 20;

fn rect() -> impl Strategy<Value = Rect> {
    let side = || (-40..560, 1..300);
    (side(), side()).prop_map(|((left, width), (top, height))| Rect {
        left,
        top,
        right: left + width,
        bottom: top + height,
    })
}

fn tile(column: i32, row: i32) -> Rect {
    Rect {
        left: column * 64,
        top: row * 64,
        right: column * 64 + 64,
        bottom: row * 64 + 64,
    }
}

/// Takes a piece and says that it took `density` bytes a pixel.
fn send(damage: &mut Damage, now: &mut Instant, budget: usize, density: usize) -> Option<Rect> {
    loop {
        match damage.take(*now, budget, false) {
            Next::Piece(piece) | Next::Refinement(piece) => {
                damage.sent(piece, piece.pixels() as usize * density, *now);
                return Some(piece);
            }
            Next::Copy(_) => {}
            Next::At(later) => *now = later,
            Next::Nothing => return None,
        }
    }
}

proptest! {
    #[test]
    fn every_damaged_pixel_is_taken_and_then_nothing_is_left(
        added in prop::collection::vec(rect(), 1..12), budget in 1usize..100_000, density in 0usize..5
    ) {
        let mut now = Instant::now();
        let mut damage = Damage::new(SIZE, now);
        for &rect in &added {
            damage.add(rect);
        }
        let mut missing = added.clone();
        missing.iter_mut().for_each(|rect| *rect = rect.intersection(damage.tiles.bounds()));
        let mut seen = vec![false; (SIZE.width * SIZE.height) as usize];
        let mut count = 0;

        while let Some(piece) = send(&mut damage, &mut now, budget, density) {
            prop_assert!(!piece.is_empty());
            prop_assert_eq!(piece.intersection(damage.tiles.bounds()), piece);
            for y in piece.top..piece.bottom {
                for x in piece.left..piece.right {
                    seen[(y * 500 + x) as usize] = true;
                }
            }
            count += 1;
            // A row of a tile is the smallest piece, and no pixel is taken twice.
            prop_assert!(count <= 300 * 8);
        }

        prop_assert!(damage.is_empty());
        for rect in missing {
            for y in rect.top..rect.bottom {
                prop_assert!((rect.left..rect.right).all(|x| seen[(y * 500 + x) as usize]));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Other tiles are damaged again as soon as they are sent, some cheap, some dear; this one
    /// waits no longer than it takes to forget what was sent for it.
    #[test]
    fn no_tile_starves_whatever_the_others_do(
        debt in 0usize..1_000_000, cheap in 0i32..30, density in 1usize..5
    ) {
        let mut now = Instant::now();
        let mut damage = Damage::new(SIZE, now);
        let patient = tile(3, 2);
        damage.sent(patient, debt, now);
        damage.add(patient);
        let start = now;
        let limit = Duration::from_secs(30);
        loop {
            for index in (0..40).filter(|&index| index != 2 * 8 + 3) {
                let whole = tile(index % 8, index / 8);
                let part = Rect { right: whole.left + 1, bottom: whole.top + 1, ..whole };
                damage.add(if index < cheap { part } else { whole });
            }
            let piece = send(&mut damage, &mut now, 1 << 14, density);
            if piece.is_some_and(|piece| !piece.intersection(patient).is_empty()) {
                break;
            }
            // A link of 10 Mbit/s.
            now += Duration::from_millis(10);
            prop_assert!(now - start < limit, "it waits for ever");
        }
    }

    #[test]
    fn any_rectangle_and_any_size_are_accepted(
        edges in prop::collection::vec(any::<(i32, i32, i32, i32)>(), 0..20),
        width in any::<u32>(), height in any::<u32>(), budget in any::<usize>()
    ) {
        let mut now = Instant::now();
        let mut damage = Damage::new(Size { width, height }, now);
        prop_assert!(damage.tiles.len() <= Tiles::<Tile>::MAX_TILES);
        for (left, top, right, bottom) in edges {
            damage.add(Rect { left, top, right, bottom });
            send(&mut damage, &mut now, budget, 3);
        }
    }
}

#[test]
fn small_new_damage_goes_ahead_of_a_film() {
    let mut now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    let echo = Rect {
        left: 3 * 64 + 5,
        top: 2 * 64 + 5,
        right: 3 * 64 + 13,
        bottom: 2 * 64 + 21,
    };
    let film = Rect {
        top: 192,
        ..Rect::of_size(SIZE)
    };
    for key in 0..50 {
        for _ in 0..7 {
            damage.add(film);
            assert!(send(&mut damage, &mut now, 12_500, 3).is_some());
            now += Duration::from_millis(10);
        }
        damage.add(film);
        damage.add(echo);

        let first = send(&mut damage, &mut now, 12_500, 3);

        assert_eq!(first, Some(echo), "key {key}");
    }
}

#[test]
fn a_budget_cuts_pieces_by_what_their_tiles_took_before() {
    let mut now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    let whole = Rect::of_size(SIZE);
    damage.learn(whole, whole.pixels() as usize * 3, true);
    damage.add(whole);

    while let Some(piece) = send(&mut damage, &mut now, 5000, 3) {
        assert!(piece.pixels() * 3 <= 5000, "{piece:?}");
    }
}

#[test]
fn a_large_budget_takes_rows_of_tiles_at_once() {
    let mut now = Instant::now();
    let size = Size {
        width: 1000,
        height: 600,
    };
    let mut damage = Damage::new(size, now);
    damage.add(Rect::of_size(size));

    let piece = send(&mut damage, &mut now, ANY_BUDGET, 1);

    // 256 Ki pixels: four rows of tiles.
    let four_rows = Rect {
        bottom: 256,
        ..Rect::of_size(size)
    };
    assert_eq!(piece, Some(four_rows));
}

#[test]
fn a_little_that_is_not_damaged_goes_along() {
    let now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    let ragged = Rect {
        left: 70,
        ..tile(1, 1)
    };
    damage.add(tile(1, 0));
    damage.add(ragged);
    let far = tile(6, 3);
    damage.add(far);

    let both = tile(1, 0).union(tile(1, 1));
    assert_eq!(damage.take(now, ANY_BUDGET, false), Next::Piece(both));
    assert_eq!(damage.take(now, ANY_BUDGET, false), Next::Piece(far));
    assert_eq!(damage.take(now, ANY_BUDGET, false), Next::Nothing);
}

#[test]
fn an_echo_does_not_wait_for_the_film_beside_it() {
    let now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    let (film, echo) = (tile(1, 1), tile(2, 1));
    damage.sent(film, 100_000, now);
    damage.add(film);
    damage.add(echo);

    // A millisecond of a fast link is more than both take; here it is less.
    let (later, budget) = (now + LONG_REST, 1 << 14);
    assert_eq!(damage.take(later, budget, false), Next::Piece(echo));
    assert_eq!(damage.take(later, ANY_BUDGET, false), Next::Piece(film));
}

#[test]
fn what_a_fast_link_takes_at_once_goes_as_one() {
    let now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    let (film, echo) = (tile(1, 1), tile(2, 1));
    damage.sent(film, 10_000, now);
    damage.add(film);
    damage.add(echo);

    let both = film.union(echo);
    assert_eq!(
        damage.take(now + LONG_REST, ANY_BUDGET, false),
        Next::Piece(both)
    );
}

#[test]
fn what_changes_all_the_time_is_sent_thirty_times_a_second() {
    let mut now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    let film = tile(1, 1);
    let mut sendings = 0;
    for _ in 0..2000 {
        damage.add(film);
        if let Next::Piece(piece) = damage.take(now, ANY_BUDGET, false) {
            damage.sent(piece, 100, now);
            sendings += 1;
        }
        now += Duration::from_millis(1);
    }

    assert!((60..80).contains(&sendings), "{sendings}");
}

#[test]
fn a_tile_is_not_sent_twice_at_once() {
    let now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    let area = tile(1, 1);
    damage.add(area);
    assert_eq!(damage.take(now, ANY_BUDGET, false), Next::Piece(area));
    damage.sent(area, 100, now);
    damage.add(area);

    assert_eq!(damage.take(now, ANY_BUDGET, false), Next::At(now + REST));
    assert_eq!(
        damage.take(now + REST, ANY_BUDGET, false),
        Next::Piece(area)
    );
    assert_eq!(damage.take(now + REST, ANY_BUDGET, false), Next::Nothing);
}

#[test]
fn what_takes_much_rests_longer() {
    let now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    damage.sent(tile(1, 1), 10_000, now);
    damage.sent(tile(3, 1), 100, now);
    damage.add(tile(1, 1));
    damage.add(tile(3, 1));

    let soon = now + REST;
    let [first, second] = [soon; 2].map(|now| damage.take(now, ANY_BUDGET, false));

    assert_eq!(first, Next::Piece(tile(3, 1)));
    assert_eq!(second, Next::At(now + LONG_REST));
}

#[test]
fn what_is_drawn_on_a_blank_surface_is_not_expected_to_take_nothing() {
    let now = Instant::now();
    let mut damage = Damage::of_read(SIZE, now);
    let whole = damage.tiles.bounds();
    damage.filled(whole, 41, now);
    damage.add(whole);

    let Next::Piece(first) = damage.take(now + LONG_REST, 8192, false) else {
        panic!("nothing is taken");
    };

    assert!(first.pixels() as f32 * DENSITY <= 8192.0, "{first:?}");
}

#[test]
fn pieces_that_took_little_let_others_be_larger() {
    let mut now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    damage.add(damage.tiles.bounds());
    let mut next = |bytes: usize| {
        let Next::Piece(piece) = damage.take(now, 4096, false) else {
            panic!("nothing is taken");
        };
        damage.sent(piece, bytes, now);
        now += LONG_REST;
        piece
    };

    let sizes = [41, 41, 41, 100_000, 41, 41].map(|bytes| next(bytes).pixels());

    assert!(sizes[2] > sizes[0], "{sizes:?}");
    assert!(sizes[4] < sizes[3], "{sizes:?}");
    assert!(sizes[5] > sizes[4], "{sizes:?}");
}

#[test]
fn tiles_out_of_step_are_sent_together_again() {
    let now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    let (both, later) = (tile(1, 1).union(tile(2, 1)), now + REST / 2);
    damage.sent(tile(1, 1), 100, now);
    damage.sent(tile(2, 1), 100, later);
    damage.add(both);

    // The second has rested for half of its time when the first may go.
    assert_eq!(damage.take(later, ANY_BUDGET, false), Next::At(now + REST));
    let together = damage.take(now + REST, ANY_BUDGET, false);
    assert_eq!(together, Next::Piece(both));
}

#[test]
fn what_was_just_sent_does_not_go_along_with_a_neighbour() {
    let now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    damage.sent(tile(1, 1), 100, now);
    damage.sent(tile(2, 1), 100, now + REST / 2 + Duration::from_millis(1));
    damage.add(tile(1, 1).union(tile(2, 1)));

    let alone = damage.take(now + REST, ANY_BUDGET, false);

    assert_eq!(alone, Next::Piece(tile(1, 1)));
}

#[test]
fn debts_stay_finite_over_months() {
    let mut now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    for _ in 0..10_000 {
        damage.add(tile(0, 0));
        send(&mut damage, &mut now, ANY_BUDGET, 4);
        now += Duration::from_secs(600);
    }
    assert!(damage.tiles.iter().all(|tile| tile.debt.is_finite()));
}
