//! Plays a QXL recording to SPICE clients, through the device, with no virtual machine.
//!
//! ```text
//! cargo run --release -p caraway-qxl --example replay -- FILE.rec[.zst] --listen 127.0.0.1:5900 --wait-client
//! remote-viewer spice://127.0.0.1:5900
//! ```
//!
//! Recordings are the reference server's (`SPICE_WORKER_RECORD_FILENAME`), as text or compressed
//! with zstd. With `--delay 10ms` there is that much time between two commands. The program ends
//! once every client has everything, which is when nothing was sent for `--quiet 300ms`, or has left,
//! and prints what it took.

mod command;
mod guest;
mod recording;

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caraway_spice::{Config, Devices, ListenAddress, Listener, Server};
use command::{CommandError, Transcript};
use guest::Guest;
use recording::{EventKind, Input, Recording, RecordingError, TextFile};

const USAGE: &str = "replay FILE.rec[.zst] [--listen ADDRESS] [--delay 10ms] [--wait-client] \
                     [--quiet 300ms] [--save FILE.ppm]";

/// What a zstd file begins with.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The largest window that `zstd --long=31` makes.
const ZSTD_WINDOW_LOG: u32 = 31;

/// Bytes that are unpacked at once: few enough to be still in the processor's cache when they are copied.
const BUFFER: usize = 128 << 10;

/// Requests that a recording has, by the reference's numbers.
const DESTROY_SURFACES: [u32; 2] = [19, 28];
const CREATE_PRIMARY: [u32; 2] = [20, 29];
const DESTROY_PRIMARY: [u32; 2] = [21, 30];

/// How long clients must be quiet to have everything, if nothing else is asked for.
const QUIET: Duration = Duration::from_millis(300);
/// How long clients have to take the farewell.
const FAREWELL: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(10);
/// Between two looks at whether the client has everything: what is measured is not how often it is asked.
const POLL_AT_END: Duration = Duration::from_millis(100);

/// Threads that encode.
const ENCODERS: usize = 2;

struct Options {
    file: PathBuf,
    listen: ListenAddress,
    delay: Duration,
    quiet: Duration,
    wait_client: bool,
    save: Option<PathBuf>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut file = None;
        let mut listen = "127.0.0.1:5900".parse()?;
        let (mut delay, mut quiet) = (Duration::ZERO, QUIET);
        let (mut wait_client, mut save) = (false, None);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--listen" => listen = value()?.parse()?,
                "--delay" => delay = parse_time(&value()?)?,
                "--quiet" => quiet = parse_time(&value()?)?,
                "--wait-client" => wait_client = true,
                "--save" => save = Some(value()?.into()),
                _ if word.starts_with("--") => {
                    return Err(format!("unknown option {word}\nusage: {USAGE}").into());
                }
                _ => file = Some(word.into()),
            }
        }
        Ok(Self {
            file: file.ok_or(format!("which recording?\nusage: {USAGE}"))?,
            listen,
            delay,
            quiet,
            wait_client,
            save,
        })
    }
}

fn parse_time(text: &str) -> Result<Duration, Box<dyn Error>> {
    let units = [("us", 1), ("ms", 1000), ("s", 1_000_000)];
    let time = units.iter().find_map(|(unit, micros)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::from_micros(number.saturating_mul(*micros)))
    });
    time.ok_or_else(|| format!("{text} is no time: give it as 10ms, 500us or 2s").into())
}

fn open(path: &Path) -> Result<Box<dyn Input>, Box<dyn Error>> {
    let of_file = |error| format!("can't read {}: {error}", path.display());
    let mut file = File::open(path).map_err(of_file)?;
    let mut magic = Vec::new();
    (&mut file)
        .take(4)
        .read_to_end(&mut magic)
        .map_err(of_file)?;
    file.rewind().map_err(of_file)?;
    if magic != ZSTD_MAGIC {
        return Ok(Box::new(TextFile::new(file)));
    }
    let mut decoder = zstd::Decoder::new(file)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(Box::new(BufReader::with_capacity(BUFFER, decoder)))
}

