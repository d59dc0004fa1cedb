//! Where films play.

use super::model::{Action, Model};
use super::*;

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
