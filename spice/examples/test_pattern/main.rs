//! Serves a moving test pattern on SPICE, with no virtual machine.
//!
//! ```text
//! cargo run -p caraway-spice --example test_pattern -- --listen 127.0.0.1:5900 --size 1024x768
//! remote-viewer spice://127.0.0.1:5900
//! ```
//!
//! Keys and pointer are printed. `--tone HERTZ` plays a tone, `--record` prints how loud the client's
//! microphone is, and `--echo NAME` is a port that gives every byte back. With `--still` the pattern does not move, so that a client's
//! picture can be compared with the one that `--save FILE.ppm` writes. `--film WIDTHxHEIGHT` plays a film of
//! that size instead, for as long as `--seconds` says, and saves its last picture.

mod film;
mod sound;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use caraway_spice::{
    Auth, Config, CursorImage, CursorKind, Devices, Framebuffer, InputSink, Key, ListenAddress,
    Listener, Locks, Microphone, Password, Pipe, Point, PointerEvent, Port, Rect, Server,
    SessionEvent, SessionObserver, Size, Speaker,
};

const USAGE: &str = "test_pattern [--listen ADDRESS]... [--size WIDTHxHEIGHT] [--password TEXT] \
                     [--relative] [--still] [--save FILE.ppm] [--tone HERTZ] [--record] \
                     [--echo NAME]... [--film WIDTHxHEIGHT [--seconds NUMBER]]";

struct Options {
    listen: Vec<ListenAddress>,
    size: Size,
    auth: Auth,
    absolute: bool,
    moving: bool,
    save: Option<String>,
    tone: Option<f64>,
    record: bool,
    echoes: Vec<String>,
    film: Option<Size>,
    seconds: Option<u64>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            listen: Vec::new(),
            size: Size {
                width: 1024,
                height: 768,
            },
            auth: Auth::None,
            absolute: true,
            moving: true,
            save: None,
            tone: None,
            record: false,
            echoes: Vec::new(),
            film: None,
            seconds: None,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--listen" => options.listen.push(value()?.parse()?),
                "--size" => options.size = parse_size(&value()?)?,
                "--password" => options.auth = Auth::Password(Password::new(&value()?)?),
                "--relative" => options.absolute = false,
                "--still" => options.moving = false,
                "--save" => options.save = Some(value()?),
                "--tone" => options.tone = Some(value()?.parse()?),
                "--record" => options.record = true,
                "--echo" => options.echoes.push(value()?),
                "--film" => options.film = Some(parse_size(&value()?)?),
                "--seconds" => options.seconds = Some(value()?.parse()?),
                _ => return Err(format!("unknown option {word}\nusage: {USAGE}").into()),
            }
        }
        if options.listen.is_empty() {
            options.listen.push("127.0.0.1:5900".parse()?);
        }
        Ok(options)
    }
}

fn parse_size(text: &str) -> Result<Size, Box<dyn Error>> {
    let (width, height) = text.split_once('x').ok_or("a size is WIDTHxHEIGHT")?;
    Ok(Size {
        width: width.parse()?,
        height: height.parse()?,
    })
}

struct Printer {
    screen: Arc<Framebuffer>,
    absolute: bool,
}

impl InputSink for Printer {
    fn key(&self, key: Key, down: bool) {
        let prefix = if key.extended { "e0 " } else { "" };
        println!(
            "key {prefix}{:02x} {}",
            key.code,
            if down { "down" } else { "up" }
        );
    }

    fn pointer(&self, event: PointerEvent) {
        println!("pointer {event:?}");
        if let PointerEvent::Position { x, y, .. } = event {
            self.screen.move_cursor(Point {
                x: x as i32,
                y: y as i32,
            });
        }
    }

    fn locks(&self) -> Locks {
        Locks::default()
    }

    fn absolute(&self) -> bool {
        self.absolute
    }
}

struct Events;

impl SessionObserver for Events {
    fn event(&self, event: SessionEvent) {
        println!("{event:?}");
    }
}

/// Stripes, a gradient, a fine grid and noise: something for every codec.
fn background(size: Size) -> impl Fn(u32, u32) -> u32 {
    move |x, y| {
        let band = 4 * y / size.height.max(1);
        match band {
            0 => [
                0xff_ffff, 0xffff00, 0x00ffff, 0x00ff00, 0xff00ff, 0xff0000, 0x0000ff, 0,
            ][(8 * x / size.width.max(1)) as usize % 8],
            1 => (x * 255 / size.width.max(1)) << 16 | (y % 256) << 8 | (255 - x % 256),
            2 if (x / 4 + y / 4) % 2 == 0 => 0x20_2020,
            2 => 0xe0_e0e0,
            _ if x < size.width / 4 => (x * size.width + y).wrapping_mul(2_654_435_761) >> 8,
            _ => 0x10_3050,
        }
    }
}

