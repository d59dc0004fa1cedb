//! The inputs channel: keys and pointer.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Context, Endless, ignore, notice, scancode};
use crate::agent::Agent;
use crate::input::{Buttons, InputSink, Key, Locks, PointerEvent};
use crate::protocol::inputs as id;
use crate::transport::Security;
use crate::wire::{Message, MessageReader, MessageWriter, Reader, Truncated};

/// The pixels that one motion may cover; more is a client's mistake.
const MAX_MOTION: i32 = 32_767;
/// How long a guest may take to answer a lock key by its lamp.
const LAMP_TIME: Duration = Duration::from_secs(2);

/// Where all clients' input comes together: a button is pressed while any client presses it.
pub(crate) struct Desk {
    sink: Arc<dyn InputSink>,
    agent: Option<Arc<Agent>>,
    hands: Mutex<Hands>,
}

#[derive(Default)]
struct Hands {
    /// The pointer is the agent's to move.
    by_agent: bool,
    next: u64,
    buttons: BTreeMap<u64, Buttons>,
}

impl Hands {
    fn all(&self) -> Buttons {
        self.buttons
            .values()
            .fold(Buttons::default(), |a, b| Buttons {
                left: a.left | b.left,
                middle: a.middle | b.middle,
                right: a.right | b.right,
                side: a.side | b.side,
                extra: a.extra | b.extra,
            })
    }
}

impl Desk {
    pub(crate) fn new(sink: Arc<dyn InputSink>, agent: Option<Arc<Agent>>) -> Self {
        Self {
            sink,
            agent,
            hands: Mutex::default(),
        }
    }

    /// Whether clients may say where the pointer is, instead of how it moves.
    pub(crate) fn absolute(&self) -> bool {
        self.sink.absolute() || self.agent().is_some()
    }

    /// The agent, if it moves the guest's pointer.
    fn agent(&self) -> Option<&Agent> {
        self.agent.as_deref().filter(|agent| agent.has_pointer())
    }

    /// Moves the pointer, or what it does where it is, by the device that the guest listens to: an
    /// absolute one first, then the agent, which is a further step for the guest.
    fn point(&self, event: PointerEvent) {
        let agent = self.agent();
        let mut hands = self.hands.lock();
        match event {
            PointerEvent::Position { .. } => {
                hands.by_agent = !self.sink.absolute() && agent.is_some();
                if !hands.by_agent && !self.sink.absolute() {
                    return;
                }
            }
            PointerEvent::Motion { .. } => hands.by_agent = false,
            PointerEvent::Buttons(_) | PointerEvent::Wheel(_) => {}
        }
        let by_agent = hands.by_agent;
        drop(hands);
        match agent.filter(|_| by_agent) {
            Some(agent) => agent.point(event),
            None => self.sink.pointer(event),
        }
    }

    fn hand(&self) -> Hand<'_> {
        let mut hands = self.hands.lock();
        hands.next += 1;
        Hand {
            desk: self,
            number: hands.next,
            keys: HashSet::new(),
            expected: None,
        }
    }
}

/// One client's hand on the desk. Lets go of everything when dropped.
struct Hand<'a> {
    desk: &'a Desk,
    number: u64,
    keys: HashSet<Key>,
    /// The lamps as they will be once the guest has handled the lock keys sent to it.
    expected: Option<(Locks, Instant)>,
}

