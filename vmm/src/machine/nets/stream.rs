//! Frames over a stream socket, as passt and QEMU's stream networks have them: each after its length, in
//! four bytes, the highest first.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use caraway_virtio::net::{Backend, Header, LONGEST, Offloads, gather, scatter};
use vm_memory::VolatileSlice;

/// Bytes of a frame's length.
const PREFIX: usize = 4;
/// What may be sent: passt has no room for a longer one, and drops what has no Ethernet header.
const SENDABLE: std::ops::RangeInclusive<usize> = 14..=65_535;
/// What is read at once: several frames, and one of any length at least.
const BUFFER: usize = 2 * (PREFIX + LONGEST);

/// The host's end of a card: a socket with somebody behind it.
pub struct Stream {
    socket: UnixStream,
    /// What was read and not given to the guest yet.
    incoming: Box<[u8]>,
    start: usize,
    end: usize,
    /// What the socket did not take of the last frame.
    unsent: Vec<u8>,
}

impl Stream {
    /// Frames over `socket`.
    ///
    /// # Errors
    /// The system's, if the socket can't be told not to wait.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            incoming: vec![0; BUFFER].into(),
            start: 0,
            end: 0,
            unsent: Vec::new(),
        })
    }

    /// Where the next frame is in `incoming`, once all of it is there.
    fn next_frame(&mut self) -> io::Result<std::ops::Range<usize>> {
        loop {
            let ready = &self.incoming[self.start..self.end];
            if let Some((prefix, rest)) = ready.split_first_chunk::<PREFIX>() {
                let length = u32::from_be_bytes(*prefix) as usize;
                if length > LONGEST {
                    return Err(self.end("the other end sends what is no frame"));
                }
                if rest.len() >= length {
                    let start = self.start + PREFIX;
                    return Ok(start..start + length);
                }
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.incoming.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        loop {
            match (&self.socket).read(&mut self.incoming[self.end..]) {
                Ok(0) => return Err(self.end(CLOSED)),
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(error) => self.judge(error)?,
            }
        }
    }

    /// Ends the connection, so that whoever is at the other end need not wait for more of it.
    fn end(&self, why: &'static str) -> io::Error {
        // It may have ended already.
        let _ = self.socket.shutdown(Shutdown::Both);
        io::Error::new(ErrorKind::ConnectionReset, why)
    }

    /// What an error of the socket is to the device: nothing, the need to wait, or the end.
    fn judge(&self, error: io::Error) -> io::Result<()> {
        match error.kind() {
            ErrorKind::Interrupted => Ok(()),
            ErrorKind::WouldBlock => Err(error),
            _ => Err(self.end(CLOSED)),
        }
    }
}

const CLOSED: &str = "the other end has closed the connection";

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Backend for Stream {
    fn offloads(&self) -> Offloads {
        Offloads::NONE
    }

    fn set_offloads(&mut self, _: Offloads) {}

    fn set_used(&mut self, _: bool) {}

    fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match (&self.socket).write(&self.unsent) {
                Ok(0) => return Err(self.end(CLOSED)),
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) => self.judge(error)?,
            }
        }
        Ok(())
    }

    fn send(&mut self, _: Header, frame: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.flush()?;
        let length = frame.iter().map(VolatileSlice::len).sum::<usize>();
        if !SENDABLE.contains(&length) {
            return Err(ErrorKind::InvalidInput.into());
        }
        let prefix = (length as u32).to_be_bytes();
        let mut vectors = Vec::with_capacity(frame.len() + 1);
        vectors.push(libc::iovec {
            iov_base: prefix.as_ptr().cast_mut().cast(),
            iov_len: PREFIX,
        });
        vectors.extend(frame.iter().map(super::guest_vector));
        let (fd, first, count) = (self.as_raw_fd(), vectors.as_ptr(), vectors.len());
        let written = loop {
            // SAFETY: the vectors are of `prefix` and of guest memory, both of which outlive the call.
            let written = unsafe { libc::writev(fd, first, count as libc::c_int) };
            match usize::try_from(written) {
                Ok(written) => break written,
                Err(_) => self.judge(io::Error::last_os_error())?,
            }
        };
        if written < PREFIX + length {
            self.unsent.extend(prefix);
            self.unsent.extend(gather(frame));
            self.unsent.drain(..written);
        }
        Ok(())
    }

    fn receive(
        &mut self,
        room: &[VolatileSlice<'_>],
        spill: &mut [u8],
    ) -> io::Result<(Header, usize)> {
        let place = self.next_frame()?;
        self.start = place.end;
        let frame = &self.incoming[place];
        scatter(frame, room, spill);
        Ok((Header::default(), frame.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Stream::new(ours).unwrap(), theirs)
    }

    fn receive(stream: &mut Stream, room: usize) -> io::Result<(usize, Vec<u8>)> {
        let (mut bytes, mut spill) = (vec![0; room], vec![0; LONGEST]);
        let half = room / 2;
        let (first, second) = bytes.split_at_mut(half);
        let slices = [VolatileSlice::from(first), VolatileSlice::from(second)];
        let (_, length) = stream.receive(&slices, &mut spill)?;
        bytes.extend(spill);
        bytes.truncate(length);
        Ok((length, bytes))
    }

    fn send(stream: &mut Stream, bytes: &mut [u8]) -> io::Result<()> {
        let (first, second) = bytes.split_at_mut(bytes.len() / 3);
        let slices = [VolatileSlice::from(first), VolatileSlice::from(second)];
        stream.send(Header::default(), &slices)
    }

    #[test]
    fn frames_are_told_apart_however_the_stream_is_cut() {
        let (mut stream, mut theirs) = pair();
        let sent = [
            &[0, 0, 0, 3][..],
            b"abc",
            &[0, 0, 0, 0],
            &[0, 0, 0, 2],
            b"de",
        ]
        .concat();

        theirs.write_all(&sent[..5]).unwrap();
        let early = receive(&mut stream, 8).unwrap_err();
        theirs.write_all(&sent[5..]).unwrap();

        assert_eq!(early.kind(), ErrorKind::WouldBlock);
        assert_eq!(receive(&mut stream, 8).unwrap().1, b"abc");
        assert_eq!(receive(&mut stream, 8).unwrap().0, 0);
        // What has no room is spilt.
        assert_eq!(receive(&mut stream, 1).unwrap().1, b"de");
    }

    #[test]
    fn a_frame_that_is_too_long_ends_the_connection() {
        let (mut stream, mut theirs) = pair();

        theirs
            .write_all(&(LONGEST as u32 + 1).to_be_bytes())
            .unwrap();

        let error = receive(&mut stream, 8).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn the_longest_frame_comes_whole() {
        let (mut stream, mut theirs) = pair();
        let frame: Vec<u8> = (0..LONGEST).map(|at| (at % 253) as u8).collect();
        let sent = [&(LONGEST as u32).to_be_bytes()[..], &frame].concat();
        let sender = std::thread::spawn(move || theirs.write_all(&sent.repeat(3)));

        for _ in 0..3 {
            let came = loop {
                match receive(&mut stream, 100) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                    came => break came.unwrap(),
                }
            };
            assert!(came.1 == frame);
        }

        sender.join().unwrap().unwrap();
    }

    #[test]
    fn what_passt_could_not_take_is_not_sent() {
        let (mut stream, mut theirs) = pair();
        theirs.set_nonblocking(true).unwrap();

        for length in [0, 13, 65_536] {
            let error = send(&mut stream, &mut vec![0; length]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{length}");
        }

        let nothing = theirs.read(&mut [0; 8]).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn the_end_of_the_connection_is_told() {
        let (mut stream, theirs) = pair();
        drop(theirs);

        let read = receive(&mut stream, 8).unwrap_err();
        let written = send(&mut stream, &mut [0; 60]).unwrap_err();

        assert_eq!(read.kind(), ErrorKind::ConnectionReset);
        assert_eq!(written.kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_frame_that_was_begun_is_finished_before_the_next() {
        let (mut stream, mut theirs) = pair();
        let frame = |n: u8| {
            (0..40_000)
                .map(|at| (at % 251) as u8 ^ n)
                .collect::<Vec<u8>>()
        };
        let mut sent = 0;
        let full = loop {
            match send(&mut stream, &mut frame(sent)) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);

        theirs.set_nonblocking(true).unwrap();
        let mut came = Vec::new();
        let mut piece = [0; 65536];
        loop {
            match theirs.read(&mut piece) {
                Ok(count) => came.extend_from_slice(&piece[..count]),
                Err(_) if stream.unsent.is_empty() => break,
                Err(_) => drop(stream.flush()),
            }
        }

        assert_eq!(came.len(), usize::from(sent) * 40_004);
        for (n, bytes) in (0..sent).zip(came.chunks(40_004)) {
            assert_eq!(bytes[..4], 40_000_u32.to_be_bytes());
            assert!(bytes[4..] == frame(n), "frame {n}");
        }
    }
}
