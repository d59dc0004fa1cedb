use std::time::Duration;

use proptest::prelude::*;
use tokio::io::duplex;
use tokio::time::timeout;

use super::*;

fn open() -> Arc<Pipe> {
    let pipe = Pipe::new();
    pipe.open();
    pipe
}

/// Whatever waits for nothing is done by now.
async fn now<F: Future>(future: F) -> Option<F::Output> {
    timeout(Duration::from_millis(20), future).await.ok()
}

fn bytes(text: &str) -> PipeEvent {
    PipeEvent::Bytes(text.as_bytes().to_vec())
}

#[tokio::test]
async fn bytes_and_breaks_go_both_ways_in_order() {
    let pipe = open();
    let place = pipe.line_up();
    place.send(b"to ").await;
    place.send(b"machine").await;
    place.send_break().await;
    pipe.send(b"to client");
    pipe.send_break();

    let events: Vec<_> = std::iter::from_fn(|| pipe.take()).collect();
    assert_eq!(
        events,
        [PipeEvent::Joined, bytes("to machine"), PipeEvent::Break]
    );
    assert_eq!(place.next().await, Item::Mark(PortEvent::Opened));
    assert_eq!(place.next().await, Item::Bytes(b"to client".to_vec()));
    assert_eq!(place.next().await, Item::Mark(PortEvent::Break));
}

#[tokio::test]
async fn the_second_client_waits_until_the_machine_knows_that_the_first_left() {
    let pipe = open();
    let (first, second) = (pipe.line_up(), pipe.line_up());
    first.send(b"one").await;
    assert_eq!(now(second.send(b"two")).await, None);
    drop(first);
    assert_eq!(now(second.send(b"two")).await, None);

    let events: Vec<_> = std::iter::from_fn(|| pipe.take()).collect();
    assert_eq!(
        events,
        [
            PipeEvent::Joined,
            bytes("one"),
            PipeEvent::Left,
            PipeEvent::Joined
        ]
    );
    second.send(b"two").await;
    assert_eq!(pipe.take(), Some(bytes("two")));
}

#[tokio::test]
async fn what_one_client_did_not_read_is_not_for_the_next() {
    let pipe = open();
    let (first, second) = (pipe.line_up(), pipe.line_up());
    pipe.send(b"for the first");
    drop(first);
    while pipe.take().is_some() {}
    pipe.send(b"for the second");
    assert_eq!(second.next().await, Item::Mark(PortEvent::Opened));
    assert_eq!(second.next().await, Item::Bytes(b"for the second".to_vec()));
}

#[tokio::test]
async fn a_client_that_gives_up_waiting_is_never_let_in() {
    let pipe = open();
    let first = pipe.line_up();
    drop(pipe.line_up());
    let third = pipe.line_up();
    drop(first);
    while pipe.take().is_some() {}
    third.send(b"here").await;
    assert_eq!(pipe.take(), Some(bytes("here")));
}

#[tokio::test]
async fn a_writer_waits_for_a_slow_reader_and_loses_nothing() {
    let pipe = open();
    let place = pipe.line_up();
    let all = vec![5; 300_000];
    assert_eq!(now(place.send(&all)).await, None);
    assert!(pipe.send(&all) < all.len());
    assert_eq!(pipe.room(), 0);
    assert_eq!(place.next().await, Item::Mark(PortEvent::Opened));
    place.next().await;
    assert!(pipe.room() > 0);
}

#[tokio::test]
async fn last_words_arrive_before_the_end() {
    let pipe = open();
    let place = pipe.line_up();
    pipe.send(b"bye");
    pipe.close();
    assert_eq!(place.next().await, Item::Mark(PortEvent::Opened));
    assert_eq!(place.next().await, Item::Bytes(b"bye".to_vec()));
    assert_eq!(place.next().await, Item::Mark(PortEvent::Closed));
    pipe.open();
    assert_eq!(place.next().await, Item::Mark(PortEvent::Opened));
    assert_eq!(pipe.take(), Some(PipeEvent::Joined));
}

#[test]
fn a_machine_that_opens_and_closes_fills_no_memory() {
    let pipe = open();
    let _place = pipe.line_up();
    for _ in 0..100_000 {
        pipe.send(b"x");
        pipe.close();
        pipe.open();
    }
    assert!(pipe.state.lock().to_client.len() < 3000);
}

#[test]
fn clients_that_come_and_go_fill_no_memory() {
    let pipe = open();
    for _ in 0..100_000 {
        drop(pipe.line_up());
    }
    let events: Vec<_> = std::iter::from_fn(|| pipe.take()).collect();
    assert_eq!(events, [PipeEvent::Joined, PipeEvent::Left]);
}