impl Hand<'_> {
    fn key(&mut self, key: Key, down: bool) {
        if down {
            self.keys.insert(key);
        } else {
            self.keys.remove(&key);
        }
        self.desk.sink.key(key, down);
    }

    fn buttons(&self, buttons: Buttons) {
        let mut hands = self.desk.hands.lock();
        let before = hands.all();
        hands.buttons.insert(self.number, buttons);
        let after = hands.all();
        drop(hands);
        if before != after {
            self.desk.point(PointerEvent::Buttons(after));
        }
    }

    /// Presses the lock keys whose lamps are not as the client has them. A guest takes a moment to
    /// switch a lamp; until then what was pressed counts, lest the next message undoes it.
    ///
    /// ryll asks for num lock as soon as it is connected, viewers when their window gets the focus:
    /// a guest without lamps sees a lock key then that nobody pressed.
    fn sync_locks(&mut self, wanted: Locks) {
        let lamps = self.desk.sink.locks();
        let believed = match self.expected {
            Some((expected, since)) if expected != lamps && since.elapsed() < LAMP_TIME => expected,
            _ => lamps,
        };
        let mut pressed = false;
        for (code, wanted, believed) in [
            (0x46, wanted.scroll, believed.scroll),
            (0x45, wanted.num, believed.num),
            (0x3a, wanted.caps, believed.caps),
        ] {
            let key = Key {
                code,
                extended: false,
            };
            // A lock key that is held down is on its way to the guest already.
            if wanted != believed && !self.keys.contains(&key) {
                self.key(key, true);
                self.key(key, false);
                pressed = true;
            }
        }
        if pressed {
            self.expected = Some((wanted, Instant::now()));
        }
    }
}

impl Drop for Hand<'_> {
    fn drop(&mut self) {
        for key in self.keys.drain() {
            self.desk.sink.key(key, false);
        }
        self.buttons(Buttons::default());
        self.desk.hands.lock().buttons.remove(&self.number);
    }
}

#[derive(Default)]
struct Shared {
    wake: Notify,
    motions: Mutex<u32>,
}

pub(super) async fn serve(
    context: &Context,
    reader: &mut MessageReader,
    writer: &mut MessageWriter,
) -> Endless {
    let shared = Shared::default();
    tokio::select! {
        end = read(context, &shared, reader) => end,
        end = write(context, &shared, writer) => end,
    }
}

async fn read(context: &Context, shared: &Shared, reader: &mut MessageReader) -> Endless {
    // Whoever may only look has no hand; motions are acknowledged all the same, or the client would
    // wait.
    let input = context.session.permissions().input;
    let mut hand = input.then(|| context.server.devices().desk.hand());
    loop {
        let (kind, body) = reader.next().await?;
        match kind {
            id::C_MOUSE_MOTION | id::C_MOUSE_POSITION => {
                let mut motions = shared.motions.lock();
                *motions = motions.saturating_add(1);
                if *motions >= id::MOTION_ACK_BUNCH {
                    shared.wake.notify_one();
                }
            }
            _ => {}
        }
        let handled = match &mut hand {
            Some(hand) => handle(hand, kind, body).map_err(context.malformed(kind))?,
            None => false,
        };
        if !handled {
            ignore(kind)?;
        }
    }
}

