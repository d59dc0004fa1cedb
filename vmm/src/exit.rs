//! How the program ends: the exit codes, and what is said when it fails.

use std::fmt;
use std::process::ExitCode;

use crate::command::{ApiError, ErrorCode};
use crate::config::ConfigErrors;

/// Why the program ends; its number is the exit code that scripts and CI jobs look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The guest powered off, or the command did its job.
    Success,
    /// The guest wrote this value to the debug-exit port.
    Guest(u8),
    /// The machine ended without the text of `--expect-serial`.
    NotSeen,
    /// The machine refused what `ctl` asked.
    Refused,
    /// The command line is wrong (`EX_USAGE`).
    Usage,
    /// The config, or a file that it names, is wrong (`EX_DATAERR`).
    Config,
    /// The host lacks KVM or a feature that was asked for; a CI job may skip (`EX_UNAVAILABLE`).
    Unsupported,
    /// A fault of our own (`EX_SOFTWARE`).
    Internal,
    /// A disk, a tap or a socket failed (`EX_OSERR`).
    Resource,
    /// The guest's kernel panicked.
    GuestPanic,
    /// A triple fault, or a reset with `"reset": "exit"`.
    GuestReset,
    /// The text of `--fail-serial` was seen.
    FailSerial,
    /// `--timeout` ran out, as `timeout(1)` says it.
    Timeout,
    /// SIGINT.
    Interrupted,
    /// SIGTERM.
    Terminated,
}

impl Exit {
    /// The number that the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Guest(value) => value,
            Self::NotSeen | Self::Refused => 1,
            Self::Usage => 64,
            Self::Config => 65,
            Self::Unsupported => 69,
            Self::Internal => 70,
            Self::Resource => 71,
            Self::GuestPanic => 110,
            Self::GuestReset => 112,
            Self::FailSerial => 113,
            Self::Timeout => 124,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command could not do its job; `main` shows it once and ends with [`exit`](Self::exit).
#[derive(Debug)]
pub enum Failure {
    /// The config is wrong, at places that can be shown.
    Config(Box<ConfigErrors>),
    /// Anything else.
    Report(Box<Report>),
}

/// What went wrong outside of the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The code to end with.
    pub exit: Exit,
    /// A stable word for programs: that of `exit`, or of the API's error.
    pub code: String,
    /// What failed, with the operand that was wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Why, outermost first.
    pub causes: Vec<String>,
}

impl Failure {
    /// A failure without a cause of its own.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self::Report(Box::new(Report {
            exit,
            code: exit.word().to_owned(),
            message: message.into(),
            hint: None,
            causes: Vec::new(),
        }))
    }

    /// A failure by `error`, whose chain of sources becomes the causes.
    #[must_use]
    pub fn of(exit: Exit, error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(error.source(), |e| e.source())
            .map(ToString::to_string)
            .collect();
        Self::Report(Box::new(Report {
            exit,
            code: exit.word().to_owned(),
            message: error.to_string(),
            hint: None,
            causes,
        }))
    }

    /// The same failure, in the words of what it kept from happening.
    #[must_use]
    pub fn context(mut self, message: impl Into<String>) -> Self {
        if let Self::Report(report) = &mut self {
            let cause = std::mem::replace(&mut report.message, message.into());
            report.causes.insert(0, cause);
        }
        self
    }

    /// The same failure, saying what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Self::Report(report) = &mut self {
            report.hint = Some(hint.into());
        }
        self
    }

    /// The code to end with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) => Exit::Config,
            Self::Report(report) => report.exit,
        }
    }

    /// What programs are shown (`--log-format json`): one JSON object, in the form of an API error.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Config(errors) => errors.to_json(),
            Self::Report(report) => serde_json::json!({
                "code": report.code,
                "message": report.message,
                "hint": report.hint,
                "causes": report.causes,
                "exit": report.exit.code(),
            }),
        }
    }
}

impl Exit {
    /// A stable word for programs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Guest(_) => "guest",
            Self::NotSeen => "not-seen",
            Self::Refused => "refused",
            Self::Usage => "usage",
            Self::Config => "config",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
            Self::Resource => "resource",
            Self::GuestPanic => "guest-panic",
            Self::GuestReset => "guest-reset",
            Self::FailSerial => "fail-serial",
            Self::Timeout => "timeout",
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(errors) => errors.fmt(f),
            Self::Report(report) => {
                write!(f, "caraway: {}", report.message)?;
                for cause in &report.causes {
                    write!(f, "\n  because: {cause}")?;
                }
                if let Some(hint) = &report.hint {
                    write!(f, "\n  help: {hint}")?;
                }
                Ok(())
            }
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let exit = match error.code {
            ErrorCode::BadRequest
            | ErrorCode::NotFound
            | ErrorCode::MethodNotAllowed
            | ErrorCode::TooLarge => Exit::Usage,
            ErrorCode::NoDisplay
            | ErrorCode::NotTextMode
            | ErrorCode::NoPicture
            | ErrorCode::WrongState
            | ErrorCode::NoTls
            | ErrorCode::NoBalloon
            | ErrorCode::NoAgent
            | ErrorCode::AgentRefused
            | ErrorCode::Conflict => Exit::Refused,
            ErrorCode::BadCertificate => Exit::Config,
            ErrorCode::Timeout => Exit::Timeout,
            ErrorCode::Internal => Exit::Internal,
            ErrorCode::Gone | ErrorCode::Resource => Exit::Resource,
        };
        let message = match &error.path {
            Some(path) => format!("{path}: {}", error.message),
            None => error.message,
        };
        Self::Report(Box::new(Report {
            exit,
            code: error.code.word(),
            message,
            hint: error.hint,
            causes: error.causes,
        }))
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::Config(Box::new(errors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_its_causes_and_the_remedy() {
        let cause = std::io::Error::other("address already in use");

        let text = Failure::of(Exit::Resource, &cause)
            .hint("choose another port")
            .to_string();

        assert_eq!(
            text,
            "caraway: address already in use\n  help: choose another port"
        );
    }

    #[test]
    fn the_guests_value_is_the_exit_code() {
        let code = Exit::Guest(42).code();

        assert_eq!(code, 42);
    }
}
