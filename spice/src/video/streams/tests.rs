use super::*;

/// A client for which a pixel costs so much, and that lacks something everywhere or nowhere.
struct Known(f64, bool);

impl Knowledge for Known {
    fn density(&self, _: Rect) -> f64 {
        self.0
    }
    fn is_damaged(&self, _: Rect) -> bool {
        self.1
    }
}

const NOISY: Known = Known(2.0, true);
const AREA: Rect = Rect {
    left: 0,
    top: 0,
    right: 640,
    bottom: 360,
};

fn film(id: u32, now: Instant) -> Film {
    Film {
        id,
        area: AREA,
        moving: true,
        changed: now,
        rate: 30.0,
        churn: 30.0 * AREA.pixels() as f64,
    }
}

/// What a client says that can't decode a stream.
const REFUSAL: Report = Report {
    frames: 0,
    drops: u32::MAX,
    early_ms: 0,
};

const SCREEN: geometry::Size = geometry::Size {
    width: 1000,
    height: 700,
};

/// Of a client that decodes MJPEG.
fn streams(sized: bool) -> Streams {
    streams_in(&[VideoCodec::Mjpeg], sized)
}

fn streams_in(codecs: &[VideoCodec], sized: bool) -> Streams {
    Streams::new(Ability {
        codecs: Codecs(codecs.to_vec()),
        sized,
        reports: true,
        hides: true,
    })
}

fn costs(exact: f64, stream: f64, is_gradual: bool) -> Costs {
    Costs {
        exact,
        stream,
        link: Some(100.0),
        is_gradual,
    }
}

/// Streams of which the first film is one.
fn streaming(film: Film, now: Instant) -> Streams {
    let mut streams = streams(true);
    assert!(
        streams
            .judge(film, SCREEN, costs(50.0, 10.0, true), now)
            .is_some()
    );
    streams
}

#[test]
fn a_film_becomes_a_stream_where_that_is_well_cheaper() {
    let cases = [
        (costs(50.0, 24.0, true), true),
        (costs(50.0, 26.0, true), false),
        // More than the link carries.
        (costs(150.0, 95.0, true), true),
        // Text and noise never are, however much they cost.
        (costs(60.0, 1.0, false), false),
        (costs(400.0, 60.0, false), false),
    ];
    for (costs, expected) in cases {
        let now = Instant::now();
        let judged = streams(true)
            .judge(film(1, now), SCREEN, costs, now)
            .is_some();
        assert_eq!(judged, expected, "{costs:?}");
    }
}

#[test]
fn a_film_that_costs_little_is_not_even_tried() {
    let now = Instant::now();
    let act = streams(true).next(&[film(1, now)], now, &Known(0.01, true));
    assert_eq!(act, Act::Wait(None));
}

#[test]
fn a_film_that_was_refused_is_tried_again_later_and_later() {
    let mut now = Instant::now();
    let mut streams = streams(true);
    for wait in [500, 1000, 2000, 4000, 8000, 8000] {
        let film = film(1, now);
        assert_eq!(streams.next(&[film], now, &NOISY), Act::Try(film));
        streams.judge(film, SCREEN, costs(1.0, 1.0, true), now);
        let again = now + Duration::from_millis(wait);
        let before = again - Duration::from_millis(1);
        assert_eq!(streams.next(&[film], before, &NOISY), Act::Wait(None));
        now = again;
    }
}

#[test]
fn a_stream_shows_what_is_new_when_it_is_due() {
    let now = Instant::now();
    let film = film(1, now);
    let mut streams = streaming(film, now);
    let show = Act::Show { stream: 0 };
    assert_eq!(streams.next(&[film], now, &NOISY), show);

    streams.encoded(0, 1000, Some(1e9), now);

    let due = now + Duration::from_millis(30);
    assert_eq!(streams.next(&[film], now, &NOISY), Act::Wait(Some(due)));
    assert_eq!(streams.next(&[film], due, &NOISY), show);
    let nothing_new = streams.next(&[film], due, &Known(2.0, false));
    assert_eq!(nothing_new, Act::Wait(Some(film.still_at())));
}

#[test]
fn a_stream_pauses_and_goes_on_with_its_film_and_ends_with_it() {
    let now = Instant::now();
    let film = film(1, now);
    let paused = Film {
        moving: false,
        ..film
    };
    let mut streams = streaming(film, now);

    assert_eq!(
        streams.next(&[paused], now, &NOISY),
        Act::Pause { stream: 0 }
    );
    streams.set_playing(0, false);
    assert_eq!(streams.next(&[paused], now, &NOISY), Act::Wait(None));
    assert_eq!(streams.playing(), []);
    assert_eq!(
        streams.next(&[film], now, &NOISY),
        Act::Resume { stream: 0 }
    );
    streams.set_playing(0, true);
    assert_eq!(streams.playing(), [AREA]);
    assert_eq!(streams.next(&[], now, &NOISY), Act::End { stream: 0 });
    streams.end(0, now);
    assert_eq!(streams.next(&[], now, &NOISY), Act::Wait(None));
}

#[test]
fn a_film_with_new_borders_is_the_same_stream_for_clients_that_understand_it() {
    let now = Instant::now();
    for (sized, act) in [
        (true, Act::Show { stream: 0 }),
        (false, Act::End { stream: 0 }),
    ] {
        let mut streams = streams(sized);
        streams.judge(film(1, now), SCREEN, costs(50.0, 10.0, true), now);
        let grown = Film {
            area: Rect { right: 700, ..AREA },
            ..film(1, now)
        };
        assert_eq!(streams.next(&[grown], now, &NOISY), act);
    }
}

