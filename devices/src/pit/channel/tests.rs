//! The closed forms against the counter that is stepped.

use proptest::collection::vec;
use proptest::prelude::*;

use super::model::Model;
use super::*;

const BOTH: u8 = 3 << 4;

/// A channel in `mode` that was given `count` at 0, so that it counts from clock 1 on.
fn loaded(mode: u8, count: u16) -> ChannelState {
    let mut channel = programmed(BOTH | mode << 1);
    for byte in count.to_le_bytes() {
        channel.write(byte, 0);
    }
    channel
}

fn programmed(control: u8) -> ChannelState {
    let mut channel = ChannelState::new(true);
    channel.control(Control::new(control).unwrap(), 0);
    channel
}

fn read16(channel: &mut ChannelState, now: Clocks) -> u16 {
    let low = channel.read(now);
    u16::from_le_bytes([low, channel.read(now)])
}

/// The output after each of ten clocks from `from` on, as text.
fn trace(channel: &mut ChannelState, from: Clocks) -> String {
    (from..from + 10)
        .map(|now| if channel.output(now) { '#' } else { '_' })
        .collect()
}

#[test]
fn outputs_have_the_shapes_of_the_datasheet() {
    for (mode, shape) in [
        (0, "____######"),
        (2, "###_###_##"),
        (3, "##__##__##"),
        (4, "####_#####"),
    ] {
        assert_eq!(trace(&mut loaded(mode, 4), 1), shape, "mode {mode}");
    }
    assert_eq!(trace(&mut loaded(3, 5), 1), "###__###__");
}

#[test]
fn triggered_modes_wait_for_the_gate() {
    for (mode, shape) in [(1, "____######"), (5, "####_#####")] {
        let mut channel = loaded(mode, 4);
        let before = trace(&mut channel, 0);
        channel.set_gate(false, 20);

        channel.set_gate(true, 20);

        assert_eq!(before, "##########");
        assert_eq!(trace(&mut channel, 21), shape, "mode {mode}");
    }
}

#[test]
fn the_gate_pauses_a_count() {
    let mut channel = loaded(0, 10);
    channel.set_gate(false, 5);

    let held = read16(&mut channel, 100);
    channel.set_gate(true, 100);

    assert_eq!(held, 6);
    assert_eq!(trace(&mut channel, 101), "_____#####");
}

#[test]
fn the_gate_restarts_a_square_wave() {
    let mut channel = loaded(3, 4);
    channel.set_gate(false, 4);
    let shut = trace(&mut channel, 4);

    channel.set_gate(true, 20);

    assert_eq!(shut, "##########");
    assert_eq!(trace(&mut channel, 21), "##__##__##");
}

#[test]
fn a_new_count_of_a_rate_generator_waits_for_the_end_of_the_old() {
    let mut channel = loaded(2, 4);
    channel.write(8, 2);
    channel.write(0, 2);

    assert_eq!(trace(&mut channel, 1), "###_######");
    assert_eq!(channel.next_rise(5, 1), Some(13));
}

#[test]
fn a_count_is_null_until_the_next_clock() {
    let mut channel = loaded(2, 1000);
    channel.latch_status(0);
    let before = channel.read(0);

    channel.latch_status(1);

    assert_eq!((before & 0x40, channel.read(1) & 0x40), (0x40, 0));
}

#[test]
fn a_latched_count_stands_still() {
    let mut channel = loaded(2, 1000);
    channel.latch_count(101);
    channel.latch_count(201);

    let latched = read16(&mut channel, 301);
    let live = read16(&mut channel, 401);

    assert_eq!((latched, live), (900, 600));
}

#[test]
fn a_latched_status_comes_before_the_count() {
    let mut channel = loaded(2, 1000);
    channel.latch_count(101);
    channel.latch_status(101);

    let status = channel.read(200);

    assert_eq!(status, 0x80 | BOTH | 2 << 1);
    assert_eq!(read16(&mut channel, 200), 900);
}

#[test]
fn a_bcd_count_reads_as_digits() {
    let mut channel = programmed(BOTH | 2 << 1 | 1);
    channel.write(0x00, 0);
    channel.write(0x10, 0);

    assert_eq!(read16(&mut channel, 2), 0x0999);
}

#[test]
fn single_byte_access_reads_and_writes_that_byte() {
    let mut channel = programmed(2 << 4 | 2 << 1);
    channel.write(0x12, 0);

    assert_eq!(channel.read(1), 0x12);
    assert_eq!(channel.period(1), Some(0x1200));
}

#[test]
fn a_count_of_0_is_the_longest() {
    let binary = loaded(2, 0);
    let mut bcd = programmed(1 << 4 | 2 << 1 | 1);
    bcd.write(0, 0);

    assert_eq!(binary.period(1), Some(65_536));
    assert_eq!(bcd.period(1), Some(10_000));
}

