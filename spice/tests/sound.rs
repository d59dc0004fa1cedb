//! Playback and record channels, with a scripted client.

#![allow(clippy::panic, reason = "a test says no by a panic")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use caraway_spice::{
    AudioFormat, AudioSink, Config, Devices, Framebuffer, Microphone, Size, Speaker, Volume,
};
use common::{Channel, Fixture, Link, PLAYBACK, RECORD, wait_for, word};

const DATA: u16 = 101;
const MODE: u16 = 102;
const START: u16 = 103;
const STOP: u16 = 104;
const WITH_VOLUME: u32 = 1 << 1;
const WITH_LATENCY: u32 = 1 << 2;
const PLAYBACK_OPUS: u32 = 1 << 3;
const RECORD_OPUS: u32 = 1 << 2;
const RECORD_START: u16 = 101;
const RECORD_STOP: u16 = 102;

/// 10 ms at 48 kHz with two channels.
const PIECE: usize = 960;

struct Sound {
    fixture: Fixture,
    speaker: Arc<Speaker>,
    microphone: Arc<Microphone>,
}

fn sound() -> Sound {
    let (speaker, microphone) = (Speaker::new(), Microphone::new());
    let screen = Framebuffer::new(Size {
        width: 64,
        height: 48,
    });
    let devices = Devices {
        playback: Some(speaker.clone()),
        record: Some(microphone.clone()),
        ..Devices::default()
    };
    Sound {
        fixture: Fixture::with_devices(Config::default(), screen, devices),
        speaker,
        microphone,
    }
}

/// A client with one more channel; its main channel is to be held.
fn join(fixture: &Fixture, channel: u8, capabilities: u32) -> (Channel, Channel) {
    let (main, connection) = fixture.main();
    let link = Link {
        channel,
        connection,
        channel_caps: &[capabilities],
        ..Link::default()
    };
    let joined = fixture.connect().link(&link).expect("the session is there");
    (main, joined)
}

fn samples(bytes: &[u8]) -> Vec<i16> {
    let pairs = bytes.chunks(2);
    pairs
        .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
        .collect()
}

fn bytes(samples: &[i16]) -> Vec<u8> {
    samples
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect()
}

#[test]
fn what_is_played_is_heard_from_start_to_stop() {
    let Sound {
        fixture, speaker, ..
    } = sound();
    let (_main, mut playback) = join(&fixture, PLAYBACK, 0);
    speaker.start(AudioFormat::STEREO);
    let (kind, mode) = playback.next();
    assert_eq!((kind, &mode[4..]), (MODE, [1, 0].as_slice()));
    let (kind, start) = playback.next();
    assert_eq!(
        (kind, word(&start, 0), &start[4..6], word(&start, 6)),
        (START, 2, [1, 0].as_slice(), 48_000)
    );

    let played: Vec<i16> = (0..2 * PIECE as i16 + 20).collect();
    speaker.play(&played);
    speaker.stop();

    let mut heard = Vec::new();
    let mut times = Vec::new();
    loop {
        match playback.next() {
            (DATA, body) => {
                times.push(word(&body, 0));
                heard.extend(samples(&body[4..]));
            }
            (STOP, _) => break,
            other => panic!("{other:?}"),
        }
    }
    // The last piece is filled up with silence.
    assert_eq!(heard.len(), 3 * PIECE);
    assert_eq!(heard[..played.len()], played);
    assert_eq!(times[1] - times[0], 10);
    assert!(times[0] >= word(&start, 10));
}

#[test]
fn a_client_that_comes_late_hears_what_is_played_from_then_on() {
    let Sound {
        fixture, speaker, ..
    } = sound();
    speaker.start(AudioFormat::STEREO);
    speaker.play(&[1; PIECE]);
    let (_main, mut playback) = join(&fixture, PLAYBACK, 0);
    playback.wait(START);
    speaker.play(&[2; PIECE]);
    assert_eq!(samples(&playback.wait(DATA)[4..]), [2; PIECE]);
}

#[test]
fn several_clients_hear_the_same() {
    let Sound {
        fixture, speaker, ..
    } = sound();
    speaker.start(AudioFormat::STEREO);
    let (_one_main, mut one) = join(&fixture, PLAYBACK, 0);
    let (_two_main, mut two) = join(&fixture, PLAYBACK, 0);
    one.wait(START);
    two.wait(START);
    let played: Vec<i16> = (0..PIECE as i16).collect();
    speaker.play(&played);
    assert_eq!(samples(&one.wait(DATA)[4..]), played);
    assert_eq!(samples(&two.wait(DATA)[4..]), played);
}

#[test]
fn opus_is_for_clients_and_formats_that_have_it() {
    let Sound {
        fixture, speaker, ..
    } = sound();
    let (_main, mut playback) = join(&fixture, PLAYBACK, PLAYBACK_OPUS);
    speaker.start(AudioFormat::STEREO);
    assert_eq!(playback.wait(MODE)[4..], [3, 0]);
    playback.wait(START);
    speaker.play(&[1000; PIECE]);
    assert!(playback.wait(DATA).len() < 484);

    speaker.start(AudioFormat::new(1, 44_100).expect("it is possible"));
    playback.wait(STOP);
    assert_eq!(playback.wait(MODE)[4..], [1, 0]);
    assert_eq!(word(&playback.wait(START), 0), 1);
    speaker.play(&[7; 441]);
    assert_eq!(samples(&playback.wait(DATA)[4..]), [7; 441]);
}

