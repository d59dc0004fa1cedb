//! Films: what moves on a display, sent as a video stream instead of exact pixels.
//!
//! Where films are, [`motion`] finds from the history of changes, once for all clients of a display.
//! Whether a film is worth a stream differs from client to client, and so do its rate and its quality:
//! [`streams`] decides it by what the film's pixels cost this client so far and by what a picture of it
//! costs as JPEG; [`pace`] steers, by what the link carries and by what the client reports. Its form is one of
//! the [`codec`]s that both sides have; [`encoder`] makes the pictures of those that refer to pictures before.
//!
//! A stream lives as long as its film is known. While the film pauses its pixels are sent exactly, like
//! everything else on the display, and the stream is told to show nothing, so that a picture which the
//! client shows late does no harm. When the film goes on, so does the stream, with a picture that refers
//! to none before it. The browser console takes VP8, but shows a video above all else for as long as there is
//! one: such a client is told that the stream ends, and then that one of the same number begins.

pub(crate) mod codec;
pub(crate) mod encoder;
pub(crate) mod motion;
pub(crate) mod pace;
pub(crate) mod streams;
