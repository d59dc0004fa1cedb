//! A connection from its first byte: header, link message, choice of authentication, ticket.
//!
//! The first byte chooses between bytes as they come (as recorded from clients) and a client that is
//! mostly sound. Checked: whoever is sound gets in, whoever lacks the password never does, every
//! answer has the length that it announces, and nothing of the client is left.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use caraway_fuzz::Dice;
use caraway_fuzz::client::{BUFFER, PATIENCE};
use caraway_fuzz::memory::Gauge;
use caraway_fuzz::messages::{AUTH_SELECTION, AUTH_SPICE, Link, MAIN, MINI_HEADER};
use caraway_fuzz::server::{Rig, run};
use caraway_spice::{Auth, Config, Password, fuzzing};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{sleep, timeout};

#[global_allocator]
static GAUGE: Gauge = Gauge::new();

/// Bytes that a connection may take.
const MOST_MEMORY: usize = 1 << 20;
/// For the end of a link stage that a client drags out in every part.
const LONGEST_LINK: Duration = Duration::from_secs(120);

const HEADER: usize = 16;
/// Header and reply of a link that is refused.
const REFUSAL: usize = HEADER + 178;
const OK: u32 = 0;
const SECRET: &[u8] = b"secret";

static KEY: LazyLock<fuzzing::FixedKey> =
    LazyLock::new(|| fuzzing::FixedKey::generate().expect("the system has random numbers"));

fuzz_target!(
    init: {
        LazyLock::force(&KEY);
    },
    |bytes: &[u8]| {
        let (&mode, rest) = bytes.split_first().unwrap_or((&0, &[]));
        let peak = GAUGE.peak_of(|| match mode {
            // A letter that nobody's protocol begins with marks bytes as they are.
            b'=' => run(recorded(rest)),
            _ => run(sound(Dice::new(bytes))),
        });
        assert!(peak <= MOST_MEMORY, "{peak} bytes at a time");
    }
);

/// A server that asks for a password or not, and a client's connection to it.
fn rig(asks: bool) -> Rig {
    let auth = if asks {
        Auth::Password(Password::new("secret").expect("it is short"))
    } else {
        Auth::None
    };
    let rig = Rig::new(Config {
        auth,
        ..Config::default()
    });
    fuzzing::use_key(&rig.server, &KEY);
    rig
}

/// Serves one connection while `client` talks on it.
async fn serve(rig: &Rig, client: impl AsyncFnOnce(DuplexStream)) {
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let served = fuzzing::connection(rig.server.clone(), theirs);
    let served = timeout(LONGEST_LINK + PATIENCE, served);
    let (served, ()) = tokio::join!(served, client(ours));
    assert!(served.is_ok(), "the connection outlives its client");
    rig.assert_clean();
}

/// Bytes as they are.
async fn recorded(bytes: &[u8]) {
    let rig = rig(false);
    serve(&rig, async |mut stream: DuplexStream| {
        let _ = timeout(PATIENCE, stream.write_all(bytes)).await;
        let _ = timeout(Duration::from_secs(1), stream.read_to_end(&mut Vec::new())).await;
    })
    .await;
}

/// A client that means well, mostly.
async fn sound(mut dice: Dice<'_>) {
    // Seldom, as encrypting and decrypting take longer than all else.
    let asks = dice.byte() == 0xff;
    let rig = rig(asks);
    let link = link(&mut dice);
    let gap = dice.bytes(8);
    let body = link.body(gap);
    let parsed = fuzzing::parse_link(&body);
    let fields = (
        link.session,
        link.kind,
        link.id,
        link.common.clone(),
        link.channel.clone(),
    );
    assert_eq!(parsed, Some(fields), "what was encoded is what is decoded");

    let mut damaged = body.clone();
    if dice.rarely() && !damaged.is_empty() {
        let at = dice.up_to(damaged.len() - 1);
        damaged[at] ^= 1 << dice.up_to(7);
    }
    if dice.rarely() {
        damaged.truncate(dice.up_to(damaged.len()));
    }
    let mut header = b"REDQ".to_vec();
    if dice.rarely() {
        header[dice.up_to(3)] = dice.byte();
    }
    for field in [2, 2, damaged.len() as u64] {
        header.extend((dice.mostly(field) as u32).to_le_bytes());
    }
    let minor_free = [&header[..8], &header[12..]].concat();
    let good_header = [
        b"REDQ",
        &2u32.to_le_bytes()[..],
        &(body.len() as u32).to_le_bytes(),
    ];
    let is_sound = damaged == body && minor_free == good_header.concat();
    let exists = (1..=4).contains(&link.kind) && link.id == 0;
    let begins = link.kind == MAIN && link.session == 0;
    let hello = [header, damaged].concat();

    serve(&rig, async |mut stream: DuplexStream| {
        let cut = dice.rarely();
        if say(&mut dice, &mut stream, &hello).await.is_none() || cut {
            return;
        }
        if hello.first() != Some(&b'R') {
            // Taken for HTTP, TLS or nothing: not this target's.
            return;
        }
        let Some(answer) = reply(&mut stream).await else {
            assert!(!is_sound, "a sound link was not answered");
            return;
        };
        if is_sound {
            assert_eq!(answer, OK, "a sound link was refused");
        }
        if answer != OK {
            return;
        }
        let mut proof = Vec::new();
        let mut mechanism = 1;
        let selects = link
            .common
            .first()
            .is_some_and(|caps| caps & AUTH_SELECTION != 0);
        if selects {
            mechanism = dice.mostly(1) as u32;
            proof.extend(mechanism.to_le_bytes());
        }
        let (ticket, knows) = ticket(&mut dice, asks);
        proof.extend(&ticket);
        if say(&mut dice, &mut stream, &proof).await.is_none() {
            return;
        }
        let Ok(Ok(result)) = timeout(PATIENCE, stream.read_u32_le()).await else {
            assert!(
                !is_sound || ticket.len() < 128,
                "no result for a whole ticket"
            );
            return;
        };
        if is_sound && ticket.len() == 128 {
            let expected = mechanism == 1 && (knows || !asks) && exists && begins;
            assert_eq!(result == OK, expected, "{link:?}, result {result}");
        }
        assert!(
            result != OK || knows || !asks,
            "let in without the password"
        );
        let _ = stream.write_all(dice.rest()).await;
    })
    .await;
}

