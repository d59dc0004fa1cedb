//! The text of a config, and what it says.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_path_to_error::Segment as Step;

use super::locate::{locate, locate_key};
use super::path::{JsonPath, Segment};
use super::problem::{ConfigErrors, Kind, Location, Problem};
use super::{Config, Host, MachineSpec};

/// The most bytes that a config may have.
const LIMIT: u64 = 4 << 20;

/// The text of a config and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    name: String,
    base: PathBuf,
    stem: Option<String>,
    text: Arc<str>,
}

/// Reads, parses and checks the config at `path` (`-` is standard input).
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn load(path: &Path, host: &Host) -> Result<MachineSpec, ConfigErrors> {
    let document = Document::read(path)?;
    document.check(&document.parse()?, host)
}

impl Document {
    /// Reads the config at `path`; `-` is standard input, with paths relative to the current
    /// folder.
    ///
    /// # Errors
    ///
    /// It can't be read, is not UTF-8 or is longer than 4 MiB.
    pub fn read(path: &Path) -> Result<Self, ConfigErrors> {
        let mut text = String::new();
        let read = if path == Path::new("-") {
            std::io::stdin()
                .lock()
                .take(LIMIT + 1)
                .read_to_string(&mut text)
        } else {
            std::fs::File::open(path)
                .and_then(|file| file.take(LIMIT + 1).read_to_string(&mut text))
        };
        let unreadable = |message: String| {
            let hint = "give the path of a machine's JSON file, or `-` for standard input; \
                        resources/examples has some to start from";
            let problem = Problem::new(Kind::Unreadable, JsonPath::default(), message).hint(hint);
            ConfigErrors::new(&shown_name(path), Arc::from(""), vec![problem])
        };
        let length =
            read.map_err(|error| unreadable(format!("cannot read {}: {error}", path.display())))?;
        if length as u64 > LIMIT {
            return Err(unreadable(format!(
                "{} is longer than 4 MiB",
                path.display()
            )));
        }
        let mut document = Self::new(&text, Path::new("."));
        document.name = shown_name(path);
        if path != Path::new("-") {
            let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            document.base = full.parent().unwrap_or(Path::new("/")).to_owned();
            document.stem = full
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned());
        }
        Ok(document)
    }

    /// A config that is no file; its paths are relative to `base`.
    #[must_use]
    pub fn new(text: &str, base: &Path) -> Self {
        Self {
            name: "<config>".to_owned(),
            base: std::path::absolute(base).unwrap_or_else(|_| base.to_owned()),
            stem: None,
            text: Arc::from(text),
        }
    }

    /// What the errors call it: the path as it was given, or `<stdin>`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder that its paths are relative to.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The file's name without its ending.
    #[must_use]
    pub fn stem(&self) -> Option<&str> {
        self.stem.as_deref()
    }

    /// What the text says.
    ///
    /// # Errors
    ///
    /// It is not JSON, has an unknown key or a value of the wrong type; the first such place.
    pub fn parse(&self) -> Result<Config, ConfigErrors> {
        let mut json = serde_json::Deserializer::from_str(&self.text);
        serde_path_to_error::deserialize(&mut json)
            .map_err(|error| {
                let path = steps(error.path());
                self.refuse(path, error.inner())
            })
            .and_then(|config| match json.end() {
                Ok(()) => Ok(config),
                Err(error) => Err(self.refuse(JsonPath::default(), &error)),
            })
    }

    /// What will run if `config`, which [`parse`](Self::parse) made, is run on `host`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn check(&self, config: &Config, host: &Host) -> Result<MachineSpec, ConfigErrors> {
        super::check::check(self, config, host).map_err(|problems| self.errors(problems))
    }

    /// `problems` as errors of this document, each with its place in the text.
    #[must_use]
    pub fn errors(&self, mut problems: Vec<Problem>) -> ConfigErrors {
        for problem in &mut problems {
            if problem.location.is_some() || problem.code == Kind::Unreadable {
                continue;
            }
            let range = match problem.code {
                Kind::UnknownKey => locate_key(&self.text, &problem.path),
                _ => nearest_place(&self.text, &problem.path),
            };
            if let Some(range) = range {
                if problem.value.is_none() {
                    let given = self.text.get(range.clone());
                    problem.value = given.filter(|v| !v.starts_with(['{', '['])).map(shorten);
                }
                problem.location = Some(Location::of(&self.text, range));
            }
        }
        ConfigErrors::new(&self.name, Arc::clone(&self.text), problems)
    }

    fn refuse(&self, path: JsonPath, error: &serde_json::Error) -> ConfigErrors {
        // serde_json appends its own idea of the place; ours is shown beside the text.
        let full = error.to_string();
        let message = full
            .rsplit_once(" at line ")
            .map_or(full.as_str(), |(text, _)| text);
        let mut problem = if error.is_data() {
            data_problem(path, message)
        } else {
            let mut problem = Problem::new(
                Kind::NotJson,
                JsonPath::default(),
                format!("not JSON: {message}"),
            )
            .hint("JSON has no comments, no trailing commas, and every key in double quotes");
            let start = offset(&self.text, error.line(), error.column());
            let end = (start + 1).min(self.text.len());
            problem.location = Some(Location {
                line: error.line().max(1),
                column: error.column().max(1),
                bytes: start..end,
            });
            problem
        };
        if problem.location.is_none() && problem.path.segments().is_empty() {
            problem.location = Some(Location::of(&self.text, 0..0));
        }
        self.errors(vec![problem])
    }
}

