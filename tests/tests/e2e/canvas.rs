//! Draw commands of every kind, by a guest's rings: the bare guest plays random sessions and compares
//! what it reads back with the model of `canvas-model`, and so is what the screen shows at the end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::fs;
use std::ops::RangeInclusive;

use caraway_canvas_model::{SURFACES, Stream};
use caraway_tests::vm::{Vm, bare_config, merge};
use serde_json::json;

/// Sessions that are tried every time.
const SESSIONS: RangeInclusive<u64> = 1001..=1020;

/// Sessions to try instead, by hand: the first and the last.
const SESSIONS_VARIABLE: &str = "CARAWAY_CANVAS_SESSIONS";

/// Sessions that one machine plays: their file is in its memory.
const AT_ONCE: usize = 50;

#[test]
fn random_commands_of_a_guest_draw_what_the_model_draws() {
    let sessions = std::env::var(SESSIONS_VARIABLE).ok();
    let sessions = sessions.map_or(SESSIONS, |range| {
        let (first, last) = range.split_once('-').unwrap();
        first.parse().unwrap()..=last.parse().unwrap()
    });

    let seeds: Vec<u64> = sessions.collect();
    for seeds in seeds.chunks(AT_ONCE) {
        play(seeds[0]..=seeds[seeds.len() - 1]);
    }
}

fn play(seeds: RangeInclusive<u64>) {
    let sessions = seeds.clone().count();
    let stream = Stream::of(seeds.clone());
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, &stream.bytes).unwrap();
    let mut config = merge(
        bare_config(&format!("test=canvas sessions={sessions} hold")),
        json!({ "memory": "256M", "display": { "device": "qxl" } }),
    );
    config["boot"]["initrd"] = json!(file.path());
    let vm = Vm::start(&config);

    vm.wait_for_serial("ok canvas");

    let serial = vm.serial();
    let all = stream.commands + sessions * (SURFACES.len() - 1);
    let drew = format!("canvas drew {all} commands");
    assert!(serial.contains(&drew), "seeds {seeds:?}: {serial}");
    assert!(!serial.contains("not ok"), "seeds {seeds:?}: {serial}");
    let screen = vm.screenshot();
    let shown: Vec<[u8; 3]> = (0..screen.height)
        .flat_map(|y| (0..screen.width).map(move |x| (x, y)))
        .map(|(x, y)| screen.pixel(x, y))
        .collect();
    let expected: Vec<[u8; 3]> = stream
        .screen
        .as_chunks()
        .0
        .iter()
        .map(|[blue, green, red, _]| [*red, *green, *blue])
        .collect();
    assert!(
        shown == expected,
        "seed {}: the screen differs",
        seeds.end()
    );
}
