//! The control API as `curl` would ask it: one HTTP/1.1 request a connection.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

/// The API of one machine.
#[derive(Debug, Clone)]
pub struct Api {
    socket: PathBuf,
}

/// What a request came to.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Api {
    /// The API on this socket.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// `GET /api/v1/{verb}`, which must succeed.
    ///
    /// # Panics
    /// If it does not.
    pub fn get(&self, verb: &str) -> Vec<u8> {
        let answer = self.ask("GET", verb, "").unwrap();
        assert_eq!(
            answer.status,
            200,
            "{verb}: {}",
            String::from_utf8_lossy(&answer.body)
        );
        answer.body
    }

    /// `GET /api/v1/{verb}` as JSON.
    ///
    /// # Panics
    /// If it fails or is not JSON.
    pub fn json(&self, verb: &str) -> Value {
        serde_json::from_slice(&self.get(verb)).unwrap()
    }

    /// `PUT /api/v1/{verb}`, which must succeed.
    ///
    /// # Panics
    /// If it does not.
    pub fn put(&self, verb: &str, body: &str) {
        let answer = self.ask("PUT", verb, body).unwrap();
        let said = String::from_utf8_lossy(&answer.body);
        assert!(
            (200..300).contains(&answer.status),
            "{verb}: {} {said}",
            answer.status
        );
    }

    /// One request.
    ///
    /// # Errors
    /// What the socket says, or that the answer is not HTTP.
    pub fn ask(&self, method: &str, verb: &str, body: &str) -> std::io::Result<Answer> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(
            stream,
            "{method} /api/v1/{verb} HTTP/1.1\r\nHost: caraway\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        parse(&bytes).ok_or_else(|| std::io::Error::other(String::from_utf8_lossy(&bytes)))
    }

    /// The events since the machine's start, which come until the machine ends, so this reads what
    /// has been written within `patience`.
    ///
    /// # Errors
    /// What the socket says.
    pub fn events(&self, patience: Duration) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(patience))?;
        write!(
            stream,
            "GET /api/v1/events?since=0 HTTP/1.1\r\nHost: caraway\r\n\r\n"
        )?;
        let mut bytes = Vec::new();
        // The time is meant to run out.
        let _ = stream.read_to_end(&mut bytes);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let head_end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..head_end]).ok()?;
    let body = &bytes[head_end + 4..];
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let body = if chunked {
        join_chunks(body)?
    } else {
        body.to_vec()
    };
    Some(Answer { status, body })
}

fn join_chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line_end]).ok()?, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        let start = line_end + 2;
        body.extend_from_slice(rest.get(start..start + size)?);
        rest = rest.get(start + size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined() {
        let bytes =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";

        let answer = parse(bytes).unwrap();

        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (200, b"abcd".as_slice())
        );
    }
}
