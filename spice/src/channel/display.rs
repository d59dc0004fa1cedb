//! The display channel: sends what changed, when the client has room for it.
//!
//! A client has damage and no queue. Whenever its window has room, the piece that it should get next
//! is taken, read from the source as it is *then*, encoded and written; so a slow client gets fewer
//! and newer pixels, never a backlog, and costs one piece of memory.
//!
//! A piece costs three copies of its pixels before the kernel's (into memory that is kept, from there into
//! the dictionary, and what the encoder makes of them into the message), three allocations beside
//! the encoder's own, and one write; a large one is encoded by another thread, which costs two wake-ups.
//! Damage wakes the channel only if it waits for damage, so a guest that draws faster than the link takes
//! costs no wake-ups; each piece's acknowledgement is one.
//!
//! Photographs that would keep the link busy for longer than [`SLOW`] go as lossy images first, and exactly once
//! nothing else is to be sent. Exact ones the client keeps, and what of them comes again is drawn from there.
//!
//! What clients insist on: `SURFACE_CREATE` of a primary surface before anything is drawn; `MARK`
//! before a viewer's widget shows anything; and one image of the whole surface as the very first drawing,
//! because `spicy-screenshot` saves the screen then.

mod film;
mod picture;
mod piece;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use picture::Films;
use piece::{Drawings, How, Piece};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Context, Endless, draw, ignore, stream};
use crate::codec::{Codec, Encoder};
use crate::damage::Next;
use crate::flow::Flight;
use crate::geometry::{Rect, Size};
use crate::hub::ViewGuard;
use crate::pool;
use crate::protocol::{common, display as id};
use crate::session::Ending;
use crate::source::{Head, Layout};
use crate::video::streams::{Act, Streams};
use crate::wire::{Message, MessageReader, MessageWriter, Reader, Truncated};

/// Pixels of a surface that is tried as one image at first, such as one of 3840×2160: 32 MiB as they are.
const WHOLE_PIXELS: u64 = 8 * 1024 * 1024;
/// Bytes of an image on the wire at most. Proxies guard against frames over 16 MiB.
const MAX_IMAGE_BYTES: usize = 4 * 1024 * 1024 - 1024;
/// What takes longer than this to arrive exactly is worth a lossy image before it.
const SLOW: Duration = Duration::from_millis(150);
/// Bytes of a piece that is sent in haste, unless there is room for more: each JPEG picture has 600 of tables.
const HASTY_ROOM: usize = 8 * 1024;
/// A piece that takes so many times the bytes that were expected is not sent but cut.
const OVERSHOOT: usize = 2;
/// What a surface is before anything is drawn on it.
const BLACK: u32 = 0;
const INIT_TIME: Duration = Duration::from_secs(30);

/// What both halves know.
struct Shared {
    view: ViewGuard,
    client: Mutex<Client>,
}

struct Client {
    init: Option<Init>,
    codec: Codec,
    flight: Flight,
    streams: Streams,
}

impl Client {
    /// Bytes that may wait for the link before a lossy image is worth it; `None` if it never is, as the client
    /// prefers a form, or nobody knows how fast the link is.
    fn patience(&self) -> Option<f64> {
        let is_ours = matches!(self.codec, Codec::Auto | Codec::AutoLz);
        let rate = self.flight.known_rate().filter(|_| is_ours)?;
        Some(rate * SLOW.as_secs_f64())
    }
}

pub(super) async fn serve(
    context: &Context,
    reader: &mut MessageReader,
    writer: &mut MessageWriter,
) -> Endless {
    let hub = context
        .server
        .devices()
        .displays
        .get(usize::from(context.channel.id));
    let shared = Shared {
        view: hub
            .ok_or(Ending::Closed)?
            .view(context.capabilities.word(0)),
        client: Mutex::new(Client {
            init: None,
            codec: Codec::default(),
            flight: Flight::new(Instant::now()),
            streams: Streams::new(film::ability(&context.capabilities)),
        }),
    };
    let sender = Sender {
        context,
        shared: &shared,
        writer,
        screen: None,
        has_drawn: false,
        encoder: Encoder::default(),
        films: Films::default(),
    };
    tokio::select! {
        end = read(context, &shared, reader) => end,
        end = sender.run() => end,
    }
}

