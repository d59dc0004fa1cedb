//! `spice.ports`, `spice.webdav` and `spice.usb_redirection`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::Checker;
use crate::config::path::{JsonPath, at};
use crate::config::pipe::PipesSpec;
use crate::config::spice::Spice;

/// Ports or USB slots: a viewer opens a connection for each.
const MOST: usize = 16;
const LONGEST_NAME: usize = 128;
/// What viewers know as shared folders.
const WEBDAV: &str = "org.spice-space.webdav.0";

impl Checker<'_> {
    pub(super) fn pipes(&mut self, spice: &Spice) -> PipesSpec {
        for (key, count) in [
            ("ports", spice.ports.len()),
            ("usb_redirection", spice.usb_redirection.len()),
        ] {
            if count > MOST {
                let message = format!("{count} of them are too many");
                self.bad(at!("spice", key), message, format!("keep {MOST} at most"));
            }
        }
        let mut taken = HashMap::new();
        let mut names = HashMap::new();
        let mut ports = Vec::new();
        for (index, port) in spice.ports.iter().enumerate() {
            let place = at!("spice", "ports", index);
            self.port_name(&port.name, place.then("name"), &mut names);
            let path = self.pipe_socket(&port.to.0, place.then("to"), &mut taken);
            ports.push((port.name.clone(), path));
        }
        let webdav = spice.webdav.as_ref();
        let webdav =
            webdav.map(|socket| self.pipe_socket(&socket.0, at!("spice", "webdav"), &mut taken));
        let slots = spice
            .usb_redirection
            .iter()
            .enumerate()
            .map(|(index, socket)| {
                let place = at!("spice", "usb_redirection", index);
                self.pipe_socket(&socket.0, place, &mut taken)
            });
        PipesSpec {
            ports,
            webdav,
            usb_redirection: slots.collect(),
        }
    }

    fn port_name<'a>(
        &mut self,
        name: &'a str,
        place: JsonPath,
        names: &mut HashMap<&'a str, JsonPath>,
    ) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if !(1..=LONGEST_NAME).contains(&name.len()) || !name.bytes().all(plain) {
            let hint = format!(
                "use 1 to {LONGEST_NAME} letters, digits, `-`, `_` or `.`, \
                 such as \"org.example.console.0\""
            );
            self.bad(place, format!("{name:?} is not a port's name"), hint);
        } else if name == WEBDAV {
            let hint = "name its socket under `spice.webdav` instead";
            self.bad(place, "this port is that of shared folders", hint);
        } else if let Some(other) = names.insert(name, place.clone()) {
            let message = format!("the name \"{name}\" is already that of {other}");
            self.bad(place, message, "give each port a name of its own");
        }
    }

    fn pipe_socket(
        &mut self,
        path: &Path,
        place: JsonPath,
        taken: &mut HashMap<PathBuf, JsonPath>,
    ) -> PathBuf {
        let full = self.socket(path, place.clone());
        if let Some(other) = taken.insert(full.clone(), place.clone()) {
            let message = format!(
                "the socket \"{}\" is already that of {other}",
                path.display()
            );
            self.bad(place, message, "give each a socket of its own");
        }
        full
    }
}
