//! Who owns the clipboards, and who gets their content.

use super::*;

#[test]
fn what_the_guest_copies_a_client_pastes() {
    let mut world = World::with_client(A, ALL);

    world.agent_grabs(0);
    assert_eq!(
        world.client_got(A),
        [(kind::CLIPBOARD_GRAB, words(&[0, 0, TEXT]))]
    );
    world.client(A, kind::CLIPBOARD_REQUEST, &words(&[0, TEXT]));
    assert_eq!(
        world.agent_got(),
        [(kind::CLIPBOARD_REQUEST, words(&[0, TEXT]))]
    );
    let content = [words(&[0, TEXT]), b"from the guest".to_vec()].concat();
    world.agent(kind::CLIPBOARD, &content);

    assert_eq!(world.client_got(A), [(kind::CLIPBOARD, content)]);
}

#[test]
fn what_a_client_copies_the_guest_pastes() {
    let mut world = World::with_client(A, ALL);

    world.client_grabs(A, 0);
    assert_eq!(
        world.agent_got(),
        [(kind::CLIPBOARD_GRAB, words(&[0, 0, TEXT]))]
    );
    world.agent(kind::CLIPBOARD_REQUEST, &words(&[0, TEXT]));
    assert_eq!(
        world.client_got(A),
        [(kind::CLIPBOARD_REQUEST, words(&[0, TEXT]))]
    );
    let long: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let content = [words(&[0, TEXT]), long].concat();
    world.client(A, kind::CLIPBOARD, &content);

    assert_eq!(world.agent_got(), [(kind::CLIPBOARD, content)]);
}

#[test]
fn a_client_that_knows_one_clipboard_is_spoken_to_in_its_way() {
    let mut world = World::with_client(A, ALL);
    world.enter(B, ALL, &PLAIN);
    world.client_got(B);

    world.agent_grabs(0);
    world.agent(kind::CLIPBOARD_GRAB, &words(&[1, 0, TEXT]));
    assert_eq!(
        world.client_got(B),
        [(kind::CLIPBOARD_GRAB, words(&[TEXT]))],
        "and the primary selection is not for it"
    );
    world.client(B, kind::CLIPBOARD_GRAB, &words(&[TEXT]));

    assert_eq!(
        world.agent_got(),
        [(kind::CLIPBOARD_GRAB, words(&[0, 1, TEXT]))]
    );
}

#[test]
fn content_goes_to_who_asked() {
    let mut world = World::with_client(A, ALL);
    world.enter(B, ALL, &SPICE_GTK);
    world.agent_grabs(0);
    world.client_got(A);
    world.client_got(B);

    world.client(B, kind::CLIPBOARD_REQUEST, &words(&[0, TEXT]));
    world.agent(kind::CLIPBOARD, &words(&[0, TEXT, 0x6968]));

    assert_eq!(world.client_got(A), []);
    assert_eq!(
        world.client_got(B),
        [(kind::CLIPBOARD, words(&[0, TEXT, 0x6968]))]
    );
}

#[test]
fn one_client_s_clipboard_is_not_another_s() {
    let mut world = World::with_client(A, ALL);
    world.enter(B, ALL, &SPICE_GTK);
    world.client_got(B);
    world.client_grabs(A, 0);

    world.client(B, kind::CLIPBOARD_REQUEST, &words(&[0, TEXT]));

    assert_eq!(world.client_got(A), []);
    assert_eq!(world.client_got(B), [(kind::CLIPBOARD, words(&[0, 0]))]);
}

#[test]
fn a_client_that_had_the_guest_s_clipboard_is_told_when_another_takes_it() {
    let mut world = World::with_client(A, ALL);
    world.enter(B, ALL, &SPICE_GTK);
    world.agent_grabs(0);
    world.client_got(B);

    world.client_grabs(A, 1);

    assert_eq!(
        world.client_got(B),
        [(kind::CLIPBOARD_RELEASE, words(&[0]))]
    );
}

