//! What a card survives: being saved, being reset, and any sequence of everything.

use super::*;

#[test]
fn a_saved_card_goes_on_with_the_buffers_it_held() {
    let (mut machine, bench) = ready();
    give(&mut machine, 4, 2048);
    comes(&bench, frame(MAC, 60));
    machine.device().serve_pair(0);
    let saved = Lifecycle::save(&*machine.pci).unwrap();

    Lifecycle::restore(&*machine.pci, &saved).unwrap();
    comes(&bench, frame(MAC, 61));
    comes(&bench, frame(MAC, 62));
    machine.device().serve_pair(0);

    let lengths = received(&mut machine, 2048).into_iter().map(|f| f.1.len());
    assert_eq!(lengths.collect::<Vec<_>>(), [60, 61, 62]);
}

#[test]
fn a_queue_that_is_reset_alone_starts_anew() {
    let (mut machine, bench) = ready();
    give(&mut machine, 4, 2048);
    comes(&bench, frame(MAC, 60));
    machine.device().serve_pair(0);
    machine.write16(reg::QUEUE_SELECT, RX);
    machine.write16(reg::QUEUE_RESET, 1);
    comes(&bench, frame(MAC, 61));
    machine.device().serve_pair(0);

    machine.enable_queue(RX);
    give(&mut machine, 4, 2048);

    assert_eq!(received(&mut machine, 2048), [(1, frame(MAC, 61))]);
}

#[test]
fn a_state_of_more_pairs_than_there_are_is_refused() {
    let (machine, _bench) = ready();
    let mut state = machine.device().save();
    state.pairs = 2;

    assert!(machine.device().restore(state).is_err());
}

/// Something that happens to a card.
#[derive(Debug, Clone)]
enum Step {
    Give(u8, u32),
    Comes(usize),
    Send(u8, u8, usize, usize),
    Command(Vec<u8>),
    Room(usize),
    Link(bool),
    Reset,
    QueueReset(u16),
    SaveRestore,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..32u8, prop_oneof![Just(2048), 12..3000u32, 0..64u32]).prop_map(|(n, l)| Step::Give(n, l)),
        4 => prop_oneof![14..2000usize, 0..LONGEST].prop_map(Step::Comes),
        4 => (any::<u8>(), any::<u8>(), 0..1500usize, 1..9usize)
            .prop_map(|(f, g, l, p)| Step::Send(f, g, l, p)),
        1 => prop::collection::vec(0..6u8, 0..24).prop_map(Step::Command),
        1 => (0..40usize).prop_map(Step::Room),
        1 => any::<bool>().prop_map(Step::Link),
        1 => Just(Step::Reset),
        1 => (0..3u16).prop_map(Step::QueueReset),
        1 => Just(Step::SaveRestore),
    ]
}

proptest! {
    /// Whatever a driver and its network do in whatever order, each chain comes back once at most,
    /// and what is sent is what was to be sent.
    #[test]
    fn any_sequence_is_survived(steps in prop::collection::vec(step(), 1..60), merging: bool) {
        let wanted = if merging { u64::MAX } else { NO_MERGING };
        let (mut machine, bench) = ready_for(wanted);
        for step in steps {
            match step {
                Step::Give(count, length) => {
                    let free = 250 - (machine.queues[0].next_avail % 200);
                    for _ in 0..u16::from(count).min(free) {
                        machine.submit(RX, &[writable(BUFFERS, length)]);
                    }
                    machine.notify(RX);
                }
                Step::Comes(length) => {
                    comes(&bench, frame(MAC, length.max(6))[..length].to_vec());
                    machine.device().serve_pair(0);
                }
                Step::Send(flags, gso, length, pieces) => {
                    let mut header = [0; 12];
                    (header[0], header[1]) = (flags, gso & 0x87);
                    send(&mut machine, header, &frame([2; 6], length.max(6)), pieces);
                    machine.notify(TX);
                }
                Step::Command(bytes) => drop(command(&mut machine, &bytes)),
                Step::Room(room) => bench.hosts[0].lock().room = room,
                Step::Link(up) => drop(machine.device().set_link(up)),
                Step::Reset => machine.probe(wanted),
                Step::QueueReset(queue) => {
                    machine.write16(reg::QUEUE_SELECT, queue);
                    machine.write16(reg::QUEUE_RESET, 1);
                    machine.enable_queue(queue);
                }
                Step::SaveRestore => {
                    let saved = Lifecycle::save(&*machine.pci).unwrap();
                    Lifecycle::restore(&*machine.pci, &saved).unwrap();
                }
            }
            if machine.read8(reg::STATUS) & 0x40 != 0 {
                machine.probe(wanted);
            }
            let used = machine.used(RX).len() + machine.used(TX).len();
            prop_assert!(used <= 512);
        }
        // It still works.
        machine.device().set_link(true);
        machine.probe(wanted);
        bench.hosts[0].lock().room = 1;
        bench.hosts[0].lock().sent.clear();
        send(&mut machine, [0; 12], &frame([2; 6], 99), 1);
        machine.notify(TX);
        prop_assert_eq!(bench.hosts[0].lock().frames(), [frame([2; 6], 99)]);
    }
}