#[test]
fn a_stream_in_whose_place_text_moves_ends() {
    let mut now = Instant::now();
    let film = film(1, now);
    let mut streams = streaming(film, now);
    for _ in 0..DOUBTS {
        now += LOOK_AGAIN;
        streams.look(0, now, || false);
    }
    assert_eq!(streams.next(&[film], now, &NOISY), Act::End { stream: 0 });
    streams.end(0, now);
    assert_eq!(streams.next(&[film], now, &NOISY), Act::Wait(None));
}

#[test]
fn a_client_that_cannot_decode_gets_no_streams_any_more() {
    let now = Instant::now();
    let film = film(1, now);
    let mut streams = streaming(film, now);

    // As often as it likes before anyone ends the stream.
    for _ in 0..100 {
        streams.reported(0, 0, REFUSAL);
    }

    assert_eq!(streams.spoiled, [0]);
    assert_eq!(streams.next(&[film], now, &NOISY), Act::End { stream: 0 });
    streams.end(0, now);
    assert_eq!(streams.next(&[film], now, &NOISY), Act::Wait(None));
}

#[test]
fn a_refused_codec_gives_way_to_the_next_and_refusals_of_its_pictures_are_nobodys() {
    let now = Instant::now();
    let film = film(1, now);
    let mut streams = streams_in(
        &[VideoCodec::H264, VideoCodec::Vp8, VideoCodec::Mjpeg],
        true,
    );
    let mut seen = Vec::new();

    while let Act::Try(film) = streams.next(&[film], now, &NOISY) {
        let begun = streams.judge(film, SCREEN, costs(50.0, 10.0, true), now);
        let (id, codec) = begun.map(|stream| (stream.id, stream.codec)).unwrap();
        seen.push((id, codec));
        streams.reported(id, 0, REFUSAL);
        assert_eq!(streams.next(&[film], now, &NOISY), Act::End { stream: id });
        streams.end(id, now);
        streams.reported(id, 0, REFUSAL);
    }

    let expected = [VideoCodec::H264, VideoCodec::Vp8, VideoCodec::Mjpeg];
    assert_eq!(
        seen,
        [0, 1, 2].into_iter().zip(expected).collect::<Vec<_>>()
    );
}

#[test]
fn a_wish_for_another_codec_begins_the_stream_anew() {
    let now = Instant::now();
    let film = film(1, now);
    let mut streams = streams_in(&[VideoCodec::H264, VideoCodec::Mjpeg], true);
    streams.judge(film, SCREEN, costs(50.0, 10.0, true), now);

    streams.prefer(&[3]);
    assert_eq!(streams.next(&[film], now, &NOISY), Act::Show { stream: 0 });
    // Not again and again: a stream that has just begun goes on for a while.
    streams.prefer(&[1]);
    assert_eq!(streams.next(&[film], now, &NOISY), Act::Show { stream: 0 });
    let now = now + LEAST_LIFE;
    assert_eq!(streams.next(&[film], now, &NOISY), Act::End { stream: 0 });
    streams.end(0, now);
    assert_eq!(streams.next(&[film], now, &NOISY), Act::Try(film));
    let begun = streams.judge(film, SCREEN, costs(50.0, 10.0, true), now);
    assert_eq!(begun.map(|stream| stream.codec), Some(VideoCodec::Mjpeg));
}

#[test]
fn only_mjpeg_streams_follow_their_film_and_others_have_even_sides() {
    let now = Instant::now();
    let odd = Rect {
        left: 660,
        top: 100,
        right: 1000,
        bottom: 299,
    };
    let film = Film {
        area: odd,
        ..film(1, now)
    };
    let grown = Film {
        area: Rect { top: 90, ..odd },
        ..film
    };
    let even = Rect { bottom: 300, ..odd };
    for (codec, area, act) in [
        (VideoCodec::Mjpeg, odd, Act::Show { stream: 0 }),
        (VideoCodec::Vp8, even, Act::End { stream: 0 }),
        (VideoCodec::H264, even, Act::End { stream: 0 }),
    ] {
        let mut streams = streams_in(&[codec], true);
        streams.judge(film, SCREEN, costs(50.0, 10.0, true), now);
        assert_eq!(streams.playing(), [area]);
        assert_eq!(streams.next(&[grown], now, &NOISY), act);
    }
}

#[test]
fn a_client_that_hides_only_mjpeg_knows_of_no_other_stream_whose_film_pauses() {
    let now = Instant::now();
    for (codec, hides, expected) in [
        (VideoCodec::Mjpeg, false, true),
        (VideoCodec::Vp8, true, true),
        (VideoCodec::Vp8, false, false),
    ] {
        let mut streams = streams_in(&[codec], true);
        streams.ability.hides = hides;
        streams.judge(film(1, now), SCREEN, costs(50.0, 10.0, true), now);
        assert!(streams.get(0).is_some_and(Stream::is_open));
        streams.set_playing(0, false);
        assert_eq!(streams.get(0).map(Stream::is_open), Some(expected));
    }
}

#[test]
fn streams_take_the_smallest_number_that_is_free() {
    let now = Instant::now();
    let mut streams = streams(true);
    for id in 1..=3 {
        streams.judge(film(id, now), SCREEN, costs(50.0, 10.0, true), now);
    }
    streams.end(1, now);
    let next = streams.judge(film(4, now), SCREEN, costs(50.0, 10.0, true), now);
    assert_eq!(next.map(|stream| stream.id), Some(1));
    assert_eq!(streams.end_all().len(), 3);
}