/// Gives the guest what the next event says; `false` at the end.
fn step<R: Input>(recording: &mut Recording<R>, guest: &mut Guest) -> Result<Step, CommandError> {
    let Some(event) = recording.event()? else {
        return Ok(Step::End);
    };
    match event {
        EventKind::Command(kind) => {
            let command = Transcript { recording, guest }.command(kind)?;
            if let Some(address) = command {
                guest.run(kind, address);
                return Ok(Step::Command);
            }
        }
        EventKind::Request(kind) if CREATE_PRIMARY.contains(&kind) => {
            let [width, height, stride, format]: [i128; 4] = recording.numbers("")?;
            let [position, mouse_mode, flags, kind]: [i128; 4] = recording.numbers("")?;
            let words = [
                width, height, stride, format, position, mouse_mode, flags, kind,
            ];
            guest.destroy_primary();
            let len = recording.blob_len()?;
            // Once it is there, nobody looks at this memory again.
            let data = Transcript { recording, guest }.data(0, len)?;
            guest.create_primary(words.map(|word| word as u32), data);
        }
        EventKind::Request(kind) if DESTROY_PRIMARY.contains(&kind) => guest.destroy_primary(),
        EventKind::Request(kind) if DESTROY_SURFACES.contains(&kind) => guest.destroy_surfaces(),
        EventKind::Request(_) => {}
    }
    Ok(Step::Request)
}

enum Step {
    Command,
    Request,
    End,
}

fn save(guest: &Guest, path: &Path) -> std::io::Result<()> {
    let Some(shot) = guest.qxl().screenshot(0) else {
        return Err(std::io::Error::other("there is nothing on the screen"));
    };
    let mut ppm = format!("P6\n{} {}\n255\n", shot.size.width, shot.size.height).into_bytes();
    let pixels = shot.pixels.as_chunks::<4>().0;
    ppm.extend(
        pixels
            .iter()
            .flat_map(|&[blue, green, red, _]| [red, green, blue]),
    );
    std::fs::write(path, ppm)
}

/// Bytes that all display channels have sent.
fn sent(server: &Server) -> u64 {
    let sessions = server.info().sessions;
    let channels = sessions.iter().flat_map(|session| &session.channels);
    channels.map(|channel| channel.bytes_out).sum()
}

fn has_display(server: &Server) -> bool {
    let sessions = server.info().sessions;
    let mut channels = sessions.iter().flat_map(|session| &session.channels);
    channels.any(|channel| channel.kind == caraway_spice::ChannelKind::Display)
}

