//! A client's screen.

use std::collections::BTreeMap;
use std::time::Instant;

use caraway_spice::Framebuffer;

use super::{COPY, Channel, FILL, PATIENCE, long, word};

/// What a client has on its screen, from the messages of its display channel.
#[derive(Default)]
pub struct Canvas {
    pub width: u32,
    pub height: u32,
    pub pixels: Vec<u32>,
    pub marked: bool,
    pub monitors: Option<u16>,
    /// Video streams that live: where their pictures go, and whether these are shown.
    pub streams: BTreeMap<u32, ([u32; 4], bool)>,
    /// The codecs of all streams that there ever were, and how many pictures these had.
    pub codecs: Vec<u8>,
    pub pictures: usize,
    /// Pictures are only counted: what they cover becomes a colour that nothing has.
    pub is_blind: bool,
    /// The kinds of all messages that drew on this surface, fills and copies of images, and where.
    pub drawings: Vec<(u16, [u32; 4])>,
    /// Where QUIC images went.
    pub photographs: Vec<[u32; 4]>,
    /// Images that it was asked to keep, with their widths, and how many pixels it is ready to.
    pub kept: BTreeMap<u64, (u32, Vec<u32>)>,
    pub keeps: usize,
    /// How many pixels were drawn from what it keeps, and how many images it was told to forget.
    pub repeated: u32,
    pub forgotten: usize,
    /// The pixel that was seen to be another than on the screen.
    wrong: usize,
}

impl Canvas {
    /// Applies the next message, acknowledging it as the server asked for.
    pub fn follow(&mut self, display: &mut Channel) -> u16 {
        let (kind, body) = display.next();
        match kind {
            3 => display.send(1, &body[..4]),
            6 => panic!("the server said goodbye"),
            _ => display.send(2, &[]),
        }
        if kind == FILL || kind == COPY {
            self.drawings.push((kind, rect(&body, 4)));
        }
        match kind {
            3 | 108 => {}
            102 => self.marked = true,
            105 => {
                let images = &body[2..];
                assert_eq!(images.len(), usize::from(body[0]) * 9);
                for image in images.chunks(9) {
                    assert_eq!(image[0], 1, "a pixmap");
                    assert!(self.kept.remove(&long(image, 1)).is_some(), "it was kept");
                    self.forgotten += 1;
                }
            }
            104 => {
                let to = rect(&body, 4);
                let (x, y) = (word(&body, 21), word(&body, 25));
                let (across, down) = (x + to[2] - to[0], y + to[3] - to[1]);
                let rows = (y..down).map(|row| row * self.width);
                let pixels: Vec<u32> = rows
                    .flat_map(|row| (row + x) as usize..(row + across) as usize)
                    .map(|index| self.pixels[index])
                    .collect();
                self.put(to, |index| pixels[index]);
            }
            122 => {
                // Surface and flags: the primary one, top down.
                assert_eq!((word(&body, 0), body[8]), (0, 1));
                let before = self.streams.insert(word(&body, 4), (rect(&body, 34), true));
                assert_eq!(before, None, "two streams of one number");
                self.codecs.push(body[9]);
            }
            123 => {
                let (area, shown) = self.streams[&word(&body, 0)];
                self.show_picture(area, shown, &body[12..], word(&body, 8));
            }
            316 => {
                let (_, shown) = self.streams[&word(&body, 0)];
                let area = rect(&body, 16);
                let size = (area[2] - area[0], area[3] - area[1]);
                assert_eq!((word(&body, 8), word(&body, 12)), size);
                self.show_picture(area, shown, &body[36..], word(&body, 32));
            }
            124 => {
                let shown = match (body[4], body.len()) {
                    (0, 5) => true,
                    (1, 9) => false,
                    other => panic!("clip {other:?}"),
                };
                let stream = self.streams.get_mut(&word(&body, 0));
                stream.expect("the stream lives").1 = shown;
            }
            125 => {
                let stream = self.streams.remove(&word(&body, 0));
                assert!(stream.is_some(), "the stream lives");
            }
            319 => assert!(self.streams.contains_key(&word(&body, 0))),
            FILL => {
                assert_eq!((body[20], body[21], body.len()), (0, 1, 41));
                let colour = word(&body, 22);
                self.put(rect(&body, 4), |_| colour);
            }
            COPY => self.copy(&body),
            314 => {
                assert!(self.pixels.is_empty(), "two primary surfaces");
                assert_eq!(
                    (word(&body, 0), word(&body, 12), word(&body, 16)),
                    (0, 32, 1)
                );
                (self.width, self.height) = (word(&body, 4), word(&body, 8));
                self.pixels = vec![0xdead_0000; (self.width * self.height) as usize];
            }
            315 => {
                assert!(self.streams.is_empty(), "streams outlive their surface");
                *self = Self {
                    kept: std::mem::take(&mut self.kept),
                    keeps: self.keeps,
                    repeated: self.repeated,
                    forgotten: self.forgotten,
                    ..Self::default()
                };
            }
            317 => self.monitors = Some(u16::from_le_bytes([body[0], body[1]])),
            other => panic!("message {other}"),
        }
        kind
    }

    fn show_picture(&mut self, area: [u32; 4], shown: bool, jpeg: &[u8], length: u32) {
        assert_eq!(jpeg.len(), length as usize);
        self.pictures += 1;
        if self.is_blind {
            for y in area[1]..area[3] {
                let row = (y * self.width) as usize;
                self.pixels[row + area[0] as usize..row + area[2] as usize].fill(0xdead_0000);
            }
            return;
        }
        let (size, pixels) = decode_jpeg(jpeg);
        assert_eq!(size, (area[2] - area[0], area[3] - area[1]));
        if shown {
            self.put(area, |index| pixels[index]);
        }
    }