/// What the client asks for.
fn link(dice: &mut Dice<'_>) -> Link {
    let words = |dice: &mut Dice<'_>| (0..dice.up_to(3)).map(|_| dice.number() as u32).collect();
    let mut common: Vec<u32> = words(dice);
    if !dice.rarely() {
        let usual = AUTH_SELECTION | AUTH_SPICE | MINI_HEADER;
        common.insert(0, usual & !(dice.byte() >> 4) as u32 | AUTH_SPICE);
    }
    Link {
        session: dice.mostly(0) as u32,
        kind: dice.mostly(MAIN.into()) as u8,
        id: dice.mostly(0) as u8,
        channel: words(dice),
        common,
    }
}

/// A ticket, and whether it has the password.
fn ticket(dice: &mut Dice<'_>, asks: bool) -> (Vec<u8>, bool) {
    let mut ticket = if asks && !dice.rarely() {
        let text: &[u8] = match dice.byte() {
            ..0x80 => SECRET,
            _ => dice.bytes(60),
        };
        let knows = text == SECRET;
        let whole = [text, b"\0"].concat();
        let ticket = KEY.ticket(&whole).expect("it fits");
        if !dice.rarely() {
            return (ticket, knows);
        }
        ticket
    } else {
        let mut ticket = dice.bytes(128).to_vec();
        ticket.resize(128, 0);
        if !dice.rarely() {
            return (ticket, false);
        }
        ticket
    };
    // Too short, or with one bit changed: nobody's.
    if dice.flip() {
        ticket.truncate(dice.up_to(127));
    } else {
        let at = dice.up_to(127);
        ticket[at] ^= 1 << dice.up_to(7);
    }
    (ticket, false)
}

/// Says `bytes`, rarely in two parts with a pause. `None` if it does not get to the end.
async fn say(dice: &mut Dice<'_>, stream: &mut DuplexStream, bytes: &[u8]) -> Option<()> {
    if dice.rarely() && !bytes.is_empty() {
        let (first, second) = bytes.split_at(dice.up_to(bytes.len()));
        stream.write_all(first).await.ok()?;
        let pause = dice.byte();
        sleep(Duration::from_millis(u64::from(pause) * 100)).await;
        // The server gives a client ten seconds.
        if pause >= 99 || dice.rarely() {
            return None;
        }
        stream.write_all(second).await.ok()
    } else {
        stream.write_all(bytes).await.ok()
    }
}

/// The server's answer to a link message: its error code. `None` if it closed without one.
async fn reply(stream: &mut DuplexStream) -> Option<u32> {
    let mut header = [0; HEADER];
    match timeout(PATIENCE, stream.read_exact(&mut header)).await {
        Ok(Ok(_)) => {}
        _ => return None,
    }
    assert_eq!(&header[..4], b"REDQ");
    assert_eq!(header[4..12], [2, 0, 0, 0, 2, 0, 0, 0], "version");
    let word = |bytes: &[u8], at: usize| {
        u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    let size = word(&header, 12) as usize;
    let mut body = vec![0; size];
    let whole = timeout(PATIENCE, stream.read_exact(&mut body)).await;
    assert!(matches!(whole, Ok(Ok(_))), "a reply shorter than it says");
    let error = word(&body, 0);
    if error == OK {
        let capabilities = (word(&body, 166) + word(&body, 170)) as usize;
        assert_eq!(word(&body, 174), 178, "offset of the capabilities");
        assert_eq!(size, 178 + 4 * capabilities, "counts of the capabilities");
    } else {
        assert_eq!(HEADER + size, REFUSAL);
        assert!(body[4..].iter().all(|&byte| byte == 0));
        assert!(matches!(error, 1..=9), "error {error}");
    }
    Some(error)
}