async fn read(context: &Context, shared: &Shared, reader: &mut MessageReader) -> Endless {
    let has_lz4 = context.capabilities.has(id::CAP_LZ4);
    loop {
        let (kind, body) = reader.next().await?;
        let malformed = context.malformed(kind);
        let mut fields = Reader(body);
        {
            let mut client = shared.client.lock();
            match kind {
                common::C_ACK_SYNC => client.flight.sync(fields.u32().map_err(malformed)?),
                common::C_ACK => client.flight.acknowledged(Instant::now()),
                id::C_INIT => {
                    client.init = Some(Init::parse(&mut fields).map_err(malformed)?);
                }
                id::C_PREFERRED_COMPRESSION => {
                    client.codec = preferred(fields.u8().map_err(malformed)?, has_lz4);
                }
                id::C_STREAM_REPORT => {
                    let (stream, number, report) =
                        stream::parse_report(&mut fields).map_err(malformed)?;
                    client.streams.reported(stream, number, report);
                }
                id::C_PREFERRED_VIDEO_CODECS => {
                    let wish = stream::parse_wish(&mut fields).map_err(malformed)?;
                    client.streams.prefer(wish);
                }
                _ => ignore(kind)?,
            }
        }
        shared.view.viewer.wake.notify_one();
    }
}

/// `SPICE_MSGC_DISPLAY_INIT`: what the client keeps.
#[derive(Debug, Clone, Copy)]
struct Init {
    /// Bytes of images.
    cache: usize,
    dictionary: u8,
    /// Pixels in it; 0 if there is none.
    window: usize,
}

impl Init {
    fn parse(fields: &mut Reader) -> Result<Self, Truncated> {
        // The number of the image cache, which is the same on all displays of a client.
        fields.u8()?;
        let cache = fields.u64()?.cast_signed();
        let dictionary = fields.u8()?;
        let window = fields.u32()?.cast_signed();
        Ok(Self {
            cache: usize::try_from(cache).unwrap_or(0),
            dictionary,
            window: usize::try_from(window).unwrap_or(0),
        })
    }
}

/// The codec for a client's wish (`SPICE_IMAGE_COMPRESSION_*`).
fn preferred(wish: u8, has_lz4: bool) -> Codec {
    const OFF: u8 = 1;
    const AUTO_GLZ: u8 = 2;
    const AUTO_LZ: u8 = 3;
    const QUIC: u8 = 4;
    const GLZ: u8 = 5;
    const LZ: u8 = 6;
    const LZ4: u8 = 7;
    match wish {
        OFF => Codec::Raw,
        AUTO_GLZ => Codec::Auto,
        AUTO_LZ => Codec::AutoLz,
        QUIC => Codec::Quic,
        GLZ => Codec::Glz,
        LZ => Codec::LzPalette,
        LZ4 if has_lz4 => Codec::Lz4,
        _ => Codec::Lz,
    }
}

/// What the client has as its primary surface.
#[derive(Clone)]
struct Screen {
    generation: u64,
    size: Size,
    heads: Vec<Head>,
}

struct Sender<'a> {
    context: &'a Context,
    shared: &'a Shared,
    writer: &'a mut MessageWriter,
    screen: Option<Screen>,
    /// Whether anything was drawn on any surface.
    has_drawn: bool,
    encoder: Encoder,
    films: Films,
}

