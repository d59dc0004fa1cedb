//! What is wrong with a config, and where: one form for people and for programs.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource};
use serde::Serialize;

use super::path::JsonPath;

/// What sort of mistake it is; the word is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The config file can't be read.
    Unreadable,
    /// The text is not JSON.
    NotJson,
    /// A key that no machine has.
    UnknownKey,
    /// A key that must be there is not.
    MissingKey,
    /// A value of the wrong type or form.
    WrongType,
    /// A value that is not one of those allowed.
    BadValue,
    /// A file that is named is not there or not usable.
    MissingFile,
    /// Two devices have one id.
    DuplicateId,
    /// Two devices have one PCI address.
    AddressClash,
    /// This build has no such device or option.
    Unsupported,
}

impl Kind {
    /// The stable word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::NotJson => "not-json",
            Self::UnknownKey => "unknown-key",
            Self::MissingKey => "missing-key",
            Self::WrongType => "wrong-type",
            Self::BadValue => "bad-value",
            Self::MissingFile => "missing-file",
            Self::DuplicateId => "duplicate-id",
            Self::AddressClash => "address-clash",
            Self::Unsupported => "unsupported",
        }
    }
}

/// Where in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Location {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// The bytes that are wrong.
    #[serde(skip)]
    pub bytes: Range<usize>,
}

impl Location {
    /// The place of `bytes` in `text`.
    #[must_use]
    pub fn of(text: &str, bytes: Range<usize>) -> Self {
        let before = text.get(..bytes.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            bytes,
        }
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What sort of mistake.
    pub code: Kind,
    /// What is wrong, with the bad value.
    pub message: String,
    /// Where in the document; empty for the whole of it.
    #[serde(serialize_with = "as_text")]
    pub path: JsonPath,
    /// The bad value as the file has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Every value that would do, if they can be listed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Where in the file.
    #[serde(flatten)]
    pub location: Option<Location>,
}

fn as_text<S: serde::Serializer>(path: &JsonPath, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(path)
}

impl Problem {
    /// A mistake at `path`.
    #[must_use]
    pub fn new(code: Kind, path: JsonPath, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            path,
            value: None,
            allowed: Vec::new(),
            hint: None,
            location: None,
        }
    }

    /// The same mistake, saying what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same mistake, with the value that was given and those that would do; the nearest of
    /// them becomes the hint.
    #[must_use]
    pub fn allowed(mut self, given: &str, allowed: Vec<String>) -> Self {
        let near = nearest(given, &allowed).map(|near| format!("did you mean `{near}`? "));
        let listed = allowed.join("`, `");
        self.hint = Some(format!("{}use one of `{listed}`", near.unwrap_or_default()));
        self.allowed = allowed;
        self
    }

    /// The message after its path.
    fn headline(&self) -> String {
        match self.path.segments() {
            [] => self.message.clone(),
            _ => format!("{}: {}", self.path, self.message),
        }
    }
}

/// The one of `allowed` that `given` is most likely a misspelling of.
fn nearest<'a>(given: &str, allowed: &'a [String]) -> Option<&'a str> {
    let given = given.to_lowercase();
    allowed
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&given, word), word))
        .filter(|(distance, word)| *distance <= 1 + word.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word.as_str())
}

/// Everything that is wrong with a config; never empty.
#[derive(Debug, Clone)]
pub struct ConfigErrors {
    file: String,
    text: Arc<str>,
    problems: Vec<Problem>,
}

impl ConfigErrors {
    /// The `problems` of the config in `file`, whose content is `text`.
    #[must_use]
    pub fn new(file: &str, text: Arc<str>, problems: Vec<Problem>) -> Self {
        Self {
            file: file.to_owned(),
            text,
            problems,
        }
    }

    /// What is wrong, in the order of the checks.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// What programs are shown: the first problem in the form of an API error, and all of them.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let first = self.problems.first();
        serde_json::json!({
            "code": first.map_or("config", |p| p.code.word()),
            "message": first.map(|p| p.message.as_str()),
            "path": first.map(|p| p.path.to_string()),
            "hint": first.and_then(|p| p.hint.as_deref()),
            "causes": [],
            "file": self.file,
            "problems": self.problems,
            "exit": crate::exit::Exit::Config.code(),
        })
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
            .with_wrap_lines(false)
            .with_width(120);
        for (position, problem) in self.problems.iter().enumerate() {
            let shown = Shown {
                problem,
                source: NamedSource::new(&self.file, Arc::clone(&self.text)),
            };
            if position > 0 {
                writeln!(f)?;
            }
            handler.render_report(f, &shown)?;
            if problem.location.is_none() {
                writeln!(f, "  in {}", self.file)?;
            }
        }
        Ok(())
    }
}

/// A problem as miette wants it.
#[derive(Debug)]
struct Shown<'a> {
    problem: &'a Problem,
    source: NamedSource<Arc<str>>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.headline())
    }
}

impl std::error::Error for Shown<'_> {}

impl miette::Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(format!("config::{}", self.problem.code.word())))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let hint = self.problem.hint.as_ref()?;
        Some(Box::new(hint))
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.problem.location.as_ref()?;
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let location = self.problem.location.as_ref()?;
        let span = LabeledSpan::at(location.bytes.clone(), "here");
        Some(Box::new(std::iter::once(span)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one() {
        let location = Location::of("{\n  \"ä\": x\n}", 10..11);

        assert_eq!((location.line, location.column), (2, 8));
    }

    #[test]
    fn a_misspelling_finds_its_word() {
        let words = ["path", "format", "readonly"].map(String::from);

        assert_eq!(nearest("pth", &words), Some("path"));
        assert_eq!(nearest("Format", &words), Some("format"));
        assert_eq!(nearest("zebra", &words), None);
    }
}
