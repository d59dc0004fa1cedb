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

/// A source and a client as small surfaces: the client gets whatever the damage says.
struct Model {
    damage: Damage,
    source: Vec<u32>,
    client: Vec<u32>,
    /// The piece that was taken, and its pixels once they are read.
    piece: Option<(Rect, Option<Vec<u32>>)>,
    /// It has to be exact.
    refines: bool,
    drawn: u32,
    copies: usize,
    now: Instant,
}

#[derive(Debug, Clone)]
enum Action {
    Draw(Rect),
    Copy(Point, Rect),
    Take,
    Read,
    Send,
    SendLossy,
    Film(Vec<Rect>),
    Picture,
    Refuse,
}

impl Model {
    const SIZE: Size = Size {
        width: 200,
        height: 150,
    };

    /// At the beginning the whole surface is taken.
    fn new() -> Self {
        let now = Instant::now();
        Self {
            damage: Damage::of_read(Self::SIZE, now),
            source: vec![0; 200 * 150],
            client: vec![1; 200 * 150],
            piece: Some((Rect::of_size(Self::SIZE), None)),
            refines: false,
            drawn: 0,
            copies: 0,
            now,
        }
    }

    fn get(surface: &[u32], area: Rect) -> Vec<u32> {
        let rows = surface.chunks_exact(200).skip(area.top as usize);
        rows.take(area.height() as usize)
            .flat_map(|row| &row[area.left as usize..area.right as usize])
            .copied()
            .collect()
    }

    fn put(surface: &mut [u32], area: Rect, pixels: &[u32]) {
        let rows = surface.chunks_exact_mut(200).skip(area.top as usize);
        for (row, new) in rows.zip(pixels.chunks_exact(area.width() as usize)) {
            row[area.left as usize..area.right as usize].copy_from_slice(new);
        }
    }

    fn copy(surface: &mut [u32], copy: Move) {
        let pixels = Self::get(surface, copy.source());
        Self::put(surface, copy.to, &pixels);
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Draw(area) => {
                // No two pixels that were ever drawn are the same.
                let start = self.drawn;
                self.drawn += area.pixels() as u32;
                let new: Vec<u32> = (start + 2..self.drawn + 2).collect();
                Self::put(&mut self.source, *area, &new);
                self.damage.add(*area);
            }
            Action::Copy(from, to) => {
                let copy = Move {
                    from: *from,
                    to: *to,
                };
                Self::copy(&mut self.source, copy);
                self.damage.copied(copy);
            }
            Action::Take if self.piece.is_none() => match self.damage.take(self.now, 20_000, false)
            {
                Next::Copy(copy) => {
                    Self::copy(&mut self.client, copy);
                    self.copies += 1;
                }
                Next::Piece(piece) => (self.piece, self.refines) = (Some((piece, None)), false),
                Next::Refinement(piece) => {
                    (self.piece, self.refines) = (Some((piece, None)), true);
                }
                Next::At(later) => self.now = later,
                Next::Nothing => {}
            },
            Action::Take => {}
            Action::Read => {
                if let Some((piece, pixels @ None)) = &mut self.piece {
                    *pixels = Some(Self::get(&self.source, *piece));
                }
            }
            Action::Send => {
                self.act(&Action::Read);
                if let Some((piece, Some(pixels))) = self.piece.take() {
                    Self::put(&mut self.client, piece, &pixels);
                    self.damage.sent(piece, pixels.len(), self.now);
                }
            }
            Action::SendLossy if self.refines => self.act(&Action::Send),
            Action::SendLossy => {
                self.act(&Action::Read);
                if let Some((piece, Some(pixels))) = self.piece.take() {
                    Self::put(&mut self.client, piece, &approximate(&pixels));
                    self.damage.sent_lossy(piece, pixels.len() / 8, self.now);
                }
            }
            Action::Film(areas) => self.damage.set_films(areas.clone()),
            Action::Picture => {
                let film = self.damage.films.first().copied();
                if let (Some(film), None) = (film, &self.piece)
                    && self.damage.begin_picture(vec![film], film)
                {
                    let pixels = Self::get(&self.source, film);
                    Self::put(&mut self.client, film, &approximate(&pixels));
                }
            }
            Action::Refuse => {
                if let Some((piece, _)) = self.piece.take() {
                    self.damage
                        .refused(piece, 4 * piece.pixels() as usize, true);
                }
            }
        }
    }

    fn finish(&mut self) {
        self.act(&Action::Film(Vec::new()));
        while self.piece.is_some() || !self.damage.is_empty() {
            self.act(&Action::Send);
            self.act(&Action::Take);
        }
    }
}

/// What a client shows of pixels whose image was lossy.
fn approximate(pixels: &[u32]) -> Vec<u32> {
    pixels.iter().map(|pixel| pixel | 1 << 31).collect()
}

