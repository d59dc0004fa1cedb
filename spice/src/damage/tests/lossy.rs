//! Lossy images and what follows them.

use super::*;

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
