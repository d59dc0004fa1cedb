//! Paths into a JSON document: `disks[0].path`.

use std::fmt;

/// One step into a JSON document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// The value of this key.
    Key(String),
    /// The element at this index.
    Index(usize),
}

impl From<&str> for Segment {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Segment {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// A place in a JSON document, written `disks[0].path`; empty is the whole document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JsonPath(Vec<Segment>);

impl JsonPath {
    /// The place that `segments` lead to.
    #[must_use]
    pub fn new(segments: Vec<Segment>) -> Self {
        Self(segments)
    }

    /// One step further in.
    #[must_use]
    pub fn then(&self, step: impl Into<Segment>) -> Self {
        let mut segments = self.0.clone();
        segments.push(step.into());
        Self(segments)
    }

    /// The steps from the top.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if position == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// The [`JsonPath`] of some keys and indices: `at!("disks", 0, "path")`.
#[macro_export]
macro_rules! at {
    ($($step:expr),* $(,)?) => {
        $crate::config::JsonPath::new(vec![$($crate::config::Segment::from($step)),*])
    };
}

pub use at;