impl Sender<'_> {
    async fn run(mut self) -> Endless {
        let shared = self.shared;
        let viewer = &*shared.view.viewer;
        let ack = Message::new(common::SET_ACK)
            .u32(Flight::GENERATION)
            .u32(Flight::ACK_WINDOW);
        self.writer.send(ack).await?;
        let initialised = async {
            loop {
                if let Some(init) = shared.client.lock().init {
                    break init;
                }
                viewer.wake.notified().await;
            }
        };
        let init = timeout(INIT_TIME, initialised)
            .await
            .map_err(|_| Ending::NotInitialised)?;
        let dictionary = &self.context.session.dictionary;
        self.encoder = Encoder::with_dictionary(dictionary, init.dictionary, init.window)
            .with_cache(self.cache_pixels(init));
        self.send(Message::new(id::INVAL_ALL_PALETTES)).await?;

        loop {
            if viewer.take_layout_change() {
                self.follow_layout().await?;
            }
            let (room, patience) = {
                let client = shared.client.lock();
                (client.flight.room(Instant::now()), client.patience())
            };
            let (Some(_), Some(room)) = (&self.screen, room) else {
                viewer.wake.notified().await;
                continue;
            };
            let film = match self.next_film() {
                Act::Wait(until) => until,
                act => {
                    self.follow_film(act).await?;
                    continue;
                }
            };
            let haste = patience.is_some_and(|bytes| viewer.exact_bytes() > bytes);
            let room = if haste { room.max(HASTY_ROOM) } else { room };
            let wait = match viewer.take_damage(room, haste) {
                Next::Copy(copy) => {
                    self.send(draw::copy_bits(copy)).await?;
                    continue;
                }
                Next::Piece(area) => {
                    let how = if haste { How::Hastily } else { How::Exactly };
                    self.send_piece(area, room, how).await?;
                    continue;
                }
                Next::Refinement(area) => {
                    self.send_piece(area, room, How::Exactly).await?;
                    continue;
                }
                Next::At(time) => Some(film.map_or(time, |film| film.min(time))),
                Next::Nothing => {
                    shared.client.lock().flight.idle();
                    film
                }
            };
            // Cut short by whatever else happens.
            match wait {
                Some(time) => {
                    let _ = timeout_at(time, viewer.wake.notified()).await;
                }
                None => viewer.wake.notified().await,
            }
        }
    }

    /// Pixels of images that the client keeps for this display. Some count their room in pixels and some in bytes.
    fn cache_pixels(&self, init: Init) -> usize {
        // The browser console is the one client that has no monitors. It draws whole images only.
        let draws_parts = self.context.capabilities.has(id::CAP_MONITORS_CONFIG);
        let displays = self.context.server.devices().displays.len().max(1);
        if draws_parts {
            init.cache / 4 / displays
        } else {
            0
        }
    }

    /// Sends a message that counts for the window.
    async fn send(&mut self, message: Message) -> Result<(), Ending> {
        let now = Instant::now();
        self.shared.client.lock().flight.sent(message.len(), now);
        self.writer.send(message).await
    }

    /// Makes the client's surface and monitors those of the source.
    async fn follow_layout(&mut self) -> Result<(), Ending> {
        let layout = self.shared.view.source().layout();
        let now = screen_of(&layout);
        let before = std::mem::replace(&mut self.screen, now.clone());
        let anew = match (&before, &now) {
            (Some(before), Some(now)) => {
                before.generation != now.generation || before.size != now.size
            }
            (None, None) => false,
            _ => true,
        };
        if anew && before.is_some() {
            // Clients remember the surface of a stream.
            self.end_films().await?;
            self.send(draw::destroy_primary()).await?;
        }
        let Some(now) = now else { return Ok(()) };
        if anew {
            self.send(draw::create_primary(now.size)).await?;
            self.send_whole(now.size).await?;
        }
        let heads_changed = before.is_none_or(|before| before.heads != now.heads);
        if (anew || heads_changed) && self.context.capabilities.has(id::CAP_MONITORS_CONFIG) {
            self.send(draw::monitors(&now.heads, layout.max_heads))
                .await?;
        }
        if anew {
            self.send(Message::new(id::MARK)).await?;
        }
        Ok(())
    }

    /// Sends the whole new surface: the first as one image, where that makes a message of bearable size. Any other
    /// is black, and what is on it is damage: a guest that has just set a mode is about to draw all of it.
    async fn send_whole(&mut self, size: Size) -> Result<(), Ending> {
        let view = &self.shared.view;
        let whole = Rect::of_size(size);
        // What is drawn from here on is damage again.
        view.viewer.restart(size);
        let drawn = view.source().drawn().intersection(whole);
        let is_first = !std::mem::replace(&mut self.has_drawn, true);
        if is_first && !drawn.is_empty() && whole.pixels() <= WHOLE_PIXELS {
            return self.send_drawings(whole, MAX_IMAGE_BYTES, How::AsOne).await;
        }
        // While all of it counts as being read, so that what is copied meanwhile is damage, too.
        view.viewer.add_damage(drawn);
        let fill = draw::fill(whole, BLACK);
        view.viewer.filled(whole, fill.len());
        self.send(fill).await
    }

    /// Sends the pixels of `area` as they are now, unless they take far more than `budget` bytes and
    /// could be cut: then the damage knows how to cut them.
    async fn send_piece(&mut self, area: Rect, budget: usize, how: How) -> Result<(), Ending> {
        let limit = match area.height() {
            ..=1 => usize::MAX,
            _ => budget * OVERSHOOT,
        };
        self.send_drawings(area, limit, how).await?;
        // Other clients' turn, and input's.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Sends the pixels of `area` as they are now; what makes more than `limit` bytes of them is damage again.
    async fn send_drawings(&mut self, area: Rect, limit: usize, how: How) -> Result<(), Ending> {
        let Some(drawings) = self.encode(area, limit, how).await? else {
            return Ok(());
        };
        let viewer = &self.shared.view.viewer;
        if let Some(refused) = drawings.refused {
            viewer.refuse_damage(refused.area, refused.message.len(), refused.is_exact);
        }
        for left in drawings.left {
            viewer.put_damage_back(left);
        }
        for drawing in drawings.accepted {
            viewer.sent_damage(drawing.area, drawing.message.len(), drawing.is_exact);
            if let Some(before) = drawing.before {
                self.send(before).await?;
            }
            self.send(drawing.message).await?;
        }
        Ok(())
    }

    /// What draws the pixels of `area` as they are now in at most `limit` bytes; `None` if they are gone.
    async fn encode(
        &mut self,
        area: Rect,
        limit: usize,
        how: How,
    ) -> Result<Option<Drawings>, Ending> {
        let Some(screen) = &self.screen else {
            return Ok(None);
        };
        let piece = Piece {
            source: Arc::clone(self.shared.view.source()),
            generation: screen.generation,
            area,
            codec: self.shared.client.lock().codec,
            how,
            limit,
            image: self.context.session.take_images(Piece::IMAGES),
        };
        let mut encoder = std::mem::take(&mut self.encoder);
        let encode = move || (piece.encode(&mut encoder), encoder);
        let drawings;
        (drawings, self.encoder) = pool::run(area.pixels(), encode).await?;
        if drawings.is_none() {
            // The surface was made anew, or went: its source knows by now.
            self.shared.view.viewer.recheck_layout();
        }
        Ok(drawings)
    }
}

/// The surface that a layout describes; `None` if there is none, or one without pixels.
fn screen_of(layout: &Layout) -> Option<Screen> {
    let size = layout
        .primary
        .filter(|size| size.width > 0 && size.height > 0)?;
    let heads = if layout.heads.is_empty() {
        vec![Head {
            id: 0,
            area: Rect::of_size(size),
        }]
    } else {
        layout.heads.clone()
    };
    Some(Screen {
        generation: layout.generation,
        size,
        heads,
    })
}