#[test]
fn volume_and_latency_are_told_to_clients_that_understand() {
    let Sound {
        fixture, speaker, ..
    } = sound();
    speaker.set_volume(Some(Volume {
        levels: [1, 65_535],
        muted: true,
    }));
    speaker.set_latency(Duration::from_millis(300));
    let (_main, mut playback) = join(&fixture, PLAYBACK, WITH_VOLUME | WITH_LATENCY);
    assert_eq!(playback.next(), (105, vec![2, 1, 0, 255, 255]));
    assert_eq!(playback.next(), (106, vec![1]));
    assert_eq!(playback.next(), (107, vec![44, 1, 0, 0]));

    let (_other_main, mut other) = join(&fixture, PLAYBACK, 0);
    speaker.start(AudioFormat::STEREO);
    assert_eq!(other.next().0, MODE);
}

#[test]
fn a_client_that_stops_reading_gets_newer_sound_and_holds_up_nobody() {
    let Sound {
        fixture, speaker, ..
    } = sound();
    let format = AudioFormat::new(1, 8000).expect("it is possible");
    speaker.start(format);
    let (_main, mut playback) = join(&fixture, PLAYBACK, 0);
    playback.wait(START);
    let piece = |n: usize| [n as i16; 80];
    // It answers once, so that it is known to; then it is away for ten seconds of sound.
    for n in 0..10 {
        speaker.play(&piece(n));
    }
    let ping = playback.wait(4);
    playback.send(3, &ping[..12]);
    wait_for("the answer to arrive", || {
        let channels = &fixture.server.info().sessions[0].channels;
        channels
            .iter()
            .any(|channel| channel.bytes_in >= 18)
            .then_some(())
    });
    for n in 10..1010 {
        speaker.play(&piece(n));
        // What a thread that sends pieces at its leisure sees of them.
        std::thread::sleep(Duration::from_micros(200));
    }
    speaker.stop();

    // What it had on its way was at most the sound of a second; then follows the newest.
    let mut heard = Vec::new();
    loop {
        match playback.next() {
            (DATA, body) => heard.push(samples(&body[4..])[0]),
            (4, ping) => playback.send(3, &ping[..12]),
            (STOP, _) => break,
            _ => {}
        }
    }
    assert_eq!(heard.last(), Some(&1009));
    assert!(heard.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(heard.len() < 150, "{}", heard.len());
}

#[test]
fn what_a_client_records_reaches_the_guest() {
    let Sound {
        fixture,
        microphone,
        ..
    } = sound();
    let (_main, mut record) = join(&fixture, RECORD, 0);
    microphone.start(AudioFormat::STEREO);
    let (kind, start) = record.next();
    assert_eq!(
        (kind, word(&start, 0), word(&start, 6)),
        (RECORD_START, 2, 48_000)
    );
    let recorded: Vec<i16> = (0..PIECE as i16).collect();
    // Before the mark it may be anything.
    record.send(DATA, &[9; 404]);
    record.send(102, &[0, 0, 0, 0, 1, 0]);
    record.send(103, &[0; 4]);
    record.send(DATA, &[vec![0; 4], bytes(&recorded)].concat());

    let mut got = vec![0; 2 * PIECE];
    let count = wait_for("samples", || {
        Some(microphone.read(&mut got)).filter(|&count| count > 0)
    });
    assert_eq!(got[..count], recorded);
    microphone.stop();
    assert_eq!(record.next(), (RECORD_STOP, vec![]));
}

#[test]
fn opus_is_recorded_too() {
    let Sound {
        fixture,
        microphone,
        ..
    } = sound();
    microphone.start(AudioFormat::STEREO);
    let (_main, mut record) = join(&fixture, RECORD, RECORD_OPUS);
    record.wait(RECORD_START);
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Stereo, opus::Application::Audio)
        .expect("the library is there");
    record.send(102, &[0, 0, 0, 0, 3, 0]);
    record.send(103, &[0; 4]);
    for n in 0..10 {
        let tone: Vec<i16> = (0..PIECE)
            .map(|i| (((n * 480 + i / 2) as f64 * 0.06).sin() * 8000.0) as i16)
            .collect();
        let packed = encoder.encode_vec(&tone, 480).expect("it is a piece");
        record.send(DATA, &[vec![0; 4], packed].concat());
    }
    let mut loudest = 0;
    wait_for("the tone", || {
        let mut got = vec![0; PIECE];
        let count = microphone.read(&mut got);
        loudest = got[..count].iter().copied().fold(loudest, i16::max);
        (loudest > 7000).then_some(())
    });
    assert!(loudest < 9000);
}

#[test]
fn the_first_client_records_and_the_next_when_it_leaves() {
    let Sound {
        fixture,
        microphone,
        ..
    } = sound();
    let (first_main, mut first) = join(&fixture, RECORD, 0);
    first.send(103, &[0; 4]);
    let (_main, mut second) = join(&fixture, RECORD, WITH_VOLUME);
    microphone.start(AudioFormat::STEREO);
    first.wait(RECORD_START);
    microphone.set_volume(Some(Volume {
        levels: [3, 3],
        muted: false,
    }));
    // The second one hears of the volume, so it would have heard of a start.
    assert_eq!(second.next().0, 103);
    assert_eq!(second.next().0, 104);
    second.send(103, &[0; 4]);
    second.send(DATA, &[7; 404]);
    drop((first, first_main));
    assert_eq!(second.next().0, RECORD_START);
    assert_eq!(microphone.read(&mut [0; PIECE]), 0);
    assert!(AudioSink::state(&*microphone).format.is_some());
}

#[test]
fn a_mode_that_nobody_has_ends_that_client_only() {
    let Sound {
        fixture, speaker, ..
    } = sound();
    let (_good, mut playback) = join(&fixture, PLAYBACK, 0);
    let (mut main, mut record) = join(&fixture, RECORD, 0);
    record.send(102, &[0, 0, 0, 0, 2, 0]);
    assert!(record.is_ended() && main.is_ended());
    speaker.start(AudioFormat::STEREO);
    playback.wait(START);
}
