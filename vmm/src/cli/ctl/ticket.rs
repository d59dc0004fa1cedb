//! `display.ticket.add` from the shell.

use std::fs;
use std::io::Write;
use std::num::NonZeroU32;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::{Request, Show, put};
use crate::config::units::Span;
use crate::exit::{Exit, Failure};

/// Whom to let in, for how long and what for.
#[derive(Debug, Args)]
pub(super) struct AddTicket {
    /// What it is called; `ticket-N` if not given.
    #[arg(long)]
    id: Option<String>,
    /// Whose it is.
    #[arg(long)]
    label: Option<String>,
    /// Read its secret from the first line of this file, `-` for standard input; one is made if
    /// not given.
    #[arg(long, value_name = "FILE", conflicts_with = "output")]
    secret_file: Option<PathBuf>,
    /// For how long it opens new sessions.
    #[arg(long, value_name = "TIME")]
    expires_in: Option<Span>,
    /// How many sessions it opens.
    #[arg(long, value_name = "N")]
    uses: Option<NonZeroU32>,
    /// Its sessions may only look.
    #[arg(long)]
    view_only: bool,
    /// Without the clipboard.
    #[arg(long)]
    no_clipboard: bool,
    /// Without files.
    #[arg(long)]
    no_file_transfer: bool,
    /// Without USB devices.
    #[arg(long)]
    no_usb: bool,
    /// The kinds of channel that may be opened, apart by commas.
    #[arg(long, value_delimiter = ',', value_name = "KINDS")]
    channels: Option<Vec<String>>,
    /// Write the connection file with its secret here, for this user only.
    #[arg(short, long, value_name = "FILE.vv")]
    output: Option<PathBuf>,
}

impl AddTicket {
    pub(super) fn request(self) -> Result<Request, Failure> {
        let secret = match self.secret_file.as_deref() {
            None => None,
            Some(path) => Some(secret_in(path)?),
        };
        let permitted = !self.view_only;
        let body = json!({
            "id": self.id,
            "label": self.label.unwrap_or_default(),
            "secret": secret,
            "expires_in": self.expires_in,
            "uses": self.uses,
            "permissions": {
                "input": permitted,
                "clipboard": permitted && !self.no_clipboard,
                "file_transfer": permitted && !self.no_file_transfer,
                "usb": permitted && !self.no_usb,
                "channels": self.channels,
            },
        });
        let show = Show::Ticket(self.output);
        Ok(Request {
            show,
            ..put("display.ticket.add", Some(body))
        })
    }
}

/// The first line of a file or of standard input.
fn secret_in(path: &Path) -> Result<String, Failure> {
    let text = match path.to_str() {
        Some("-") => std::io::read_to_string(std::io::stdin()),
        _ => fs::read_to_string(path),
    };
    let text = text.map_err(|error| {
        Failure::of(Exit::Resource, &error).context(format!("can't read {}", path.display()))
    })?;
    Ok(text.lines().next().unwrap_or("").to_owned())
}

/// Writes what nobody else may read.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let mut how = fs::OpenOptions::new();
    let how = how.write(true).create(true).truncate(true).mode(0o600);
    let written = how.open(path).and_then(|mut file| {
        // The file may have been there before.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())
    });
    written.map_err(|error| {
        Failure::of(Exit::Resource, &error).context(format!("can't write {}", path.display()))
    })
}