fn on_model() -> impl Strategy<Value = Rect> {
    ((0..199_i32, 1..200_i32), (0..149_i32, 1..150_i32)).prop_map(
        |((left, width), (top, height))| Rect {
            left,
            top,
            right: (left + width).min(200),
            bottom: (top + height).min(150),
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    let copy = (on_model(), -60..60, -60..60).prop_map(|(from, x, y)| {
        let whole = Rect::of_size(Model::SIZE);
        let by = Point { x, y };
        let back = Point { x: -x, y: -y };
        let to = from.shifted(by).intersection(whole);
        let from = to.shifted(back);
        (!to.is_empty()).then_some(Action::Copy(
            Point {
                x: from.left,
                y: from.top,
            },
            to,
        ))
    });
    prop_oneof![
        2 => on_model().prop_map(|area| Action::Draw(Rect {
            right: area.right.min(area.left + 30),
            bottom: area.bottom.min(area.top + 30),
            ..area
        })),
        3 => copy.prop_map(|copy| copy.unwrap_or(Action::Take)),
        4 => Just(Action::Take),
        1 => Just(Action::Read),
        3 => Just(Action::Send),
        2 => Just(Action::SendLossy),
        1 => Just(Action::Refuse),
        1 => prop::collection::vec(on_model(), 0..2).prop_map(Action::Film),
        2 => Just(Action::Picture),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_client_that_copies_and_draws_and_shows_films_and_lossy_images_ends_with_the_pixels_of_the_source(
        actions in prop::collection::vec(action(), 0..80)
    ) {
        let mut model = Model::new();

        actions.iter().for_each(|action| model.act(action));
        model.finish();

        prop_assert!(model.source == model.client);
    }
}

#[test]
fn what_a_client_has_is_copied_and_not_sent_again() {
    let mut model = Model::new();
    model.finish();
    let to = Rect {
        bottom: 137,
        ..Rect::of_size(Model::SIZE)
    };

    for _ in 0..20 {
        model.act(&Action::Copy(Point { x: 0, y: 13 }, to));
    }

    assert_eq!(model.damage.damaged, 0);
    model.finish();
    assert_eq!(model.copies, 20);
}

#[test]
fn what_a_client_has_not_is_sent_where_it_was_copied_to() {
    let mut model = Model::new();
    model.finish();
    model.now += REST;
    let area = |left, top| Rect {
        left,
        top,
        right: left + 20,
        bottom: top + 10,
    };
    model.act(&Action::Draw(area(70, 70)));

    model.act(&Action::Copy(
        Point { x: 64, y: 64 },
        Rect {
            left: 0,
            top: 0,
            right: 60,
            bottom: 60,
        },
    ));

    let copy = model.damage.take(model.now, ANY_BUDGET, false);
    assert!(matches!(copy, Next::Copy(_)), "{copy:?}");
    let pieces = [0, 1].map(|_| model.damage.take(model.now, ANY_BUDGET, false));
    assert_eq!(pieces, [area(6, 6), area(70, 70)].map(Next::Piece));
    assert!(model.damage.is_empty());
}

#[test]
fn copies_that_nobody_makes_become_damage() {
    let mut model = Model::new();
    model.finish();
    let to = Rect {
        bottom: 137,
        ..Rect::of_size(Model::SIZE)
    };

    for _ in 0..1000 {
        model.act(&Action::Copy(Point { x: 0, y: 13 }, to));
    }

    assert_eq!(model.damage.moves.len(), MAX_MOVES);
    model.finish();
    assert!(model.source == model.client);
}

#[test]
fn copies_from_outside_are_damage() {
    let mut model = Model::new();
    model.finish();
    let to = tile(0, 0);

    model.damage.copied(Move {
        from: Point {
            x: i32::MIN,
            y: 120,
        },
        to,
    });

    assert_eq!(
        model.damage.take(model.now + REST, ANY_BUDGET, false),
        Next::Piece(to)
    );
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
fn what_is_copied_before_it_is_sent_is_sent_once() {
    let now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    let copy = Move {
        from: Point { x: 64, y: 64 },
        to: tile(4, 2),
    };
    damage.add(tile(1, 1));
    damage.copied(copy);

    assert_eq!(damage.take(now, ANY_BUDGET, false), Next::Piece(tile(1, 1)));
    damage.sent(tile(1, 1), 100, now);
    assert_eq!(damage.take(now, ANY_BUDGET, false), Next::Copy(copy));
    assert_eq!(damage.take(now, ANY_BUDGET, false), Next::Nothing);
}

#[test]
fn what_changes_after_it_was_copied_is_sent_in_both_places() {
    let mut now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    damage.add(tile(1, 1));
    damage.copied(Move {
        from: Point { x: 64, y: 64 },
        to: tile(4, 2),
    });
    damage.add(tile(1, 1));

    let mut sent = [ANY_BUDGET; 2].map(|budget| send(&mut damage, &mut now, budget, 1));
    sent.sort_by_key(|piece| piece.map(|piece| piece.left));
    assert_eq!(sent, [Some(tile(1, 1)), Some(tile(4, 2))]);
    assert_eq!(send(&mut damage, &mut now, ANY_BUDGET, 1), None);
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

#[test]
fn what_changes_on_a_film_is_taken_as_a_picture_and_no_other_way() {
    let now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    let film = Rect {
        left: 30,
        top: 30,
        right: 300,
        bottom: 200,
    };
    damage.set_films(vec![film]);
    damage.add(film);
    assert_eq!(damage.take(now + REST, ANY_BUDGET, false), Next::Nothing);
    assert!(damage.touches(film));

    assert!(damage.begin_picture(vec![film], film));

    assert!(!damage.touches(film));
    assert_eq!(damage.take(now + REST, ANY_BUDGET, false), Next::Nothing);
}

#[test]
fn a_film_that_is_over_is_damage() {
    let now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    let film = tile(1, 1);
    damage.set_films(vec![film]);
    damage.set_films(Vec::new());
    assert_eq!(
        damage.take(now + REST, ANY_BUDGET, false),
        Next::Piece(film)
    );
}

#[test]
fn what_changes_beside_a_film_is_sent_while_it_plays() {
    let now = Instant::now();
    let mut damage = Damage::new(SIZE, now);
    let film = Rect {
        left: 30,
        top: 30,
        right: 300,
        bottom: 200,
    };
    damage.set_films(vec![film]);
    let echo = Rect {
        left: 10,
        top: 40,
        right: 29,
        bottom: 50,
    };
    damage.add(echo);
    assert_eq!(
        damage.take(now + REST, ANY_BUDGET, false),
        Next::Piece(echo)
    );
}

#[test]
fn what_a_client_copies_it_copies_before_the_next_picture() {
    let mut model = Model::new();
    model.finish();
    let film = tile(0, 0);
    let to = tile(1, 1);
    model.act(&Action::Copy(Point { x: 0, y: 0 }, to));

    assert!(!model.damage.begin_picture(vec![film], film));

    model.act(&Action::Take);
    assert!(model.damage.begin_picture(vec![film], film));
}

/// A surface whose first tile was sent as a lossy image.
fn with_lossy(now: Instant) -> Damage {
    let mut damage = Damage::new(SIZE, now);
    damage.add(tile(0, 0));
    assert_eq!(damage.take(now, ANY_BUDGET, true), Next::Piece(tile(0, 0)));
    damage.sent_lossy(tile(0, 0), 500, now);
    damage
}

#[test]
fn a_lossy_image_is_made_exact_when_nothing_else_is_to_be_sent() {
    let now = Instant::now();
    let mut damage = with_lossy(now);
    let Next::At(later) = damage.take(now, ANY_BUDGET, false) else {
        panic!("it is not refined");
    };
    damage.add(tile(3, 3));

    let taken = [0; 3].map(|_| damage.take(later, ANY_BUDGET, false));

    let wanted = [
        Next::Piece(tile(3, 3)),
        Next::Refinement(tile(0, 0)),
        Next::Nothing,
    ];
    assert_eq!(taken, wanted);
}

#[test]
fn what_changes_before_it_is_exact_may_be_lossy_again() {
    let now = Instant::now();
    let mut damage = with_lossy(now);
    let later = now + Duration::from_secs(1);

    damage.add(tile(0, 0));

    assert_eq!(
        damage.take(later, ANY_BUDGET, false),
        Next::Piece(tile(0, 0))
    );
}

#[test]
fn a_copy_of_a_lossy_image_is_copied_and_made_exact_as_well() {
    let now = Instant::now();
    let mut damage = with_lossy(now);
    let copy = Move {
        from: Point { x: 0, y: 0 },
        to: tile(4, 2),
    };
    let later = now + Duration::from_secs(1);

    damage.copied(copy);

    assert_eq!(damage.take(now, ANY_BUDGET, false), Next::Copy(copy));
    let mut refined = [0; 2].map(|_| damage.take(later, ANY_BUDGET, false));
    refined.sort_by_key(|next| *next != Next::Refinement(tile(0, 0)));
    assert_eq!(refined, [tile(0, 0), tile(4, 2)].map(Next::Refinement));
}

#[test]
fn a_lossy_image_says_nothing_of_what_exact_pixels_take() {
    let now = Instant::now();
    let mut damage = with_lossy(now);

    damage.add(tile(0, 0));

    assert_eq!(damage.exact_bytes(), 64.0 * 64.0);
}