fn play(options: &Options, guest: &mut Guest, server: &Server) -> Result<(), Box<dyn Error>> {
    let mut recording = Recording::new(open(&options.file)?)?;
    while options.wait_client && !has_display(server) {
        std::thread::sleep(POLL);
    }
    let start = Instant::now();
    let mut commands = 0_u64;
    loop {
        match step(&mut recording, guest) {
            Ok(Step::End) => break,
            Ok(Step::Request) => {}
            Ok(Step::Command) => {
                commands += 1;
                std::thread::sleep(options.delay);
            }
            Err(CommandError::Recording(RecordingError::CutShort)) => {
                println!("the last event is cut short; it was left out");
                break;
            }
            Err(error) => return Err(format!("{}: {error}", options.file.display()).into()),
        }
    }
    let elapsed = start.elapsed();
    let (middle, most) = guest.times().unwrap_or_default();
    println!("{commands} commands in {elapsed:.2?}; drawing one took {middle:.2?} to {most:.2?}");
    if let Some(path) = &options.save {
        save(guest, path)?;
    }
    let mut bytes = sent(server);
    let mut last = Instant::now();
    while last.elapsed() < options.quiet && has_display(server) {
        std::thread::sleep(POLL_AT_END);
        let now = sent(server);
        if std::mem::replace(&mut bytes, now) != now {
            last = Instant::now();
        }
    }
    println!("{bytes} bytes to clients");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    let mut guest = Guest::new()?;
    let listener = Listener::bind(&options.listen)?;
    println!("listening on {}", listener.address());
    let config = Config {
        name: options.file.display().to_string(),
        ..Config::default()
    };
    let devices = Devices {
        displays: vec![guest.qxl().clone()],
        ..Devices::default()
    };
    let server = Server::new(config, devices, Arc::new(()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(ENCODERS)
        .enable_all()
        .build()?;
    let served = Arc::clone(&server);
    let serving = std::thread::spawn(move || {
        runtime.block_on(async {
            let serving = served.clone().serve(listener).await;
            // Whoever does not take the farewell goes without.
            let _ = tokio::time::timeout(FAREWELL, served.closed()).await;
            serving
        })
    });
    play(&options, &mut guest, &server)?;
    server.shutdown();
    serving.join().expect("the server does not panic")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use caraway_spice::{DisplayObserver, DisplaySource, Update};

    /// A screen of 2×1 pixels, the right one filled with 0x123456.
    const FILL: &str = "SPICE_REPLAY 1\n\
        event 0 1 20 1\n2 1 8 32\n0 1 0 0\nbinary 0 data 8:\0\0\0\0\0\0\0\0\n\
        event 1 1 2 5\n\
        event 2 0 1 9\ndrawable\nrect bbox 0 1 1 2\ntype 0\neffect 1\nmm_time 1\nself_bitmap 0\n\
        rect self_bitmap_area 0 0 0 0\nsurface_id 0\n\
        surfaces_dest -1\nrect surfaces_rects 0 0 0 0\n\
        surfaces_dest -1\nrect surfaces_rects 0 0 0 0\n\
        surfaces_dest -1\nrect surfaces_rects 0 0 0 0\n\
        type 1\ntype 1\nu.color 1193046\nrop_descriptor 8\nflags 0\npoint 0 0\nimage 0\n";

    fn played(text: &str) -> Result<Guest, CommandError> {
        let mut recording = Recording::new(text.as_bytes())?;
        let mut guest = Guest::new().expect("the host has memory");
        while !matches!(step(&mut recording, &mut guest)?, Step::End) {}
        Ok(guest)
    }

    #[test]
    fn what_was_recorded_is_drawn() {
        let guest = played(FILL).expect("the recording is right");

        let shot = guest.qxl().screenshot(0).expect("there is a screen");

        assert_eq!(shot.pixels, [0, 0, 0, 0, 0x56, 0x34, 0x12, 0]);
    }

    #[test]
    fn what_is_large_is_drawn_from_the_file_and_leaves_it_as_it_is() {
        const SIZE: usize = 200 * 100 * 4;
        let blob = |shade: &str| format!("binary 0 data {SIZE}:{}\n", shade.repeat(SIZE / 4));
        let text = format!(
            "SPICE_REPLAY 1\nevent 0 1 20 1\n200 100 800 32\n0 1 1 0\n{}event 1 0 1 9\ndrawable\n\
             rect bbox 50 0 100 200\ntype 0\neffect{}type 3\nimage 1\ndescriptor.id 0\n\
             descriptor.type 0\ndescriptor.flags 0\ndescriptor.width 200\ndescriptor.height 100\n\
             bitmap.format 8\nbitmap.flags 4\nbitmap.x 200\nbitmap.y 100\nbitmap.stride 800\n\
             has_palette 0\ndata_chunks 0 {SIZE}\n{}rect src_area 50 0 100 200\n{ROP}\
             scale_mode 0\nflags 0\npoint 0 0\nimage 0\n",
            blob("abc\0"),
            PLACE.split_once("effect").map_or("", |(_, rest)| rest),
            blob("xyz\0"),
        );
        let file = tempfile::NamedTempFile::new().expect("there is room");
        std::fs::write(file.path(), &text).expect("there is room");
        let play = || {
            let mut recording = Recording::new(open(file.path()).expect("it is there"))?;
            let mut guest = Guest::new().expect("the host has memory");
            while !matches!(step(&mut recording, &mut guest)?, Step::End) {}
            Ok::<_, CommandError>(guest)
        };

        let guest = play().expect("the recording is right");

        let shot = guest.qxl().screenshot(0).expect("there is a screen");
        let half = SIZE / 8;
        let expected = ["abc\0".repeat(half), "xyz\0".repeat(half)].concat();
        assert!(shot.pixels == expected.into_bytes());
        let left = std::fs::read(file.path()).expect("it is there");
        assert!(left == text.as_bytes());
        let end = text.find("event 1").unwrap_or_default() - 10;
        std::fs::write(file.path(), &text[..end]).expect("there is room");
        let cut = CommandError::Recording(RecordingError::CutShort).to_string();
        assert_eq!(play().err().map(|error| error.to_string()), Some(cut));
    }

    #[test]
    fn a_recording_that_is_cut_short_anywhere_says_so() {
        let events = ["event 0", "event 1", "event 2"].map(|event| FILL.find(event));
        for end in 16..FILL.len() {
            let whole = events.contains(&Some(end));

            let played = played(&FILL[..end]);

            let cut = matches!(
                played,
                Err(CommandError::Recording(RecordingError::CutShort))
            );
            assert!(whole || cut, "cut at {end}");
        }
    }

    const PLACE: &str = "rect bbox 0 0 1 2\ntype 1\nnum_rects 1\ndata_chunks 0 16\n\
        binary 0 clip_rects 16:\0\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\neffect 1\nmm_time 7\n\
        self_bitmap 0\nrect self_bitmap_area 0 0 0 0\nsurface_id 0\n\
        surfaces_dest -1\nrect surfaces_rects 0 0 0 0\n\
        surfaces_dest -1\nrect surfaces_rects 0 0 0 0\n\
        surfaces_dest -1\nrect surfaces_rects 0 0 0 0\n";
    const IMAGE: &str = "image 1\ndescriptor.id 5\ndescriptor.type 0\ndescriptor.flags 1\n\
        descriptor.width 2\ndescriptor.height 1\nbitmap.format 8\nbitmap.flags 4\nbitmap.x 2\n\
        bitmap.y 1\nbitmap.stride 8\nhas_palette 0\ndata_chunks 0 8\nbinary 0 bitmap.data 8:abcdefgh\n";
    const PALETTE: &str = "image 1\ndescriptor.id 6\ndescriptor.type 0\ndescriptor.flags 0\n\
        descriptor.width 2\ndescriptor.height 1\nbitmap.format 5\nbitmap.flags 5\nbitmap.x 2\n\
        bitmap.y 1\nbitmap.stride 4\nhas_palette 1\nqp.num_ents 2\nunique 9\nents 255\nents -1\n\
        binary 0 image_data_flat 4:\0\x01\0\0\n";
    const SURFACE: &str = "image 1\ndescriptor.id 0\ndescriptor.type 104\ndescriptor.flags 0\n\
        descriptor.width 2\ndescriptor.height 1\nsurface_image.surface_id 3\n";
    const AREA: &str = "rect src_area 0 0 1 2\n";
    const SOLID: &str = "type 1\nu.color 1193046\n";
    const ROP: &str = "rop_descriptor 8\n";
    const SCALE: &str = "scale_mode 1\n";
    const MASK: &str = "flags 1\npoint 3 -4\nimage 0\n";
    const MODES: &str = "fore_mode 8\nback_mode 9\n";

    /// The bodies of every draw type, some in several forms.
    fn bodies() -> Vec<(u8, String)> {
        let pattern = format!("type 2\n{IMAGE}point 1 0\n");
        let path = "data_chunks 0 16\nbinary 0 path 16:0123456789abcdef\n";
        let style = "attr.flags 8\nattr.style_nseg 1\nbinary 0 style 4:wxyz\n";
        let string = "data_size 4\nlength 1\nflags 2\ndata_chunks 0 4\nbinary 0 string 4:glyf\n";
        let matrix = format!("1\nbinary 0 transform 36:{}\n", "m".repeat(36));
        vec![
            (0, String::new()),
            (1, format!("{SOLID}{ROP}{MASK}")),
            (1, format!("type 0\n{ROP}flags 0\npoint 0 0\n{PALETTE}")),
            (2, format!("{IMAGE}{AREA}{pattern}{ROP}{SCALE}{MASK}")),
            (3, format!("{PALETTE}{AREA}{ROP}{SCALE}{MASK}")),
            (3, format!("{SURFACE}{AREA}{ROP}{SCALE}{MASK}")),
            (4, "point 1 0\n".to_owned()),
            (5, format!("{IMAGE}{AREA}{ROP}{SCALE}{MASK}")),
            (6, MASK.to_owned()),
            (7, MASK.to_owned()),
            (8, MASK.to_owned()),
            (9, format!("{IMAGE}{AREA}{SOLID}rop3 90\n{SCALE}{MASK}")),
            (10, format!("{path}attr.flags 0\n{SOLID}{MODES}")),
            (10, format!("{path}{style}{SOLID}{MODES}")),
            (
                11,
                format!("{string}rect back_area 0 0 1 2\n{SOLID}{pattern}{MODES}"),
            ),
            (12, format!("{IMAGE}{AREA}src_color 5\ntrue_color -6\n")),
            (13, format!("alpha_flags 2\nalpha 128\n{IMAGE}{AREA}")),
            (
                14,
                format!(
                    "flags 259\n{IMAGE}src_transform {matrix}mask 1\n{IMAGE}mask_transform 0\n\
                     src_origin 1 -2\nmask_origin 3 4\n"
                ),
            ),
        ]
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("nobody panics").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A recording without what differs from one time to another: the requests that the device itself
    /// does not know, numbers and times.
    fn events(text: &str) -> Vec<String> {
        let events = text.split("event ").skip(1);
        let without_time = |event: &str| {
            let (head, body) = event.split_once('\n').unwrap_or_default();
            let kind: Vec<&str> = head.split(' ').skip(1).take(2).collect();
            format!("{}\n{body}", kind.join(" "))
        };
        events.map(without_time).collect()
    }

    #[test]
    fn what_the_device_records_is_what_was_played() {
        let mut text = FILL.split("event 1").next().unwrap_or_default().to_owned();
        for (kind, body) in bodies() {
            text += &format!("event 1 0 1 9\ndrawable\n{PLACE}type {kind}\n{body}");
        }
        text += "event 2 0 5 9\nsurface_cmd\nsurface_id 3\ntype 0\nflags 1\n\
            u.surface_create.format 32\nu.surface_create.width 2\nu.surface_create.height 1\n\
            u.surface_create.stride 8\nbinary 0 data 8:12345678\n";
        text += "event 3 0 5 9\nsurface_cmd\nsurface_id 3\ntype 1\nflags 0\n";
        text += "event 4 0 3 9\ncursor_cmd\ntype 0\npoint16 -1 2\nu.set.visible 1\nheader.unique 0\n\
            header.type 1\nheader.width 8\nheader.height 1\nheader.hot_spot_x 1\n\
            header.hot_spot_y 0\ndata_size 2\ndata_chunks 0 2\nbinary 0 cursor 2:ab\n";
        text += "event 5 0 3 9\ncursor_cmd\ntype 1\npoint16 3 4\n";
        text += "event 6 0 3 9\ncursor_cmd\ntype 2\n";
        text += "event 7 1 21 9\n";
        let mut recording = Recording::new(text.as_bytes()).expect("it is one");
        let mut guest = Guest::new().expect("the host has memory");
        let copy = Shared::default();
        guest
            .qxl()
            .record(Box::new(copy.clone()))
            .expect("it is written");

        while !matches!(step(&mut recording, &mut guest), Ok(Step::End)) {}

        let copy = copy.0.lock().expect("nobody panics");
        let copy = String::from_utf8_lossy(&copy);
        assert!(copy.starts_with("SPICE_REPLAY 1\nevent 0 1 20 "));
        assert_eq!(events(&copy), events(&text));
    }

    /// Pixels of what is news.
    #[derive(Default)]
    struct News(std::sync::Mutex<Vec<u64>>);

    impl DisplayObserver for News {
        fn updated(&self, updates: &[Update]) {
            let pixels = updates.iter().map(|update| match update {
                Update::Pixels(area) => area.pixels(),
                _ => 0,
            });
            self.0.lock().expect("nobody panics").extend(pixels);
        }
        fn layout_changed(&self) {}
        fn cursor_changed(&self) {}
    }

    #[test]
    fn a_4k_command_that_changes_16_by_16_pixels_is_news_of_less_than_4_kib_however_it_is_encoded()
    {
        const SIZE: usize = 3840 * 2160 * 4;
        let pixels = "\0".repeat(SIZE);
        let mut changed = pixels.clone().into_bytes();
        for y in 208..224 {
            let at = (y * 3840 + 324) * 4;
            changed[at..at + 64].fill(b'x');
        }
        let changed = String::from_utf8(changed).expect("it is text");
        let place = PLACE.split_once("effect").map_or("", |(_, rest)| rest);
        let text = format!(
            "SPICE_REPLAY 1\nevent 0 1 20 1\n3840 2160 15360 32\n0 1 0 0\n\
             binary 0 data {SIZE}:{pixels}\nevent 1 0 1 9\ndrawable\nrect bbox 0 0 2160 3840\n\
             type 0\neffect{place}type 3\nimage 1\ndescriptor.id 0\ndescriptor.type 0\n\
             descriptor.flags 0\ndescriptor.width 3840\ndescriptor.height 2160\nbitmap.format 8\n\
             bitmap.flags 4\nbitmap.x 3840\nbitmap.y 2160\nbitmap.stride 15360\nhas_palette 0\n\
             data_chunks 0 {SIZE}\nbinary 0 bitmap.data {SIZE}:{changed}\n\
             rect src_area 0 0 2160 3840\n{ROP}scale_mode 0\nflags 0\npoint 0 0\nimage 0\n"
        );
        let mut recording = Recording::new(text.as_bytes()).expect("it is one");
        let mut guest = Guest::new().expect("the host has memory");
        let news = Arc::new(News::default());
        let observer: std::sync::Weak<dyn DisplayObserver> = Arc::<News>::downgrade(&news);
        guest.qxl().observe(observer);

        while !matches!(step(&mut recording, &mut guest), Ok(Step::End)) {}

        // The new surface; and a tile, of which each pixel takes four bytes at most.
        let news = news.0.lock().expect("nobody panics");
        assert_eq!(*news, [3840 * 2160, 32 * 16]);
    }

    #[test]
    fn another_file_is_refused() {
        assert!(matches!(
            Recording::new("PK\x03\x04".as_bytes()).err(),
            Some(RecordingError::NotARecording)
        ));
    }
}
