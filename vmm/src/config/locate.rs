//! Finds where in the text of a JSON document a [`JsonPath`] points.

use std::ops::Range;

use super::path::{JsonPath, Segment};

/// The bytes of the value at `path`; those of its key if the value is not there as a whole.
/// `None` if the document has no such place.
pub(crate) fn locate(text: &str, path: &JsonPath) -> Option<Range<usize>> {
    let mut scanner = Scanner { text, position: 0 };
    let mut found = None;
    for segment in path.segments() {
        found = Some(scanner.enter(segment)?);
    }
    scanner.value().or(found)
}

/// The bytes of the key at the end of `path`, quotes included.
pub(crate) fn locate_key(text: &str, path: &JsonPath) -> Option<Range<usize>> {
    let mut scanner = Scanner { text, position: 0 };
    let mut found = None;
    for segment in path.segments() {
        found = Some(scanner.enter(segment)?);
    }
    found
}

/// Walks over JSON text without building values, and without recursion.
struct Scanner<'a> {
    text: &'a str,
    position: usize,
}

impl Scanner<'_> {
    fn peek(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.position..)?;
        let blanks = rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
        self.position += blanks;
        rest.get(blanks).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.position += 1)
    }

    /// Goes to the value that `segment` leads to; the range of its key, or of its first byte.
    fn enter(&mut self, segment: &Segment) -> Option<Range<usize>> {
        match segment {
            Segment::Key(wanted) => {
                self.take(b'{')?;
                loop {
                    self.peek()?;
                    let range = self.string()?;
                    let key: String = serde_json::from_str(self.text.get(range.clone())?).ok()?;
                    self.take(b':')?;
                    if key == *wanted {
                        self.peek()?;
                        return Some(range);
                    }
                    self.value()?;
                    self.take(b',')?;
                }
            }
            Segment::Index(wanted) => {
                self.take(b'[')?;
                for _ in 0..*wanted {
                    self.value()?;
                    self.take(b',')?;
                }
                self.peek()?;
                Some(self.position..self.position + 1)
            }
        }
    }

    /// Passes a string, quotes included.
    fn string(&mut self) -> Option<Range<usize>> {
        let start = self.position;
        let bytes = self.text.as_bytes();
        if *bytes.get(start)? != b'"' {
            return None;
        }
        let mut position = start + 1;
        loop {
            match *bytes.get(position)? {
                b'"' => break,
                b'\\' => position += 2,
                _ => position += 1,
            }
        }
        self.position = position + 1;
        Some(start..self.position)
    }

    /// Passes a value of any kind.
    fn value(&mut self) -> Option<Range<usize>> {
        self.peek()?;
        let start = self.position;
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.position += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.position += 1;
                }
                b',' | b':' => self.position += 1,
                _ => self.scalar(),
            }
            if depth == 0 {
                return Some(start..self.position);
            }
        }
    }

    /// Passes a number or a word.
    fn scalar(&mut self) {
        let rest = &self.text.as_bytes()[self.position..];
        let ends = |b: &u8| b.is_ascii_whitespace() || b",:]}[{\"".contains(b);
        self.position += rest.iter().position(ends).unwrap_or(rest.len()).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::at;

    const TEXT: &str = r#"{ "a": 1, "b\u0041": [ {"x": "},{"}, [2, 3] ], "c": {"d": true} }"#;

    fn found(path: &JsonPath) -> Option<&'static str> {
        locate(TEXT, path).and_then(|range| TEXT.get(range))
    }

    #[test]
    fn values_are_found_through_keys_and_indices() {
        assert_eq!(found(&at!("a")), Some("1"));
        assert_eq!(found(&at!("bA", 0, "x")), Some("\"},{\""));
        assert_eq!(found(&at!("bA", 1)), Some("[2, 3]"));
        assert_eq!(found(&at!("bA", 1, 1)), Some("3"));
        assert_eq!(found(&at!("c", "d")), Some("true"));
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for path in [at!("z"), at!("a", "b"), at!("bA", 2), at!("c", 0)] {
            assert_eq!(found(&path), None, "{path}");
        }
    }

    #[test]
    fn broken_text_ends_the_search() {
        for text in ["", "{", "{\"a", "{\"a\"", "{\"a\":", "{\"a\\", "[[[[", "}"] {
            assert_eq!(locate(text, &at!("a", 0)), None, "{text:?}");
        }
    }
}
