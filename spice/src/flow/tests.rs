use super::*;

/// A link in virtual time: a wire that a message keeps busy for its length, and a delay.
struct Wire {
    /// Bytes a second.
    rate: f64,
    round_trip: Duration,
    now: Instant,
    free_at: Instant,
    acknowledgements: VecDeque<Instant>,
    sent: usize,
}

impl Wire {
    fn new(megabits: f64, round_trip_ms: u64) -> Self {
        let now = Instant::now();
        Self {
            rate: megabits * 125_000.0,
            round_trip: Duration::from_millis(round_trip_ms),
            now,
            free_at: now,
            acknowledgements: VecDeque::new(),
            sent: 0,
        }
    }

    fn put(&mut self, flight: &mut Flight, bytes: usize) {
        flight.sent(bytes, self.now);
        let time = Duration::from_secs_f64(bytes as f64 / self.rate);
        self.free_at = self.free_at.max(self.now) + time;
        self.acknowledgements
            .push_back(self.free_at + self.round_trip);
        self.sent += bytes;
    }

    /// How long a byte that is sent now waits for those before it.
    fn queue(&self) -> Duration {
        self.free_at.saturating_duration_since(self.now)
    }

    /// Sends as much as may be sent for this long, with pieces as long as they may be. The bytes
    /// that were sent, and the longest queue.
    fn busy(&mut self, flight: &mut Flight, time: Duration) -> (usize, Duration) {
        let (end, before, mut queue) = (self.now + time, self.sent, Duration::ZERO);
        while self.now < end {
            while let Some(piece) = flight.room(self.now) {
                self.put(flight, piece);
                queue = queue.max(self.queue());
            }
            self.now = self.acknowledgements.pop_front().expect("some are due");
            flight.acknowledged(self.now);
        }
        (self.sent - before, queue)
    }

    /// Waits for all acknowledgements.
    fn drain(&mut self, flight: &mut Flight) {
        while let Some(at) = self.acknowledgements.pop_front() {
            self.now = at;
            flight.acknowledged(at);
        }
        flight.idle();
    }
}

