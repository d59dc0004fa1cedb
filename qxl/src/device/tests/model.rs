//! Random draw commands, compared with a model that is slow and simple. The bare-metal guest of the
//! end-to-end tests plays the same sessions.

use caraway_canvas_model::{COMMANDS, SURFACES, Session, Surface};

use crate::testing::{Bytes, Guest, PORT_UPDATE_AREA, rect};

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
        play(seed);
    }
}

fn play(seed: u64) {
    let guest = Guest::native(SURFACES[0].width, SURFACES[0].height);
    let mut session = Session::new(seed);
    for command in session.begin(&guest) {
        guest.run(command.kind, command.address);
    }
    for number in 0..COMMANDS {
        let (command, surface) = session.draw(&guest);
        guest.run(command.kind, command.address);

        let found = read_back(&guest, surface);

        let expected = session.expected(surface);
        if let Some(at) = (0..found.len()).find(|at| found[*at] != expected[*at]) {
            let (x, y) = (at as u32 % surface.row_len(), at as u32 / surface.row_len());
            panic!(
                "seed {seed}, command {number}: byte {x} of row {y} is {:x} instead of {:x}: {}",
                found[at],
                expected[at],
                session.latest()
            );
        }
    }
}

/// What is to be seen of a surface in its rows, which the device has written to memory.
fn read_back(guest: &Guest, surface: Surface) -> Vec<u8> {
    let area = rect(0, 0, surface.width as i32, surface.height as i32);
    let request = Bytes::default().rect(area).u32(surface.id);
    guest.write_header(0x1488, &request.0);
    guest.out(PORT_UPDATE_AREA, 0);
    let row = |y: u32| {
        let at = u64::from(surface.offset() + y * surface.stride());
        let row = guest.read(surface.bar(), at, surface.row_len() as usize);
        (0..)
            .zip(row)
            .map(|(at, byte)| byte & surface.visible(at))
            .collect::<Vec<u8>>()
    };
    (0..surface.height).flat_map(row).collect()
}
