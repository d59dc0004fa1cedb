//! Films on the wire: what a client gets of them, with a scripted client.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use caraway_spice::{
    Config, CursorState, DisplayObserver, DisplaySource, Framebuffer, Layout, Rect, Size, Update,
};
use common::{Canvas, Channel, DISPLAY, Fixture, Link, PATIENCE};
use parking_lot::Mutex;

const FULL_HD: Size = Size {
    width: 1920,
    height: 1080,
};
/// `SIZED_STREAM`, `MONITORS_CONFIG`, `STREAM_REPORT`, `MULTI_CODEC`, `CODEC_MJPEG`.
const VIDEO: u32 = 1 | 1 << 1 | 1 << 4 | 1 << 8 | 1 << 9;

/// `SPICE_VIDEO_CODEC_TYPE_*`.
const MJPEG: u8 = 1;

/// `SPICE_IMAGE_COMPRESSION_OFF`: unoptimised encoders are no match for films.
const RAW: u8 = 1;

/// A display whose pixels are one picture of some that were drawn in advance, each as large as the display.
struct Projector {
    size: Size,
    pictures: Vec<Vec<u8>>,
    shown: Mutex<usize>,
    observer: Mutex<Option<Weak<dyn DisplayObserver>>>,
}

impl Projector {
    fn new(size: Size, pictures: Vec<Vec<u8>>) -> Arc<Self> {
        Arc::new(Self {
            size,
            pictures,
            shown: Mutex::new(0),
            observer: Mutex::default(),
        })
    }

    /// Of a camera that moves past something smooth with a little grain.
    fn camera(size: Size) -> Arc<Self> {
        let picture = |at: u32| {
            let mut noise = at;
            let mut bytes = Vec::with_capacity(size.width as usize * size.height as usize * 4);
            for y in 0..size.height {
                for x in 0..size.width {
                    noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let grain = noise >> 30;
                    let shade = (x + y / 2 + at * 8) & 511;
                    let shade = shade.min(511 - shade) * 15 / 16 + grain;
                    bytes.extend_from_slice(&[shade as u8, (shade / 2) as u8, 200, 0]);
                }
            }
            bytes
        };
        Self::new(size, (0..4).map(picture).collect())
    }

    /// Shows the next picture, of which `area` is new.
    fn advance(&self, area: Rect) {
        let observer = self.observer.lock().as_ref().and_then(Weak::upgrade);
        let mut shown = self.shown.lock();
        *shown = (*shown + 1) % self.pictures.len();
        drop(shown);
        if let Some(observer) = observer {
            observer.updated(&[Update::Pixels(area)]);
        }
    }

    /// Plays so many pictures a second for some time at least, and until it is enough; how many there were.
    fn play(&self, rate: u32, time: Duration, enough: &AtomicBool) -> u32 {
        let start = Instant::now();
        let mut pictures = 0;
        let goes_on = |elapsed| elapsed < time || !enough.load(Ordering::Relaxed);
        while start.elapsed() < PATIENCE && goes_on(start.elapsed()) {
            self.advance(Rect::of_size(self.size));
            pictures += 1;
            let due = start + Duration::from_secs(1) * pictures / rate;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        pictures
    }

    fn is_shown_by(&self, canvas: &Canvas) -> bool {
        let shown = *self.shown.lock();
        let pixels = self.pictures[shown].as_chunks::<4>().0;
        let same = |(ours, theirs): (&[u8; 4], &u32)| u32::from_le_bytes(*ours) == *theirs;
        canvas.pixels.len() == pixels.len() && pixels.iter().zip(&canvas.pixels).all(same)
    }
}

impl DisplaySource for Projector {
    fn layout(&self) -> Layout {
        Layout {
            primary: Some(self.size),
            heads: Vec::new(),
            max_heads: 1,
            generation: 1,
        }
    }

