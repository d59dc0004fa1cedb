//! A session with two channels: any messages on both, while the screen and the guest change.
//!
//! The first byte chooses the second channel's kind. Checked: the server frames what it sends as
//! agreed, holds a bounded amount of memory, notices in time that a client is gone, and then has
//! nothing left of it: no session, no pressed key.

#![no_main]

use std::pin::pin;
use std::time::Duration;

use caraway_fuzz::Dice;
use caraway_fuzz::client::{BUFFER, Channel, PATIENCE};
use caraway_fuzz::memory::Gauge;
use caraway_fuzz::messages::{self, AUTH_SPICE, Link, MAIN, MINI_HEADER, PLAYBACK, RECORD};
use caraway_fuzz::server::{Machine, Rig, run};
use caraway_spice::{AudioFormat, Config, Locks, Pipe, Rect, Size, Volume, fuzzing};
use libfuzzer_sys::fuzz_target;
use tokio::time::{sleep, timeout};

#[global_allocator]
static GAUGE: Gauge = Gauge::new();

/// Bytes that a session may take: the pixels of pieces, both directions' buffers, the server.
const SESSION: usize = 4 << 20;
/// Bytes of the images that are remembered for a client that keeps a dictionary, whatever it claims.
const DICTIONARY: usize = 16 << 20;

fuzz_target!(|bytes: &[u8]| {
    let peak = GAUGE.peak_of(|| run(session(Dice::new(bytes))));
    assert!(peak <= SESSION + DICTIONARY, "{peak} bytes at a time");
});

async fn session(mut dice: Dice<'_>) {
    let rig = Rig::new(Config::default());
    let kind = dice.byte() % 12;
    rig.desk.set_absolute(dice.flip());
    let mut machine = Machine::default();
    if !dice.rarely() {
        rig.pipes.iter().for_each(|pipe| pipe.open());
    }
    let (mut main, main_served) = open(&rig, &mut dice, MAIN, 0, None);
    let mut main_served = pin!(main_served);
    tokio::select! {
        _ = &mut main_served => panic!("the main channel ends before its client did anything"),
        () = main.hear(Duration::from_millis(1)) => {}
    }
    let id = dice.mostly(0) as u8;
    let (mut other, other_served) = open(&rig, &mut dice, kind, id, main.frames.session);
    let talk = async {
        while !dice.is_over() {
            act(&mut dice, &rig, kind, &mut main, &mut other).await;
            if let Some(pipe) = rig.pipe(kind) {
                act_at_machine(&mut dice, &mut machine, pipe);
            }
            if matches!(kind, PLAYBACK | RECORD) {
                act_at_sound(&mut dice, &rig);
            }
        }
    };
    let served = async { tokio::join!(main_served, other_served) };
    let mut served = pin!(served);
    // Time passes while nothing happens, so `talk` ends, whatever the server does.
    let early = tokio::select! {
        _ = &mut served => true,
        () = talk => false,
    };
    drop((main, other));
    if !early {
        let ended = timeout(PATIENCE, served).await;
        assert!(
            ended.is_ok(),
            "a channel of kind 1 or {kind} outlives its client"
        );
    }
    if let Some(pipe) = rig.pipe(kind) {
        machine.close(pipe);
    }
    rig.assert_clean();
}

/// A client's channel, and the server's side of it, which says whether it let the client in.
fn open(
    rig: &Rig,
    dice: &mut Dice<'_>,
    kind: u8,
    id: u8,
    session: Option<u32>,
) -> (Channel, impl Future<Output = bool> + use<>) {
    let mini = !dice.rarely();
    let framing = if mini { MINI_HEADER } else { 0 };
    let link = Link {
        session: session.unwrap_or(0),
        kind,
        id,
        common: vec![AUTH_SPICE | framing],
        channel: vec![dice.number() as u32],
    };
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let server = rig.server.clone();
    let served = async move { fuzzing::channel(server, &link.body(&[]), theirs).await };
    (Channel::new(ours, mini), served)
}

