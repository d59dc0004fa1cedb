//! `caraway tls`.

use std::path::{Path, PathBuf};

use caraway_spice::tls::Identity;
use clap::{Args, Subcommand};
use serde_json::json;

use super::print;
use crate::exit::{Exit, Failure};
use crate::pki::{self, PkiError, Wish};

/// What to do about certificates.
#[derive(Debug, Args)]
pub(super) struct Tls {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a CA and a server's certificate, and print the config that uses them.
    Init(Init),
}

#[derive(Debug, Args)]
struct Init {
    /// Where the files go.
    #[arg(long, value_name = "DIR", default_value = "tls")]
    dir: PathBuf,
    /// The server's name in its certificate; this host's if not given.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A host name or IP address by which viewers reach the server, beside its name and the
    /// loopback; may be given several times.
    #[arg(long, value_name = "NAME|IP")]
    san: Vec<String>,
    /// Days that the server's certificate is good for.
    #[arg(long, default_value_t = 825, value_parser = clap::value_parser!(u16).range(1..=3650))]
    days: u16,
    /// Replace the files that are there.
    #[arg(long)]
    force: bool,
    /// Sign with the CA that is there, so that viewers need no other; with --force, this renews a
    /// certificate.
    #[arg(long)]
    keep_ca: bool,
}

impl Tls {
    pub(super) fn act(self) -> Result<Exit, Failure> {
        match self.verb {
            Verb::Init(init) => init.act(),
        }
    }
}

impl Init {
    fn act(self) -> Result<Exit, Failure> {
        let name = self.name.unwrap_or_else(host_name);
        let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        // A name for people is none that viewers connect to.
        let own = (!name.contains(' ')).then(|| name.clone());
        let mut reached_by: Vec<String> = own.into_iter().chain(local).chain(self.san).collect();
        let mut seen = std::collections::BTreeSet::new();
        reached_by.retain(|name| seen.insert(name.clone()));
        let wish = Wish {
            folder: self.dir,
            name,
            reached_by,
            days: self.days,
            force: self.force,
            keep_ca: self.keep_ca,
        };
        let files = pki::make(&wish).map_err(failure)?;
        let identity = Identity::load(&files.certificate, &files.key, Some(&files.ca))
            .map_err(|error| Failure::of(Exit::Internal, &error))?;
        let shown = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let expires = jiff::Timestamp::try_from(identity.expires());
        let config = json!({
            "listen": ["127.0.0.1:5900"],
            "tls": {
                "listen": ["127.0.0.1:5901"],
                "certificate": shown(&files.certificate),
                "key": shown(&files.key),
                "ca": shown(&files.ca),
                "channels": "all",
            },
        });
        print(&format!(
            "CA:           {}\n\
             CA key:       {}  (keep it safe; the server does not need it)\n\
             certificate:  {}\n\
             key:          {}\n\
             reached by:   {}\n\
             expires:      {}\n\
             host-subject: {}\n\n\
             In the machine's config:\n\n\"spice\": {config:#}\n",
            files.ca.display(),
            files.ca_key.display(),
            files.certificate.display(),
            files.key.display(),
            wish.reached_by.join(", "),
            expires.unwrap_or(jiff::Timestamp::MAX),
            identity.subject(),
        ))
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "caraway".to_owned(),
        name => name.to_owned(),
    }
}

fn failure(error: PkiError) -> Failure {
    let (exit, hint) = match &error {
        PkiError::Exists(_) => (
            Exit::Resource,
            "--force replaces what is there, --force --keep-ca all but the CA; --dir names another \
             folder",
        ),
        PkiError::Name(_) => (Exit::Usage, "give names such as desk.example, or addresses"),
        PkiError::File { .. } => (
            Exit::Resource,
            "name a folder that can be written with --dir",
        ),
        PkiError::Ca { .. } => (Exit::Resource, "make a new one, without --keep-ca"),
        PkiError::Make(_) => return Failure::of(Exit::Internal, &error),
    };
    Failure::of(exit, &error).hint(hint)
}