fn flight(now: Instant) -> Flight {
    let mut flight = Flight::new(now);
    flight.sync(Flight::GENERATION);
    flight
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn any_link_is_kept_busy_with_a_short_queue() {
    for megabits in [0.5, 2.0, 10.0, 50.0, 200.0] {
        for round_trip_ms in [1, 10, 80, 150] {
            let mut wire = Wire::new(megabits, round_trip_ms);
            let mut flight = flight(wire.now);
            wire.busy(&mut flight, SECOND * 5);

            let (sent, queue) = wire.busy(&mut flight, SECOND * 30);

            let used = sent as f64 / (wire.rate * 30.0);
            assert!(used > 0.9, "{megabits} Mbit/s, {round_trip_ms} ms: {used}");
            // The smallest window and the first pieces take longer at 0.5 Mbit/s.
            let shortest =
                Duration::from_secs_f64((MIN_WINDOW + 2 * INITIAL_PIECE) as f64 / wire.rate);
            // When the round trip was measured anew, half of the window goes out at once.
            let half = Duration::from_millis(round_trip_ms / 2);
            let bound = (SLACK + PIECE * 3 + half).max(shortest);
            assert!(
                queue <= bound,
                "{megabits} Mbit/s, {round_trip_ms} ms: {queue:?}"
            );
        }
    }
}

#[test]
fn a_link_that_becomes_slower_has_a_short_queue_again_in_seconds() {
    let mut wire = Wire::new(50.0, 80);
    let mut flight = flight(wire.now);
    wire.busy(&mut flight, SECOND * 5);
    wire.rate /= 10.0;
    wire.busy(&mut flight, SECOND * 5);

    let (_, queue) = wire.busy(&mut flight, SECOND * 5);

    assert!(queue < Duration::from_millis(100), "{queue:?}");
}

#[test]
fn a_link_that_becomes_faster_is_used_in_seconds() {
    let mut wire = Wire::new(5.0, 80);
    let mut flight = flight(wire.now);
    wire.busy(&mut flight, SECOND * 5);
    wire.rate *= 10.0;
    wire.busy(&mut flight, SECOND * 5);

    let (sent, _) = wire.busy(&mut flight, SECOND * 5);

    assert!(sent as f64 / (wire.rate * 5.0) > 0.9);
}

#[test]
fn a_longer_way_is_noticed() {
    let mut wire = Wire::new(10.0, 20);
    let mut flight = flight(wire.now);
    wire.busy(&mut flight, SECOND * 5);
    wire.round_trip = Duration::from_millis(150);
    wire.busy(&mut flight, SECOND * 15);

    let (sent, _) = wire.busy(&mut flight, SECOND * 5);

    assert!(sent as f64 / (wire.rate * 5.0) > 0.9);
}

#[test]
fn a_pause_of_tcp_is_no_longer_way() {
    let mut wire = Wire::new(10.0, 80);
    let mut flight = flight(wire.now);
    wire.busy(&mut flight, SECOND * 9);
    let before = flight.window(wire.now);
    for _ in 0..5 {
        // The worst moment: the round trip is about to be measured.
        while !flight.round_trip.is_stale(wire.now) {
            wire.busy(&mut flight, Duration::from_millis(1));
        }
        wire.rate /= 10.0;
        wire.busy(&mut flight, Duration::from_millis(280));
        wire.rate *= 10.0;
        wire.busy(&mut flight, SECOND);

        let (_, queue) = wire.busy(&mut flight, SECOND);

        assert!(queue <= Duration::from_millis(100), "{queue:?}");
        assert!(flight.window(wire.now) <= before * 11 / 10);
    }
}

#[test]
fn a_few_small_messages_do_not_make_a_fast_link_look_slow() {
    let mut wire = Wire::new(10.0, 80);
    let mut flight = flight(wire.now);
    wire.busy(&mut flight, SECOND * 5);
    wire.drain(&mut flight);
    let before = flight.window(wire.now);
    for _ in 0..100 {
        wire.put(&mut flight, 100);
        flight.idle();
        wire.now += Duration::from_millis(20);
        wire.drain(&mut flight);
    }

    // They show a shorter round trip than large ones, by the time that those take on the wire.
    assert!(flight.window(wire.now) * 10 >= before * 9);
}

#[test]
fn a_client_that_does_not_read_gets_a_bounded_number_of_bytes() {
    let now = Instant::now();
    let mut flight = flight(now);
    let mut sent = 0;
    while flight.room(now).is_some() {
        flight.sent(1000, now);
        sent += 1000;
    }
    assert!(sent <= INITIAL + 1000);
    flight.acknowledged(now);
    assert!(flight.room(now).is_some());
}

#[test]
fn a_window_is_bounded_whatever_is_measured() {
    let mut wire = Wire::new(100_000.0, 150);
    let mut flight = flight(wire.now);
    wire.busy(&mut flight, SECOND * 5);
    assert!(flight.window(wire.now) <= MAX_WINDOW);

    let mut now = wire.now;
    let mut flight = Flight::new(now);
    flight.sync(Flight::GENERATION);
    for _ in 0..100 {
        flight.sent(10, now);
        now += SECOND * 20;
        flight.acknowledged(now);
    }
    assert!(flight.window(now) >= MIN_WINDOW);
}

#[test]
fn acknowledgements_of_nothing_are_harmless() {
    let now = Instant::now();
    let mut flight = flight(now);
    flight.acknowledged(now);
    flight.sent(10, now);
    flight.acknowledged(now);
    flight.acknowledged(now);
    assert_eq!((flight.bytes, flight.messages.len()), (0, 0));
}

#[test]
fn a_client_that_never_agreed_is_not_counted() {
    let now = Instant::now();
    let mut flight = Flight::new(now);
    flight.sync(Flight::GENERATION + 1);
    for _ in 0..5000 {
        flight.sent(1 << 20, now);
    }
    assert!(flight.room(now).is_some());
    assert!(flight.messages.len() <= MAX_MESSAGES);
}