/// Something happens.
async fn act(dice: &mut Dice<'_>, rig: &Rig, kind: u8, main: &mut Channel, other: &mut Channel) {
    let deed = dice.byte();
    let (channel, kind) = if deed & 3 == 3 {
        (main, MAIN)
    } else {
        (other, kind)
    };
    match deed >> 2 {
        0..=47 => {
            let (number, body) = messages::message(dice, kind);
            let frame = messages::frame(dice, channel.frames.is_mini(), number, &body);
            channel.say(&frame).await;
        }
        48..=50 => {
            let (number, body) = messages::message(dice, kind);
            let frame = messages::frame(dice, channel.frames.is_mini(), number, &body);
            channel.shout(&frame).await;
        }
        51 => channel.say(dice.bytes(64)).await,
        52 => channel.end().await,
        53..=55 => {
            channel
                .hear(Duration::from_millis(dice.byte().into()))
                .await
        }
        56 => sleep(Duration::from_secs(dice.byte().into())).await,
        57..=59 => {
            let mut side = || i32::from(dice.byte() & 0x1f);
            let (left, top) = (side(), side());
            let area = Rect {
                left,
                top,
                right: left + side(),
                bottom: top + side(),
            };
            let colour = dice.number() as u32;
            let noise = dice.flip();
            rig.screen
                .draw(area, |x, y| if noise { colour ^ (x * y) } else { colour });
        }
        60 => rig.screen.set_size(Size {
            width: u32::from(dice.byte() & 0x3f),
            height: u32::from(dice.byte() & 0x3f),
        }),
        61 => {
            rig.desk.set_absolute(dice.flip());
            rig.server.refresh_mouse_mode();
        }
        62 => {
            let bits = dice.byte();
            rig.desk.set_lamps(Locks {
                scroll: bits & 1 != 0,
                num: bits & 2 != 0,
                caps: bits & 4 != 0,
            });
            rig.server.refresh_locks();
        }
        _ => channel.hear(PATIENCE).await,
    }
}

/// Something happens at the machine's end of a pipe.
fn act_at_machine(dice: &mut Dice<'_>, machine: &mut Machine, pipe: &Pipe) {
    match dice.byte() {
        ..0x60 => machine.drain(pipe),
        0x60..0xa0 => {
            let bytes = dice.bytes(64).repeat(dice.pick(&[1, 1, 20, 2000]));
            let room = pipe.room();
            assert_eq!(pipe.send(&bytes), bytes.len().min(room), "bytes taken");
        }
        0xa0..0xa8 => {
            pipe.send_break();
        }
        0xa8..0xac => machine.close(pipe),
        0xac..0xc0 => pipe.open(),
        _ => {}
    }
}

/// The guest plays or records something.
fn act_at_sound(dice: &mut Dice<'_>, rig: &Rig) {
    match dice.byte() {
        ..0x20 => {
            let format = AudioFormat::new(dice.byte() & 3, 8_000 << (dice.byte() & 3));
            if let Some(format) = format.or(AudioFormat::new(2, 48_000)) {
                rig.speaker.start(format);
                rig.microphone.start(format);
            }
        }
        0x20..0x60 => {
            let samples = vec![i16::from(dice.byte()); 1 << dice.up_to(13)];
            rig.speaker.play(&samples);
        }
        0x60..0x80 => {
            let mut samples = [0; 512];
            let count = rig.microphone.read(&mut samples);
            assert!(count <= samples.len());
        }
        0x80..0x88 => {
            rig.speaker.stop();
            rig.microphone.stop();
        }
        0x88..0x90 => rig.speaker.set_latency(Duration::from_millis(dice.field())),
        0x90..0xa0 => {
            let volume = Volume {
                levels: [dice.number() as u16, dice.number() as u16],
                muted: dice.flip(),
            };
            let volume = (!dice.rarely()).then_some(volume);
            rig.speaker.set_volume(volume);
            rig.microphone.set_volume(volume);
        }
        _ => {}
    }
}