#[tokio::test]
async fn a_stream_is_joined_both_ways() {
    let pipe = Pipe::new();
    let place = pipe.line_up();
    let (ours, mut theirs) = duplex(1000);
    let relayed = tokio::spawn({
        let pipe = pipe.clone();
        async move { pipe.relay(ours, false).await }
    });
    let all: Vec<u8> = (0..200_000_u32).map(|n| ((n * 7) >> 3) as u8).collect();

    let sent = async {
        place.send(&all).await;
    };
    let got = async {
        let mut got = vec![0; all.len()];
        theirs.read_exact(&mut got).await.map(|_| got)
    };
    let ((), got) = tokio::join!(sent, got);
    assert_eq!(got.ok(), Some(all.clone()));

    let sent = async { theirs.write_all(&all).await };
    let got = async {
        let mut got = Vec::new();
        while got.len() < all.len() {
            if let Item::Bytes(bytes) = place.next().await {
                got.extend(bytes);
            }
        }
        got
    };
    let (sent, got) = tokio::join!(sent, got);
    assert!(sent.is_ok());
    assert!(got == all);

    drop(theirs);
    assert_eq!(place.next().await, Item::Mark(PortEvent::Closed));
    assert!(matches!(relayed.await, Ok(Ok(()))));
    assert!(!pipe.is_open());
}

#[tokio::test]
async fn a_stream_for_one_client_ends_with_it() {
    let pipe = Pipe::new();
    let (ours, mut theirs) = duplex(1000);
    let relayed = tokio::spawn({
        let pipe = pipe.clone();
        async move { pipe.relay(ours, true).await }
    });
    let place = pipe.line_up();
    place.send(b"hello").await;
    drop(place);
    let mut all = Vec::new();
    assert!(theirs.read_to_end(&mut all).await.is_ok());
    assert_eq!(all, b"hello");
    assert!(matches!(relayed.await, Ok(Ok(()))));
    assert!(!pipe.is_open());
}

#[tokio::test]
async fn a_stream_that_ends_is_noticed_with_no_client_there() {
    let pipe = Pipe::new();
    let (ours, theirs) = duplex(1000);
    drop(theirs);
    assert!(matches!(now(pipe.relay(ours, false)).await, Some(Ok(()))));
}

/// What may happen to a pipe.
#[derive(Debug, Clone)]
enum Step {
    Open,
    Close,
    Send(usize),
    Take,
    Come,
    Go(usize),
    Say(usize, usize),
    Hear(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Open),
        Just(Step::Close),
        (1usize..3000).prop_map(Step::Send),
        Just(Step::Take),
        Just(Step::Come),
        (0usize..4).prop_map(Step::Go),
        (0usize..4, 1usize..3000).prop_map(|(who, count)| Step::Say(who, count)),
        (0usize..4).prop_map(Step::Hear),
    ]
}

proptest! {
    /// Whatever happens, the machine sees one client after the other, each from its beginning to its
    /// end, and what each client hears begins with an opening.
    #[test]
    fn clients_take_turns(steps in prop::collection::vec(step(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| TestCaseError::fail(error.to_string()))?;
        runtime.block_on(async {
            let pipe = Pipe::new();
            let mut clients: Vec<(Place, bool)> = Vec::new();
            let mut inside = false;
            for step in steps {
                match step {
                    Step::Open => pipe.open(),
                    Step::Close => { pipe.close(); inside = false; }
                    Step::Send(count) => { pipe.send(&vec![1; count]); }
                    Step::Take => match pipe.take() {
                        Some(PipeEvent::Joined) => { prop_assert!(!inside); inside = true; }
                        Some(PipeEvent::Left) => { prop_assert!(inside); inside = false; }
                        Some(_) => prop_assert!(inside),
                        None => {}
                    },
                    Step::Come => if clients.len() < 4 { clients.push((pipe.line_up(), false)) },
                    Step::Go(who) => if who < clients.len() { clients.remove(who); },
                    Step::Say(who, count) => if let Some((place, _)) = clients.get(who) {
                        now(place.send(&vec![2; count])).await;
                    },
                    Step::Hear(who) => if let Some((place, opened)) = clients.get_mut(who) {
                        match now(place.next()).await {
                            Some(Item::Mark(PortEvent::Opened)) => { prop_assert!(!*opened); *opened = true; }
                            Some(Item::Mark(PortEvent::Closed)) => { prop_assert!(*opened); *opened = false; }
                            Some(_) => prop_assert!(*opened),
                            None => {}
                        }
                    },
                }
            }
            Ok(())
        })?;
    }
}
