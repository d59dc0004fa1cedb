//! A tone for the clients to hear, and what they record, in numbers.

use std::f64::consts::TAU;
use std::sync::Arc;
use std::time::Duration;

use caraway_spice::{AudioFormat, Microphone, Speaker};
use tokio::time::{MissedTickBehavior, interval};

const FORMAT: AudioFormat = AudioFormat::STEREO;
/// Some 3 dB below full.
const AMPLITUDE: f64 = 23_000.0;

/// Plays a sine of this many hertz for ever.
pub async fn play_tone(speaker: Arc<Speaker>, hertz: f64) {
    const PIECE: Duration = Duration::from_millis(10);
    let moments = FORMAT.rate() / 100;
    let mut pieces = interval(PIECE);
    // A program that was late plays what it missed, as a sound card would not wait.
    pieces.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let step = hertz * TAU / f64::from(FORMAT.rate());
    let mut phase = 0.0_f64;
    speaker.start(FORMAT);
    loop {
        pieces.tick().await;
        let mut samples = Vec::new();
        for _ in 0..moments {
            let sample = (phase.sin() * AMPLITUDE) as i16;
            samples.extend([sample; 2]);
            phase = (phase + step) % TAU;
        }
        speaker.play(&samples);
    }
}

/// Prints once a second what came in.
pub async fn print_levels(microphone: Arc<Microphone>) {
    microphone.start(FORMAT);
    let mut seconds = interval(Duration::from_secs(1));
    let mut looks = interval(Duration::from_millis(100));
    let mut all = Vec::new();
    loop {
        tokio::select! {
            _ = looks.tick() => {
                let mut samples = [0; 48_000];
                let count = microphone.read(&mut samples);
                // The left channel is enough for a level.
                all.extend(samples[..count].iter().step_by(2).copied());
            }
            _ = seconds.tick() => {
                if !all.is_empty() {
                    println!("{}", level(&all));
                }
                all.clear();
            }
        }
    }
}

fn level(samples: &[i16]) -> String {
    let peak = samples
        .iter()
        .map(|sample| sample.unsigned_abs())
        .max()
        .unwrap_or(0);
    let rises = samples
        .windows(2)
        .filter(|pair| pair[0] < 0 && pair[1] >= 0)
        .count();
    let hertz = rises as f64 * f64::from(FORMAT.rate()) / samples.len() as f64;
    format!(
        "recorded {} samples, peak {peak}, about {hertz:.0} Hz",
        samples.len()
    )
}
