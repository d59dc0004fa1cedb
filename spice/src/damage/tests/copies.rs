//! Copies that the client makes.

use super::model::{Action, Model};
use super::*;

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