/// An arrow, as premultiplied ARGB.
fn arrow() -> CursorImage {
    let side = 16u32;
    let pixels = (0..side * side).flat_map(|i| {
        let (x, y) = (i % side, i / side);
        let edge = x == y || x == 0;
        let argb: u32 = match (x <= y && x + y < 20, edge) {
            (true, true) => 0xff00_0000,
            (true, false) => 0xffff_ffff,
            (false, _) => 0,
        };
        argb.to_le_bytes()
    });
    CursorImage {
        kind: CursorKind::Alpha,
        width: side as u16,
        height: side as u16,
        hot_x: 0,
        hot_y: 0,
        data: pixels.collect(),
    }
}

async fn animate(screen: Arc<Framebuffer>) {
    let size = screen.size();
    let pattern = background(size);
    let side = 64;
    let mut step = 0u32;
    let place = |step: u32| {
        let left = (step * 4 % size.width.max(1)) as i32;
        let top = (step * 2 % size.height.max(1)) as i32;
        Rect {
            left,
            top,
            right: left + side,
            bottom: top + side,
        }
    };
    loop {
        screen.draw(place(step), &pattern);
        step = step.wrapping_add(1);
        screen.draw(place(step), |x, y| (x ^ y ^ step).wrapping_mul(0x01_0307));
        tokio::time::sleep(Duration::from_millis(16)).await;
    }
}

/// A port that gives back what it gets.
fn echo_port(name: String) -> Port {
    let pipe = Pipe::new();
    let port = Port {
        name,
        pipe: pipe.clone(),
    };
    tokio::spawn(async move {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let echo = async {
            let (mut reader, mut writer) = tokio::io::split(ours);
            tokio::io::copy(&mut reader, &mut writer).await
        };
        tokio::join!(pipe.relay(theirs, false), echo)
    });
    port
}

fn save(screen: &Framebuffer, path: &str) -> std::io::Result<()> {
    let size = screen.size();
    let mut ppm = format!("P6\n{} {}\n255\n", size.width, size.height).into_bytes();
    for y in 0..size.height {
        for x in 0..size.width {
            let [blue, green, red, _] = screen.pixel(x, y).unwrap_or(0).to_le_bytes();
            ppm.extend([red, green, blue]);
        }
    }
    std::fs::write(path, ppm)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    let screen = Framebuffer::new(options.size);
    screen.draw(Rect::of_size(options.size), background(screen.size()));
    screen.set_cursor(Some(arrow()));
    if let Some(path) = &options.save {
        save(&screen, path)?;
    }

    let listeners: Vec<_> = options
        .listen
        .iter()
        .map(Listener::bind)
        .collect::<Result<_, _>>()?;
    let config = Config {
        name: "test pattern".into(),
        auth: options.auth,
        ..Config::default()
    };
    let printer = Printer {
        screen: screen.clone(),
        absolute: options.absolute,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut devices = Devices {
            displays: vec![screen.clone()],
            inputs: Arc::new(printer),
            ports: options.echoes.into_iter().map(echo_port).collect(),
            ..Devices::default()
        };
        if let Some(hertz) = options.tone {
            let speaker = Speaker::new();
            devices.playback = Some(speaker.clone());
            tokio::spawn(sound::play_tone(speaker, hertz));
        }
        if options.record {
            let microphone = Microphone::new();
            devices.record = Some(microphone.clone());
            tokio::spawn(sound::print_levels(microphone));
        }
        let server = Server::new(config, devices, Arc::new(Events));
        for listener in listeners {
            println!("listening on {}", listener.address());
            tokio::spawn(server.clone().serve(listener));
        }
        if let Some(size) = options.film {
            let time = options.seconds.map_or(Duration::MAX, Duration::from_secs);
            // In a thread of its own, as a guest draws: it does not wait for the server.
            let stage = screen.clone();
            tokio::task::spawn_blocking(move || film::play(&stage, size, time)).await?;
            println!("the film is over");
            if let Some(path) = &options.save {
                save(&screen, path)?;
            }
        } else if options.moving {
            animate(screen).await;
        }
        std::future::pending().await
    })
}