#[test]
fn a_latecomer_hears_what_the_guest_offers() {
    let mut world = World::with_client(A, ALL);
    world.agent_grabs(0);

    world.enter(B, ALL, &SPICE_GTK);

    let grab = (kind::CLIPBOARD_GRAB, words(&[0, 0, TEXT]));
    assert_eq!(world.client_got(B).last(), Some(&grab));
}

#[test]
fn of_two_grabs_that_cross_the_client_s_wins() {
    let mut world = World::with_client(A, ALL);
    // The agent's reaches the client after that has sent its own, which has the same number.
    world.agent_grabs(0);
    world.client_grabs(A, 0);
    assert_eq!(
        world.agent_got(),
        [(kind::CLIPBOARD_GRAB, words(&[0, 1, TEXT]))]
    );

    // The agent's next crosses ours.
    world.agent_grabs(1);
    world.agent(kind::CLIPBOARD_REQUEST, &words(&[0, TEXT]));

    let grab = (kind::CLIPBOARD_GRAB, words(&[0, 0, TEXT]));
    let request = (kind::CLIPBOARD_REQUEST, words(&[0, TEXT]));
    assert_eq!(world.client_got(A), [grab, request], "it still owns it");
}

#[test]
fn a_release_that_is_too_late_releases_nothing() {
    let mut world = World::with_client(A, ALL);
    world.agent_grabs(0);
    world.client_grabs(A, 1);
    world.client_got(A);

    world.agent(kind::CLIPBOARD_RELEASE, &words(&[0]));
    world.agent(kind::CLIPBOARD_REQUEST, &words(&[0, TEXT]));

    let request = (kind::CLIPBOARD_REQUEST, words(&[0, TEXT]));
    assert_eq!(world.client_got(A), [request]);
}

#[test]
fn an_agent_that_asks_nobody_is_answered() {
    let mut world = World::with_client(A, ALL);

    world.agent(kind::CLIPBOARD_REQUEST, &words(&[0, TEXT]));

    assert_eq!(world.agent_got(), [(kind::CLIPBOARD, words(&[0, 0]))]);
}

#[test]
fn an_owner_that_leaves_owes_the_agent_an_answer() {
    let mut world = World::with_client(A, ALL);
    world.client_grabs(A, 0);
    world.agent(kind::CLIPBOARD_REQUEST, &words(&[0, TEXT]));
    world.agent_got();

    world.board.leave(A, world.now);

    let answer = (kind::CLIPBOARD, words(&[0, 0]));
    let release = (kind::CLIPBOARD_RELEASE, words(&[0]));
    assert_eq!(world.agent_got(), [answer, release]);
}

#[test]
fn content_that_nobody_asked_for_goes_nowhere() {
    let mut world = World::with_client(A, ALL);
    world.client_grabs(A, 0);
    world.agent_got();

    world.client(A, kind::CLIPBOARD, &words(&[0, TEXT, 1]));
    world.agent(kind::CLIPBOARD, &words(&[0, TEXT, 2]));

    assert_eq!((world.agent_got(), world.client_got(A)), (vec![], vec![]));
}

#[test]
fn a_forbidden_clipboard_is_not_offered_either_way() {
    let mut world = World::with_agent();
    let grants = Grants {
        clipboard: false,
        ..ALL
    };
    world.enter(A, grants, &SPICE_GTK);
    world.agent(kind::ANNOUNCE_CAPABILITIES, &announce(&VDAGENTD, false));
    let Some((_, heard)) = world.client_got(A).pop() else {
        panic!("nothing was announced");
    };

    world.agent_grabs(0);
    world.client_grabs(A, 0);

    let (_, caps) = Caps::parse(&heard).expect("it is well formed");
    assert!(Caps::ALL_CLIPBOARD.iter().all(|bit| !caps.has(*bit)));
    assert_eq!((world.agent_got(), world.client_got(A)), (vec![], vec![]));
}
