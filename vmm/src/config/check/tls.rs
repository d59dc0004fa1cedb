//! `spice.tls`: where, and whether the files are what they should be.

use std::io;

use caraway_spice::tls::{Identity, TlsError, TlsFault, TlsFile};

use super::Checker;
use crate::config::endpoint::Listen;
use crate::config::path::at;
use crate::config::problem::{Kind, Problem};
use crate::config::spec::TlsSpec;
use crate::config::tls::Tls;

const DEFAULT_LISTEN: &str = "127.0.0.1:5901";

impl Checker<'_> {
    pub(super) fn tls(&mut self, tls: &Tls) -> TlsSpec {
        let place = at!("spice", "tls", "listen");
        let listen = match &tls.listen {
            None => DEFAULT_LISTEN.parse().into_iter().collect(),
            Some(listen) => listen.clone(),
        };
        if listen.is_empty() {
            let hint = format!("add one, such as \"{DEFAULT_LISTEN}\", or remove `tls`");
            self.bad(place.clone(), "no listener", hint);
        }
        for (index, listen) in listen.iter().enumerate() {
            if let Listen::Unix(_) = listen {
                let message = "TLS on a Unix socket, which nobody else can listen to anyway";
                let hint = "move it to `spice.listen`, or use HOST:PORT";
                self.bad(place.then(index), message, hint);
            }
        }
        let spec = TlsSpec {
            listen,
            certificate: self.absolute(&tls.certificate),
            key: self.absolute(&tls.key),
            ca: tls.ca.as_ref().map(|ca| self.absolute(ca)),
            channels: tls.channels.clone().unwrap_or_default(),
        };
        if let Err(problem) = spec.identity() {
            self.note(*problem);
        }
        spec
    }
}

impl TlsSpec {
    /// What the files hold now.
    ///
    /// # Errors
    ///
    /// One of them is not what it should be.
    pub fn identity(&self) -> Result<Identity, Box<Problem>> {
        let loaded = Identity::load(&self.certificate, &self.key, self.ca.as_deref());
        loaded.map_err(|error| Box::new(problem(&error)))
    }
}

fn problem(error: &TlsError) -> Problem {
    let key = match error.file {
        TlsFile::Certificate => "certificate",
        TlsFile::Key => "key",
        TlsFile::Ca => "ca",
    };
    let kind = match &error.fault {
        TlsFault::Unreadable(error) if error.kind() == io::ErrorKind::NotFound => Kind::MissingFile,
        _ => Kind::BadValue,
    };
    Problem::new(kind, at!("spice", "tls", key), error.to_string()).hint(error.fault.remedy())
}