    fn read(&self, _: u64, area: Rect, pixels: &mut [u8]) -> bool {
        let shown = *self.shown.lock();
        let row = self.size.width as usize * 4;
        let width = area.width() as usize * 4;
        for (out, y) in pixels.chunks_exact_mut(width).zip(area.top as usize..) {
            let start = y * row + area.left as usize * 4;
            out.copy_from_slice(&self.pictures[shown][start..start + width]);
        }
        true
    }

    fn cursor(&self) -> CursorState {
        CursorState::default()
    }

    fn observe(&self, observer: Weak<dyn DisplayObserver>) {
        *self.observer.lock() = Some(observer);
    }
}

fn fixture(projector: &Arc<Projector>) -> Fixture {
    let unused = Framebuffer::new(Size {
        width: 1,
        height: 1,
    });
    Fixture::with_sources(Config::default(), unused, vec![projector.clone()])
}

/// A client that has the first picture.
fn viewer(fixture: &Fixture, capabilities: u32) -> (Channel, Channel, Canvas) {
    let (main, session) = fixture.main();
    let link = Link {
        channel: DISPLAY,
        connection: session,
        channel_caps: &[capabilities],
        ..Link::default()
    };
    let mut display = fixture.connect().link(&link).unwrap();
    display.send(103, &[RAW]);
    display.send(101, &[0; 14]);
    let mut canvas = Canvas::default();
    while !canvas.marked {
        canvas.follow(&mut display);
    }
    (main, display, canvas)
}

/// Follows while the film plays, and then until the client shows its last picture; how many pictures were
/// played, and how long after the end that was.
fn watch(
    projector: &Projector,
    canvas: &mut Canvas,
    display: &mut Channel,
    time: Duration,
) -> (u32, Duration) {
    // On a busy machine pictures of a stream come late.
    let (enough, wanted) = (AtomicBool::new(false), canvas.pictures + 3);
    thread::scope(|scope| {
        let player = scope.spawn(|| (projector.play(30, time, &enough), Instant::now()));
        while !player.is_finished() {
            canvas.follow(display);
            enough.store(canvas.pictures >= wanted, Ordering::Relaxed);
        }
        let (played, end) = player.join().unwrap();
        while !projector.is_shown_by(canvas) {
            assert!(end.elapsed() < PATIENCE, "the client never shows the end");
            canvas.follow(display);
        }
        (played, end.elapsed())
    })
}

#[test]
fn a_film_of_1920_by_1080_keeps_one_stream_from_start_to_end() {
    let projector = Projector::camera(FULL_HD);
    let fixture = fixture(&projector);
    let (_main, mut display, mut canvas) = viewer(&fixture, VIDEO);
    canvas.is_blind = true;

    let time = Duration::from_secs(3);
    let (played, exact) = watch(&projector, &mut canvas, &mut display, time);

    let pictures = canvas.pictures;
    println!("{played} pictures played, {pictures} seen, the last one exactly after {exact:?}");
    assert_eq!(
        (&canvas.codecs[..], canvas.streams.len()),
        (&[MJPEG][..], 1)
    );
    // How many depends on the machine: an unoptimised server makes a few a second.
    assert!(pictures > 1);
}

#[test]
fn a_film_is_exact_soon_after_each_pause_and_stays_one_stream() {
    let size = Size {
        width: 320,
        height: 180,
    };
    let projector = Projector::camera(size);
    let fixture = fixture(&projector);
    let (_main, mut display, mut canvas) = viewer(&fixture, VIDEO);
    let time = Duration::from_millis(1500);

    let mut took = [Duration::ZERO; 3].map(|_| {
        let before = canvas.pictures;
        let (_, exact) = watch(&projector, &mut canvas, &mut display, time);
        assert!(canvas.pictures > before, "it was no stream");
        exact
    });

    took.sort_unstable();
    println!("exact after {took:?}");
    // The best of three, as the machine may be busy.
    assert!(took[0] < Duration::from_millis(500), "{took:?}");
    assert_eq!(
        (&canvas.codecs[..], canvas.streams.len()),
        (&[MJPEG][..], 1)
    );
}

/// Codecs that are built in, the best first, and what a client that has them says.
#[cfg(any(feature = "vp8", feature = "h264"))]
const BUILT_IN: &[(u8, u32)] = &[
    #[cfg(feature = "h264")]
    (3, 1 << 11),
    #[cfg(feature = "vp8")]
    (2, 1 << 10),
];

#[cfg(any(feature = "vp8", feature = "h264"))]
#[test]
fn a_stream_whose_pictures_need_others_lasts_too_if_the_client_can_hide_it() {
    const MONITORS_CONFIG: u32 = 1 << 1;
    let size = Size {
        width: 320,
        height: 180,
    };
    for &(codec, capability) in BUILT_IN {
        let capabilities = VIDEO | capability;
        for (capabilities, created, left) in [
            (capabilities, &[codec][..], 1),
            (capabilities & !MONITORS_CONFIG, &[codec; 2][..], 0),
        ] {
            let projector = Projector::camera(size);
            let fixture = fixture(&projector);
            let (_main, mut display, mut canvas) = viewer(&fixture, capabilities);
            // Who has no monitors is taken for a browser, and gets MJPEG if it does not ask.
            display.send(105, &[1, codec]);
            canvas.is_blind = true;
            let time = Duration::from_millis(1500);

            let took = [Duration::ZERO; 2].map(|_| {
                let before = canvas.pictures;
                let (_, exact) = watch(&projector, &mut canvas, &mut display, time);
                assert!(canvas.pictures > before, "it was no stream");
                exact
            });

            println!("codec {codec}: exact after {took:?}");
            assert_eq!((&canvas.codecs[..], canvas.streams.len()), (created, left));
        }
    }
}

#[cfg(feature = "vp8")]
#[test]
fn a_browser_console_gets_mjpeg_if_it_does_not_ask_for_vp8() {
    let size = Size {
        width: 320,
        height: 180,
    };
    let projector = Projector::camera(size);
    let fixture = fixture(&projector);
    let spice_html5 = 1 | 1 << 4 | 1 << 8 | 1 << 9 | 1 << 10;
    let (_main, mut display, mut canvas) = viewer(&fixture, spice_html5);
    canvas.is_blind = true;

    let time = Duration::from_millis(1500);
    watch(&projector, &mut canvas, &mut display, time);

    assert_eq!(canvas.codecs, [MJPEG]);
}

#[cfg(any(feature = "vp8", feature = "h264"))]
#[test]
fn a_client_that_refuses_a_codec_gets_the_next_and_at_last_none() {
    let size = Size {
        width: 320,
        height: 180,
    };
    let projector = Projector::camera(size);
    let fixture = fixture(&projector);
    let all = BUILT_IN
        .iter()
        .map(|(_, capability)| capability)
        .sum::<u32>();
    let (_main, mut display, mut canvas) = viewer(&fixture, VIDEO | all);
    canvas.is_blind = true;
    let enough = AtomicBool::new(false);
    let expected: Vec<u8> = BUILT_IN
        .iter()
        .map(|(codec, _)| *codec)
        .chain([MJPEG])
        .collect();

    thread::scope(|scope| {
        scope.spawn(|| projector.play(30, Duration::ZERO, &enough));
        let mut number = 0;
        while number < expected.len() {
            canvas.follow(&mut display);
            if canvas.codecs.len() > number {
                // Of the streams' number, of no frames, all are lost.
                let mut refusal = [0; 32];
                refusal[..4].copy_from_slice(&(number as u32).to_le_bytes());
                refusal[20..24].fill(0xff);
                display.send(102, &refusal);
                number += 1;
            }
        }
        while !canvas.streams.is_empty() {
            canvas.follow(&mut display);
        }
        let pictures = canvas.pictures;
        for _ in 0..30 {
            canvas.follow(&mut display);
        }
        assert_eq!(canvas.pictures, pictures);
        enough.store(true, Ordering::Relaxed);
    });

    assert_eq!(canvas.codecs, expected);
}
