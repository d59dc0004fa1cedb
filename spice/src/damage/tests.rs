use proptest::prelude::*;

use super::*;

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
        match damage.take(*now, budget) {
            Next::Piece(piece) => {
                damage.sent(piece, pixels(piece) as usize * density, *now);
                return Some(piece);
            }
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
        missing.iter_mut().for_each(|rect| *rect = rect.intersection(damage.bounds));
        let mut seen = vec![false; (SIZE.width * SIZE.height) as usize];
        let mut count = 0;

        while let Some(piece) = send(&mut damage, &mut now, budget, density) {
            prop_assert!(!piece.is_empty());
            prop_assert_eq!(piece.intersection(damage.bounds), piece);
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
        prop_assert!(damage.tiles.len() <= Damage::MAX_TILES);
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
    damage.learn(whole, pixels(whole) as usize * 3);
    damage.add(whole);

    while let Some(piece) = send(&mut damage, &mut now, 5000, 3) {
        assert!(pixels(piece) * 3 <= 5000, "{piece:?}");
    }
}

#[test]
fn a_large_budget_takes_rows_of_tiles_at_once() {
    let mut now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    damage.add(Rect::of_size(SIZE));

    let piece = send(&mut damage, &mut now, ANY_BUDGET, 1);

    // 128 Ki pixels: four rows of tiles.
    let four_rows = Rect {
        bottom: 256,
        ..Rect::of_size(SIZE)
    };
    assert_eq!(piece, Some(four_rows));
}

#[test]
fn a_tile_is_not_sent_twice_at_once() {
    let now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    let area = tile(1, 1);
    damage.add(area);
    assert_eq!(damage.take(now, ANY_BUDGET), Next::Piece(area));
    damage.sent(area, 100, now);
    damage.add(area);

    assert_eq!(damage.take(now, ANY_BUDGET), Next::At(now + REST));
    assert_eq!(damage.take(now + REST, ANY_BUDGET), Next::Piece(area));
    assert_eq!(damage.take(now + REST, ANY_BUDGET), Next::Nothing);
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