    fn copy(&mut self, body: &[u8]) {
        let area = rect(body, 4);
        let image = word(body, 21) as usize;
        assert_eq!(image, 57);
        let (width, height) = (word(body, image + 10), word(body, image + 14));
        let (across, down) = (area[2] - area[0], area[3] - area[1]);
        if body[image + 8] == 103 {
            assert_eq!(body.len(), image + 18);
            let [x, y, right, bottom] = rect(body, 25);
            assert_eq!((right - x, bottom - y), (across, down));
            let (stride, pixels) = &self.kept[&long(body, image)];
            assert_eq!((*stride, (stride * height) as usize), (width, pixels.len()));
            assert!(right <= width && bottom <= height);
            let rows = (y..bottom).map(|row| (row * stride) as usize);
            let rows = rows.flat_map(|row| &pixels[row + x as usize..row + right as usize]);
            let pixels: Vec<u32> = rows.copied().collect();
            self.put(area, |index| pixels[index]);
            self.repeated += across * down;
            return;
        }
        assert_eq!((width, height), (across, down));
        let rgb: Vec<u32> = match body[image + 8] {
            0 => {
                let pixels = body[image + 36..].as_chunks::<4>().0;
                let colour = |&pixel: &[u8; 4]| u32::from_le_bytes(pixel) & 0xff_ffff;
                pixels.iter().map(colour).collect()
            }
            form => {
                let data = &body[image + 22..];
                assert_eq!(word(body, image + 18) as usize, data.len());
                use shakenfist_spice_compression::{lz, lz4, quic};
                let (columns, rows) = (width as usize, height as usize);
                if form == 1 {
                    self.photographs.push(area);
                }
                if form == 105 {
                    assert_eq!(body[image + 9], 0, "lossy images are not for keeping");
                    let (size, pixels) = decode_jpeg(data);
                    assert_eq!(size, (width, height));
                    self.put(area, |index| pixels[index]);
                    return;
                }
                let decoded = match form {
                    1 => quic::quic_decode(data, width, height),
                    101 => lz::decompress_lz(data).ok().map(|image| image.pixels),
                    109 => lz4::decompress_spice_lz4(data, columns, rows).map(|image| image.pixels),
                    other => panic!("image form {other}"),
                };
                let rgba = decoded.expect("an independent decoder takes it");
                rgba.chunks(4)
                    .map(|p| u32::from_be_bytes([0, p[0], p[1], p[2]]))
                    .collect()
            }
        };
        if body[image + 9] == 1 {
            let before = self.kept.insert(long(body, image), (width, rgb.clone()));
            assert!(before.is_none(), "two images of one number");
            let kept: usize = self.kept.values().map(|(_, pixels)| pixels.len()).sum();
            assert!(kept <= self.keeps, "{kept} pixels are kept");
        }
        let [left, top, right, bottom] = area.map(|n| n as usize);
        for (y, row) in (top..bottom).zip(rgb.chunks(right - left)) {
            let start = y * self.width as usize;
            self.pixels[start + left..start + right].copy_from_slice(row);
        }
    }

    fn put(&mut self, [left, top, right, bottom]: [u32; 4], colour: impl Fn(usize) -> u32) {
        let mut index = 0;
        for y in top..bottom {
            for x in left..right {
                self.pixels[(y * self.width + x) as usize] = colour(index);
                index += 1;
            }
        }
    }

    /// Whether every pixel is as on `screen`.
    pub fn equals(&mut self, screen: &Framebuffer) -> bool {
        let size = screen.size();
        if (self.width, self.height) != (size.width, size.height) {
            return false;
        }
        let differs = |&index: &usize| {
            let (x, y) = (index as u32 % size.width, index as u32 / size.width);
            screen.pixel(x, y) != Some(self.pixels[index])
        };
        // Most likely the pixel that was wrong is still wrong: no need to look at a million others.
        if self.wrong < self.pixels.len() && differs(&self.wrong) {
            return false;
        }
        let wrong = (0..self.pixels.len()).find(differs);
        self.wrong = wrong.unwrap_or(0);
        wrong.is_none()
    }

    /// Follows until the client shows what the screen shows.
    pub fn catch_up(&mut self, display: &mut Channel, screen: &Framebuffer) {
        let start = Instant::now();
        while !(self.marked && self.equals(screen)) {
            assert!(
                start.elapsed() < PATIENCE,
                "the client never shows the screen"
            );
            self.follow(display);
        }
    }
}

/// The size and the colours of a JPEG picture.
fn decode_jpeg(data: &[u8]) -> ((u32, u32), Vec<u32>) {
    let mut decoder = jpeg_decoder::Decoder::new(data);
    let rgb = decoder.decode().expect("an independent decoder takes it");
    let info = decoder.info().expect("it was decoded");
    let colour = |&[r, g, b]: &[u8; 3]| u32::from_be_bytes([0, r, g, b]);
    let pixels = rgb.as_chunks().0.iter().map(colour).collect();
    ((info.width.into(), info.height.into()), pixels)
}

/// Left, top, right, bottom.
fn rect(body: &[u8], at: usize) -> [u32; 4] {
    [
        word(body, at + 4),
        word(body, at),
        word(body, at + 12),
        word(body, at + 8),
    ]
}