/// Does what a message says. `false` if it is not about input.
fn handle(hand: &mut Hand<'_>, kind: u16, body: &[u8]) -> Result<bool, Truncated> {
    let mut fields = Reader(body);
    match kind {
        id::C_KEY_DOWN => {
            for (key, down) in scancode::keys(fields.bytes(4)?) {
                hand.key(key, down);
            }
        }
        id::C_KEY_UP => {
            // Whether or not the client marks the bytes as those of a key that goes up.
            for (key, _) in scancode::keys(fields.bytes(4)?) {
                hand.key(key, false);
            }
        }
        id::C_KEY_SCANCODE => {
            for (key, down) in scancode::keys(body) {
                hand.key(key, down);
            }
        }
        id::C_KEY_MODIFIERS => hand.sync_locks(locks_of(fields.u16()?)),
        id::C_MOUSE_MOTION => {
            let clamp = |distance: i32| distance.clamp(-MAX_MOTION, MAX_MOTION);
            let (dx, dy) = (clamp(fields.i32()?), clamp(fields.i32()?));
            let buttons = buttons_of(fields.u16()?);
            if (dx, dy) != (0, 0) {
                hand.desk.point(PointerEvent::Motion { dx, dy });
            }
            hand.buttons(buttons);
        }
        id::C_MOUSE_POSITION => {
            let (x, y) = (fields.u32()?, fields.u32()?);
            let buttons = buttons_of(fields.u16()?);
            let display = fields.u8()?;
            hand.desk.point(PointerEvent::Position { x, y, display });
            hand.buttons(buttons);
        }
        id::C_MOUSE_PRESS => {
            let button = fields.u8()?;
            let state = buttons_of(fields.u16()?);
            match button {
                WHEEL_UP => hand.desk.point(PointerEvent::Wheel(1)),
                WHEEL_DOWN => hand.desk.point(PointerEvent::Wheel(-1)),
                _ => {}
            }
            hand.buttons(with(state, button, true));
        }
        id::C_MOUSE_RELEASE => {
            let button = fields.u8()?;
            let state = buttons_of(fields.u16()?);
            hand.buttons(with(state, button, false));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

const WHEEL_UP: u8 = 4;
const WHEEL_DOWN: u8 = 5;

/// `state` with the button of this number (`SPICE_MOUSE_BUTTON_*`) as it is now: some clients count
/// the button of a press or release in their state already, some do not.
fn with(mut state: Buttons, button: u8, pressed: bool) -> Buttons {
    match button {
        1 => state.left = pressed,
        2 => state.middle = pressed,
        3 => state.right = pressed,
        6 => state.side = pressed,
        7 => state.extra = pressed,
        _ => {}
    }
    state
}

/// From `SPICE_MOUSE_BUTTON_MASK_*`; the wheel's bits say nothing that a press did not.
fn buttons_of(mask: u16) -> Buttons {
    Buttons {
        left: mask & 1 != 0,
        middle: mask & 2 != 0,
        right: mask & 4 != 0,
        side: mask & 32 != 0,
        extra: mask & 64 != 0,
    }
}

/// From `SPICE_KEYBOARD_MODIFIER_FLAGS_*`.
fn locks_of(flags: u16) -> Locks {
    Locks {
        scroll: flags & 1 != 0,
        num: flags & 2 != 0,
        caps: flags & 4 != 0,
    }
}

fn flags_of(locks: Locks) -> u16 {
    u16::from(locks.scroll) | u16::from(locks.num) << 1 | u16::from(locks.caps) << 2
}

async fn write(context: &Context, shared: &Shared, writer: &mut MessageWriter) -> Endless {
    let sink = &context.server.devices().desk.sink;
    let mut lock_changes = context.server.lock_changes();
    let mut shown = flags_of(sink.locks());
    writer.send(Message::new(id::INIT).u16(shown)).await?;
    if is_exposed(context.channel.security, &context.session.peer) {
        let text = "what you type and point at travels unencrypted";
        writer.send(notice(context, text)).await?;
    }
    loop {
        tokio::select! {
            () = shared.wake.notified() => {}
            _ = lock_changes.changed() => {}
        }
        let now = flags_of(sink.locks());
        if now != shown {
            shown = now;
            writer
                .send(Message::new(id::KEY_MODIFIERS).u16(now))
                .await?;
        }
        while take_bunch(&mut shared.motions.lock()) {
            writer.send(Message::new(id::MOUSE_MOTION_ACK)).await?;
        }
    }
}

/// Whether others on the way can read what is typed. Nobody can on the host itself.
fn is_exposed(security: Security, peer: &str) -> bool {
    let address: Option<SocketAddr> = peer.parse().ok();
    let local = address.is_some_and(|address| address.ip().to_canonical().is_loopback());
    security == Security::Plain && !local
}

fn take_bunch(motions: &mut u32) -> bool {
    let Some(rest) = motions.checked_sub(id::MOTION_ACK_BUNCH) else {
        return false;
    };
    *motions = rest;
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Log {
        lines: Mutex<Vec<String>>,
        lamps: Mutex<Locks>,
    }

    impl Log {
        fn take(&self) -> Vec<String> {
            std::mem::take(&mut self.lines.lock())
        }
    }

    impl InputSink for Log {
        fn key(&self, key: Key, down: bool) {
            let sign = if down { '+' } else { '-' };
            let prefix = if key.extended { "e0 " } else { "" };
            self.lines
                .lock()
                .push(format!("{sign}{prefix}{:x}", key.code));
        }
        fn pointer(&self, event: PointerEvent) {
            self.lines.lock().push(format!("{event:?}"));
        }
        fn locks(&self) -> Locks {
            *self.lamps.lock()
        }
        fn absolute(&self) -> bool {
            true
        }
    }

    fn desk() -> (Arc<Log>, Desk) {
        let log = Arc::new(Log::default());
        (log.clone(), Desk::new(log, None))
    }

    const NUM: [u8; 2] = [2, 0];

    #[test]
    fn what_is_held_is_released_when_the_client_goes() {
        let (log, desk) = desk();
        let mut hand = desk.hand();
        handle(&mut hand, id::C_KEY_DOWN, &[0xe0, 0x1d, 0, 0]).expect("it is well formed");
        handle(&mut hand, id::C_MOUSE_PRESS, &[1, 0, 0]).expect("it is well formed");
        log.take();

        drop(hand);

        let released = log.take();
        assert_eq!(
            released,
            [
                "-e0 1d".to_owned(),
                format!("{:?}", PointerEvent::Buttons(Buttons::default()))
            ]
        );
    }

    #[test]
    fn a_key_up_without_its_mark_is_a_key_up() {
        let (log, desk) = desk();
        let mut hand = desk.hand();
        handle(&mut hand, id::C_KEY_UP, &[0x1e, 0, 0, 0]).expect("it is well formed");
        assert_eq!(log.take(), ["-1e"]);
    }

    #[test]
    fn a_lock_key_is_pressed_once_for_a_lamp_that_lags() {
        let (log, desk) = desk();
        let mut hand = desk.hand();
        handle(&mut hand, id::C_KEY_MODIFIERS, &NUM).expect("it is well formed");
        handle(&mut hand, id::C_KEY_MODIFIERS, &NUM).expect("it is well formed");
        assert_eq!(log.take(), ["+45", "-45"]);

        log.lamps.lock().num = true;
        handle(&mut hand, id::C_KEY_MODIFIERS, &NUM).expect("it is well formed");
        assert_eq!(log.take(), Vec::<String>::new());
    }

    #[test]
    fn a_button_is_up_once_nobody_holds_it() {
        let (log, desk) = desk();
        let (mut one, mut two) = (desk.hand(), desk.hand());
        handle(&mut one, id::C_MOUSE_PRESS, &[1, 1, 0]).expect("it is well formed");
        handle(&mut two, id::C_MOUSE_PRESS, &[1, 1, 0]).expect("it is well formed");
        handle(&mut one, id::C_MOUSE_RELEASE, &[1, 0, 0]).expect("it is well formed");
        assert_eq!(log.take().len(), 1);
        drop(two);
        assert_eq!(log.take().len(), 1);
    }

    #[test]
    fn wheel_and_motion_reach_the_sink() {
        let (log, desk) = desk();
        let mut hand = desk.hand();
        handle(&mut hand, id::C_MOUSE_PRESS, &[WHEEL_DOWN, 0, 0]).expect("it is well formed");
        let far = [0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0, 0];
        handle(&mut hand, id::C_MOUSE_MOTION, &far).expect("it is well formed");
        assert_eq!(log.take(), ["Wheel(-1)", "Motion { dx: 32767, dy: -1 }"]);
    }

    #[test]
    fn only_plain_text_that_leaves_the_host_is_worth_a_warning() {
        for (security, peer, exposed) in [
            (Security::Plain, "192.0.2.7:4000", true),
            (Security::Plain, "127.0.0.1:4000", false),
            (Security::Plain, "[::1]:4000", false),
            (Security::Plain, "[::ffff:127.0.0.1]:4000", false),
            (Security::Tls, "192.0.2.7:4000", false),
            (Security::Local, "unix:pid=1", false),
        ] {
            assert_eq!(is_exposed(security, peer), exposed, "{peer}");
        }
    }

    proptest! {
        #[test]
        fn any_message_is_handled_or_refused(
            messages in prop::collection::vec((95u16..120, prop::collection::vec(any::<u8>(), 0..20)), 0..20)
        ) {
            let (_, desk) = desk();
            let mut hand = desk.hand();
            for (kind, body) in messages {
                let _ = handle(&mut hand, kind, &body);
            }
        }
    }
}
