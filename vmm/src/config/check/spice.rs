//! `spice`: who may connect, and where.

use std::path::PathBuf;

use super::Checker;
use crate::config::endpoint::Listen;
use crate::config::path::{JsonPath, at};
use crate::config::problem::{Kind, Problem};
use crate::config::spec::SpiceSpec;
use crate::config::spice::{Auth, Secret, Spice};

const DEFAULT_LISTEN: &str = "127.0.0.1:5900";
/// `SPICE_MAX_PASSWORD_LENGTH` of spice-protocol.
const PASSWORD: usize = 60;

impl Checker<'_> {
    pub(super) fn spice(&mut self, spice: &Spice) -> Option<SpiceSpec> {
        let listen = match &spice.listen {
            None => vec![DEFAULT_LISTEN.parse().ok()?],
            Some(listen) => listen.clone(),
        };
        if listen.is_empty() {
            let hint = format!("add one, such as \"{DEFAULT_LISTEN}\" or \"unix:desk.spice\"");
            self.bad(at!("spice", "listen"), "no listener", hint);
        }
        let listen = listen
            .into_iter()
            .enumerate()
            .map(|(index, listen)| self.listener(listen, at!("spice", "listen", index)))
            .collect();
        let (password, password_file) = self.password(spice);
        Some(SpiceSpec {
            listen,
            password,
            password_file,
        })
    }

    fn listener(&mut self, listen: Listen, place: JsonPath) -> Listen {
        match listen {
            Listen::Unix(path) => Listen::Unix(self.socket(&path, place)),
            tcp @ Listen::Tcp(_) => tcp,
        }
    }

    fn password(&mut self, spice: &Spice) -> (Option<Secret>, Option<PathBuf>) {
        let path = at!("spice");
        let (password, file) = match (&spice.password, &spice.password_file) {
            (Some(_), Some(_)) => {
                let hint = "keep one of `password` and `password_file`";
                self.bad(
                    path.then("password_file"),
                    "the password is given twice",
                    hint,
                );
                return (None, None);
            }
            (Some(password), None) => (Some(password.clone()), None),
            (None, Some(file)) => {
                let place = path.then("password_file");
                let full = self.file(file, place, "password file");
                let text = std::fs::read_to_string(&full).unwrap_or_default();
                (
                    Some(Secret::new(text.lines().next().unwrap_or(""))),
                    Some(full),
                )
            }
            (None, None) => (None, None),
        };
        match (spice.auth, &password) {
            (Some(Auth::Password), None) => {
                let hint = "add `password` or `password_file`";
                self.bad(path.then("auth"), "there is no password", hint);
            }
            (Some(Auth::None), Some(_)) => {
                let hint = "remove the password, or use \"auth\": \"password\"";
                self.bad(
                    path.then("auth"),
                    "a password is given, yet nobody is asked",
                    hint,
                );
            }
            (_, Some(password)) if !(1..=PASSWORD).contains(&password.reveal().len()) => {
                let key = if file.is_some() {
                    "password_file"
                } else {
                    "password"
                };
                let message = format!("the password has {} bytes", password.reveal().len());
                let mut problem = Problem::new(Kind::BadValue, path.then(key), message)
                    .hint(format!("use 1 to {PASSWORD} bytes"));
                problem.value = Some("***".to_owned());
                self.note(problem);
            }
            _ => {}
        }
        (password, file)
    }
}
