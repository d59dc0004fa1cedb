//! Anything at all.

use proptest::prelude::*;

use super::*;

/// A step of anybody's.
#[derive(Debug, Clone)]
enum Step {
    Guest(Vec<u8>),
    GuestMessage(u32, Vec<u8>),
    Client(ClientId, Vec<u8>),
    ClientMessage(ClientId, u32, Vec<u8>),
    Read(ClientId),
    GuestReads(usize),
    Start(ClientId, u32),
    Join(ClientId),
    Leave(ClientId),
    Open,
    Close,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop::collection::vec(prop_oneof![0u8..3, any::<u8>()], 0..80);
    let id = || 0u32..3;
    prop_oneof![
        1 => bytes().prop_map(Step::Guest),
        8 => (0u32..18, bytes()).prop_map(|(kind, body)| Step::GuestMessage(kind, body)),
        1 => (id(), bytes()).prop_map(|(id, bytes)| Step::Client(id, bytes)),
        8 => (id(), 0u32..18, bytes())
            .prop_map(|(id, kind, body)| Step::ClientMessage(id, kind, body)),
        2 => id().prop_map(Step::Read),
        2 => (0usize..5000).prop_map(Step::GuestReads),
        3 => (id(), any::<u32>()).prop_map(|(id, tokens)| Step::Start(id, tokens)),
        2 => id().prop_map(Step::Join),
        1 => id().prop_map(Step::Leave),
        2 => Just(Step::Open),
        1 => Just(Step::Close),
        1 => (0u64..20).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn whatever_anybody_does_the_guest_gets_whole_messages(
        steps in prop::collection::vec(step(), 0..100)
    ) {
        let mut world = World::with_client(A, ALL);
        let mut since_open = Vec::new();
        let mut buffer = [0; 5000];
        for step in steps {
            let now = world.now;
            let board = &mut world.board;
            match step {
                Step::Guest(bytes) => { board.hear_guest(&bytes, now); }
                Step::GuestMessage(kind, body) => {
                    board.hear_guest(&chunk(1, Outgoing::new(kind, &body).bytes()), now);
                }
                Step::Client(id, bytes) => { let _ = board.hear_client(id, bytes, now); }
                Step::ClientMessage(id, kind, body) => {
                    let message = Outgoing::new(kind, &body).bytes().to_vec();
                    let _ = board.hear_client(id, message, now);
                }
                Step::Read(id) => while let Ok(Some(_)) = board.next_for(id, now) {},
                Step::GuestReads(count) => {
                    let count = board.feed_guest(&mut buffer[..count], now);
                    since_open.extend(&buffer[..count]);
                }
                Step::Start(id, tokens) => board.start(id, tokens, now),
                Step::Join(id) => { board.join(id, ALL, id != 0, now); }
                Step::Leave(id) => board.leave(id, now),
                Step::Open => { board.open(); since_open.clear(); }
                Step::Close => { board.close(); since_open.clear(); }
                Step::Wait(seconds) => {
                    world.now += Duration::from_secs(seconds);
                    board.tick(world.now);
                }
            }
            prop_assert!(world.board.held() < 1 << 20, "{} bytes", world.board.held());
            if !world.board.is_connected() {
                // What a broken agent was given up to then is no matter.
                since_open.clear();
                while world.board.feed_guest(&mut buffer, world.now) > 0 {}
            }
        }
        loop {
            let count = world.board.feed_guest(&mut buffer, world.now);
            since_open.extend(&buffer[..count]);
            if count == 0 { break }
        }
        world.guest = since_open;
        world.agent_got_on(Port::Server);
        world.agent_got_on(Port::Client);
    }
}
