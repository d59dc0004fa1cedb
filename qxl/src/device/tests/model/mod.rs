//! Random draw commands, compared with a model that is slow and simple.
//!
//! A session is a guest with surfaces of every format that draws some random commands; after each
//! of them every pixel of the surface that it drew on is compared.

mod encode;
mod random;
mod reference;

use random::{COMMANDS, Random, SURFACES, Scene};
use reference::Model;

use crate::testing::{CMD_DRAW, Guest, PORT_UPDATE_AREA};

/// Sessions that showed a mistake once.
const REGRESSIONS: [u64; 0] = [];

/// Sessions that are tried every time.
const SESSIONS: u64 = 60;

/// Sessions to try instead, by hand: the first and the last.
const SESSIONS_VARIABLE: &str = "CARAWAY_CANVAS_SESSIONS";

#[test]
fn random_commands_draw_what_the_model_draws() {
    let sessions = std::env::var(SESSIONS_VARIABLE).ok();
    let sessions = sessions.map_or(1..=SESSIONS, |range| {
        let (first, last) = range.split_once('-').unwrap();
        first.parse().unwrap()..=last.parse().unwrap()
    });

    for seed in REGRESSIONS.into_iter().chain(sessions) {
        session(seed);
    }
}

fn session(seed: u64) {
    let mut random = Random::new(seed);
    let guest = Guest::native(SURFACES[0].width, SURFACES[0].height);
    let mut model = Model::default();
    for surface in SURFACES {
        encode::create(&guest, surface);
        model.create(surface);
    }
    for number in 0..COMMANDS {
        let scene = random.scene();
        guest.run(CMD_DRAW, encode::scene(&guest, &scene));
        model.draw(&scene);
        compare(&guest, &model, &scene, (seed, number));
    }
}

fn compare(guest: &Guest, model: &Model, scene: &Scene, case: (u64, usize)) {
    let surface = SURFACES[scene.surface as usize];
    let area = crate::testing::rect(0, 0, surface.width as i32, surface.height as i32);
    let request = crate::testing::Bytes::default()
        .rect(area)
        .u32(scene.surface);
    guest.write_header(0x1488, &request.0);
    guest.out(PORT_UPDATE_AREA, 0);
    let found = encode::read_back(guest, surface);
    let expected = model.pixels(scene.surface);
    // Bits that nobody sees may be what they want.
    let visible = match surface.format {
        32 => 0x00ff_ffff,
        16 => 0x7fff,
        _ => u32::MAX,
    };
    let differs = |(a, b): (&u32, &u32)| (a ^ b) & visible != 0;
    if let Some(at) = found.iter().zip(expected).position(differs) {
        let (x, y) = (at as u32 % surface.width, at as u32 / surface.width);
        panic!(
            "seed and number {case:?}: at {x},{y} is {:x} instead of {:x}: {scene:#?}",
            found[at], expected[at]
        );
    }
}
