//! Films, as clients that others wrote see them.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use caraway_tests::cinema::{Cinema, FILM};
use caraway_tests::client::{GlibWatch, Ryll, Wishes};
use caraway_tests::wait::wait_for;

#[test]
fn spice_gtk_and_ryll_see_a_film_as_one_stream_and_its_end_exactly() {
    let cinema = Cinema::open();
    let mut ryll = Ryll::connect(cinema.address());
    let mut gtk = GlibWatch::start(cinema.address(), 0);
    let count = |gtk: &GlibWatch, what: &str| gtk.log().matches(what).count();
    wait_for("pictures of a stream", || {
        (count(&gtk, "video margin") > 10).then_some(())
    });
    thread::sleep(Duration::from_secs(2));
    cinema.stop();

    let (_, picture) = gtk.finish();

    assert_eq!(count(&gtk, "display_handle_stream_create"), 1);
    cinema.picture().assert_same(&picture, "spice-gtk");
    wait_for("the end of the film in ryll", || {
        let difference = cinema.picture().difference(&ryll.screenshot());
        difference.is_none().then_some(())
    });
    assert_eq!(ryll.gaps(), Vec::<PathBuf>::new(), "{}", ryll.log());
    assert!(ryll.log().contains("stream_create"), "{}", ryll.log());
}

#[test]
fn spice_gtk_decodes_a_film_in_mjpeg() {
    // The GLib library has a decoder of its own.
    spice_gtk_decodes_a_film_in(1, &[]);
}

#[cfg(feature = "vp8")]
#[test]
fn spice_gtk_decodes_a_film_in_vp8() {
    spice_gtk_decodes_a_film_in(2, &["vp8dec", "avdec_vp8"]);
}

#[cfg(feature = "h264")]
#[test]
fn spice_gtk_decodes_a_film_in_h264() {
    spice_gtk_decodes_a_film_in(3, &["avdec_h264", "openh264dec"]);
}

/// In the codec that it asks for by its number, with one of these elements of GStreamer, or without any.
fn spice_gtk_decodes_a_film_in(codec: u8, decoders: &[&str]) {
    let cinema = Cinema::open();
    let wishes = Wishes {
        codec: Some(codec),
        ..Wishes::default()
    };
    let mut gtk = GlibWatch::start_with(cinema.address(), 0, wishes);
    let count = |gtk: &GlibWatch, what: &str| gtk.log().matches(what).count();
    wait_for("pictures of a stream", || {
        (count(&gtk, "video margin") > 30).then_some(())
    });
    // While a stream plays nothing else is sent of its film.
    let before = gtk.snapshot();
    wait_for("pictures like those of the film", || {
        let shown = gtk.snapshot();
        let is_like_it = Cinema::percent_wrong(&shown.part(FILM)) == 0;
        (shown != before && is_like_it).then_some(())
    });
    cinema.stop();

    let (_, picture) = gtk.finish();

    let log = gtk.log();
    assert_eq!(count(&gtk, "display_handle_stream_create"), 1, "{log}");
    let made = |element: &str| log.contains(&format!("pipeline ({element})"));
    assert_eq!(made("appsrc"), !decoders.is_empty(), "{log}");
    let decodes = decoders.iter().any(|decoder| made(decoder));
    assert_eq!(decodes, !decoders.is_empty(), "{log}");
    cinema.picture().assert_same(&picture, "spice-gtk");
}
