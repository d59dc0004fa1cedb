//! `spice`: who may connect, and where.

use std::path::{Path, PathBuf};

use caraway_spice::Console;

use super::Checker;
use crate::config::endpoint::Listen;
use crate::config::path::{JsonPath, at};
use crate::config::problem::{Kind, Problem};
use crate::config::spec::SpiceSpec;
use crate::config::spice::{Auth, Secret, Sharing, Spice};

const DEFAULT_LISTEN: &str = "127.0.0.1:5900";
/// `SPICE_MAX_PASSWORD_LENGTH` of spice-protocol.
const PASSWORD: usize = 60;
const DEFAULT_SESSIONS: u32 = 128;
const MOST_SESSIONS: u32 = 1024;

impl Checker<'_> {
    pub(super) fn spice(&mut self, spice: &Spice) -> Option<SpiceSpec> {
        let listen = match &spice.listen {
            None if spice.tls.is_some() => Vec::new(),
            None => vec![DEFAULT_LISTEN.parse().ok()?],
            Some(listen) => listen.clone(),
        };
        if listen.is_empty() && spice.tls.is_none() {
            let hint = format!("add one, such as \"{DEFAULT_LISTEN}\" or \"unix:desk.spice\"");
            self.bad(at!("spice", "listen"), "no listener", hint);
        }
        let listen = listen
            .into_iter()
            .enumerate()
            .map(|(index, listen)| self.listener(listen, at!("spice", "listen", index)))
            .collect();
        let (password, password_file) = self.password(spice);
        let sharing = spice.sharing.unwrap_or_default();
        if spice.on_connect.is_some() && sharing != Sharing::Exclusive {
            let message = "nobody is refused or put out where viewers share the display";
            let hint = "remove it, or use \"sharing\": \"exclusive\"";
            self.bad(at!("spice", "on_connect"), message, hint);
        }
        let tls = spice.tls.as_ref().map(|tls| self.tls(tls));
        let console = spice.console.as_ref().map(|folder| self.console(folder));
        Some(SpiceSpec {
            listen,
            auth: spice.auth.unwrap_or(match password {
                Some(_) => Auth::Password,
                None => Auth::None,
            }),
            password,
            password_file,
            sharing,
            on_connect: spice.on_connect.unwrap_or_default(),
            on_disconnect: spice.on_disconnect.unwrap_or_default(),
            max_sessions: self.max_sessions(spice.max_sessions),
            pipes: self.pipes(spice),
            tls,
            console,
            origins: spice.origins.clone(),
            clipboard: spice.clipboard.unwrap_or(true),
            file_transfer: spice.file_transfer.unwrap_or(true),
        })
    }

    fn max_sessions(&mut self, given: Option<u32>) -> u32 {
        let sessions = given.unwrap_or(DEFAULT_SESSIONS);
        if !(1..=MOST_SESSIONS).contains(&sessions) {
            let message = format!("{sessions} viewers at a time");
            let hint = format!("use 1 to {MOST_SESSIONS}");
            self.bad(at!("spice", "max_sessions"), message, hint);
        }
        sessions
    }

    fn listener(&mut self, listen: Listen, place: JsonPath) -> Listen {
        match listen {
            Listen::Unix(path) => Listen::Unix(self.socket(&path, place)),
            tcp @ Listen::Tcp(_) => tcp,
        }
    }

    fn console(&mut self, folder: &Path) -> PathBuf {
        let full = self.absolute(folder);
        if let Err(error) = Console::open(&full) {
            let message = format!("cannot use the console \"{}\": {error}", folder.display());
            let hint = "name the folder of a console for browsers: `apt install spice-html5` puts \
                        one into /usr/share/spice-html5";
            let place = at!("spice", "console");
            self.note(Problem::new(Kind::MissingFile, place, message).hint(hint));
        }
        full
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
            (Some(auth @ (Auth::None | Auth::Ticket)), Some(_)) => {
                let message = match auth {
                    Auth::None => "a password is given, yet nobody is asked",
                    _ => "a password is given, yet there is to be no ticket at first",
                };
                let hint = "remove the password, or use \"auth\": \"password\"";
                self.bad(path.then("auth"), message, hint);
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