#[test]
fn periods_below_the_floor_are_merged() {
    let channel = loaded(2, 7);

    let rises = channel.rises(0, 1 + 7 * 1000, 120);

    // 18 periods make one tick: 126 clocks.
    assert_eq!((rises.all, rises.ticks), (1000, 55));
    assert_eq!(rises.last, 1 + 55 * 126);
    assert_eq!(channel.next_rise(1 + 126, 120), Some(1 + 252));
}

#[test]
fn an_impossible_count_is_no_state() {
    let good = serde_json::to_value(loaded(2, 1000)).unwrap();
    let mut bad = good.clone();
    bad["register"] = 70_000.into();

    let good: ChannelState = serde_json::from_value(good).unwrap();
    let bad: ChannelState = serde_json::from_value(bad).unwrap();

    assert!(good.is_valid());
    assert!(!bad.is_valid());
}

/// One thing that is done to a counter.
#[derive(Debug, Clone)]
enum Step {
    Clocks(u32),
    Control(u8),
    Write(u8),
    Read,
    LatchCount,
    LatchStatus,
    Gate(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let clocks = prop_oneof![
        12 => 0_u32..6,
        6 => 0_u32..40,
        2 => 200_u32..900,
        1 => 60_000_u32..70_000,
    ];
    let byte = prop_oneof![4 => 0_u8..6, 2 => 6_u8..20, 1 => any::<u8>()];
    let step = prop_oneof![
        8 => clocks.prop_map(Step::Clocks),
        2 => (0x10_u8..0x40).prop_map(Step::Control),
        8 => byte.prop_map(Step::Write),
        2 => Just(Step::Read),
        1 => Just(Step::LatchCount),
        1 => Just(Step::LatchStatus),
        4 => any::<bool>().prop_map(Step::Gate),
    ];
    vec(step, 1..40)
}

proptest! {
    /// Every output, value, status and rise, and when the next rise is foretold to be.
    #[test]
    fn closed_forms_agree_with_every_clock(control in 0x10_u8..0x40, gate: bool, steps in steps()) {
        let mut channel = ChannelState::new(gate);
        let mut model = Model::new(0x36, gate);
        channel.control(Control::new(control).unwrap(), 0);
        model.control(control);
        let mut now = 0;

        for step in steps {
            match step {
                Step::Clocks(clocks) => {
                    let until = now + u64::from(clocks);
                    let foretold = channel.next_rise(now, 1).filter(|&rise| rise <= until);
                    let rises = channel.rises(now, until, 1);
                    let stepped: Vec<u64> =
                        (now + 1..=until).filter(|_| model.clock()).collect();
                    prop_assert_eq!(foretold, stepped.first().copied());
                    prop_assert_eq!(rises.all, stepped.len() as u64);
                    prop_assert_eq!(rises.ticks, rises.all);
                    if let Some(&last) = stepped.last() {
                        prop_assert_eq!(rises.last, last);
                    }
                    now = until;
                }
                Step::Control(word) => {
                    channel.control(Control::new(word).unwrap(), now);
                    model.control(word);
                }
                Step::Write(byte) => {
                    channel.write(byte, now);
                    model.write(byte);
                }
                Step::Read => prop_assert_eq!(channel.read(now), model.read()),
                Step::LatchCount => {
                    channel.latch_count(now);
                    model.latch_count();
                }
                Step::LatchStatus => {
                    channel.latch_status(now);
                    model.latch_status();
                }
                Step::Gate(gate) => {
                    channel.set_gate(gate, now);
                    model.gate(gate);
                }
            }
            prop_assert_eq!(channel.output(now), model.output);
            prop_assert_eq!(u32::from(channel.current(now)), model.shows());
            prop_assert!(channel.is_valid());
        }
    }

    /// Ticks above the floor are some of the rises, no closer than the floor, and none is lost.
    #[test]
    fn ticks_are_counted_in_any_pieces(
        count in 2_u16..,
        mode in 2_u8..4,
        floor in 1_u32..3000,
        pieces in vec(1_u64..5000, 1..20),
    ) {
        let channel = loaded(mode, count);
        let (mut now, mut ticks) = (0, 0);

        for piece in pieces {
            let next = channel.next_rise(now, floor).unwrap();
            let rises = channel.rises(now, now + piece, floor);
            prop_assert_eq!(rises.ticks > 0, next <= now + piece);
            ticks += rises.ticks;
            now += piece;
        }

        let tick = channel.period(floor).unwrap();
        prop_assert!(tick >= u64::from(floor) && tick.is_multiple_of(u64::from(count)));
        prop_assert_eq!(ticks, (now - 1) / tick);
    }
}