fn shown_name(path: &Path) -> String {
    if path == Path::new("-") {
        "<stdin>".to_owned()
    } else {
        path.display().to_string()
    }
}

fn shorten(value: &str) -> String {
    const MOST: usize = 120;
    match value.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{}…", &value[..cut]),
        None => value.to_owned(),
    }
}

/// The place of `path`, or of the nearest part of the document around it.
fn nearest_place(text: &str, path: &JsonPath) -> Option<std::ops::Range<usize>> {
    let mut segments = path.segments().to_vec();
    loop {
        if let Some(range) = locate(text, &JsonPath::new(segments.clone())) {
            // A whole object is too much to point at; its first byte will do.
            let object = text
                .as_bytes()
                .get(range.start)
                .is_some_and(|b| b"{[".contains(b));
            return Some(if object {
                range.start..range.start + 1
            } else {
                range
            });
        }
        segments.pop()?;
    }
}

fn steps(path: &serde_path_to_error::Path) -> JsonPath {
    let segments = path.iter().filter_map(|step| match step {
        Step::Seq { index } => Some(Segment::Index(*index)),
        Step::Map { key } => Some(Segment::Key(key.clone())),
        Step::Enum { .. } | Step::Unknown => None,
    });
    JsonPath::new(segments.collect())
}

/// Byte offset of a line and column as serde_json counts them: from 1, in bytes, 0 for a place
/// before the first.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let mut offset = (start + column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// Turns serde's words into ours.
fn data_problem(path: JsonPath, message: &str) -> Problem {
    let quoted = |text: &str| -> Vec<String> {
        text.split('`')
            .skip(1)
            .step_by(2)
            .map(String::from)
            .collect()
    };
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let mut words = quoted(rest);
        let key = if words.is_empty() {
            String::new()
        } else {
            words.remove(0)
        };
        let path = match path.segments().last() {
            Some(Segment::Key(last)) if *last == key => path,
            _ => path.then(key.as_str()),
        };
        let mut problem = Problem::new(Kind::UnknownKey, path, format!("unknown key `{key}`"));
        problem.value = Some(key.clone());
        problem.allowed(&key, words)
    } else if let Some(rest) = message.strip_prefix("unknown variant ") {
        let mut words = quoted(rest);
        let value = if words.is_empty() {
            String::new()
        } else {
            words.remove(0)
        };
        Problem::new(Kind::BadValue, path, format!("\"{value}\" is not allowed"))
            .allowed(&value, words)
    } else if let Some(key) = message.strip_prefix("missing field ") {
        let key = key.trim_matches('`');
        Problem::new(
            Kind::MissingKey,
            path,
            format!("the key `{key}` is missing"),
        )
        .hint(format!(
            "add `\"{key}\": …`; `caraway schema` says what it takes"
        ))
    } else if let Some(key) = message.strip_prefix("duplicate field ") {
        Problem::new(
            Kind::BadValue,
            path,
            format!("the key {key} is given twice"),
        )
        .hint("remove one of the two")
    } else {
        Problem::new(Kind::WrongType, path, in_words(message))
            .hint("`caraway schema` says what is allowed here")
    }
}

/// What serde calls a type, and what people call it.
const TYPES: [(&str, &str); 10] = [
    ("u8", "a whole number from 0 to 255"),
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number"),
    ("u64", "a whole number"),
    ("a boolean", "`true` or `false`"),
    ("a string", "a text in double quotes"),
    ("path string", "a path in double quotes"),
    ("a sequence", "a list, [ … ]"),
    ("string or map", "one of its words"),
    ("a formatted UUID string", "a UUID"),
];

/// `invalid type: string "two", expected u32` as people say it.
fn in_words(message: &str) -> String {
    let parts = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "));
    let Some((found, expected)) = parts else {
        return message.to_owned();
    };
    let expected = match expected.strip_prefix("struct ") {
        Some(_) => "an object, { … }",
        None => TYPES
            .iter()
            .find(|(word, _)| *word == expected)
            .map_or(expected, |(_, words)| words),
    };
    format!("expected {expected}, found {found}")
}
