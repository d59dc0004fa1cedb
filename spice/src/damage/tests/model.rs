//! A source and a client, whatever happens: the client ends with the pixels of the source.

use super::*;

/// A source and a client as small surfaces: the client gets whatever the damage says.
pub(super) struct Model {
    pub(super) damage: Damage,
    pub(super) source: Vec<u32>,
    pub(super) client: Vec<u32>,
    /// The piece that was taken, and its pixels once they are read.
    piece: Option<(Rect, Option<Vec<u32>>)>,
    /// It has to be exact.
    refines: bool,
    drawn: u32,
    pub(super) copies: usize,
    pub(super) now: Instant,
}

#[derive(Debug, Clone)]
pub(super) enum Action {
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
    pub(super) const SIZE: Size = Size {
        width: 200,
        height: 150,
    };

    /// At the beginning the whole surface is taken.
    pub(super) fn new() -> Self {
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

    pub(super) fn act(&mut self, action: &Action) {
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

    pub(super) fn finish(&mut self) {
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
