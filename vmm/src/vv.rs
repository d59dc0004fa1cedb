//! How a viewer finds the machine: the line to type, and the connection file of virt-viewer.

use std::fmt::Write;

use crate::command::Viewer;
use crate::config::endpoint::Listen;

/// The address that `listen` has in a viewer: `spice://127.0.0.1:5900`, `spice+unix:///run/x`.
#[must_use]
pub fn uri(listen: &Listen) -> String {
    match listen {
        Listen::Tcp(address) => format!("spice://{}:{}", host(address, true), address.port()),
        Listen::Unix(path) => format!("spice+unix://{}", path.display()),
    }
}

/// The command that opens a viewer on `listen`.
#[must_use]
pub fn viewer_line(listen: &Listen) -> String {
    format!("remote-viewer {}", uri(listen))
}

/// The content of a `.vv` file (`remote-viewer(1)`, "CONNECTION FILE").
#[must_use]
pub fn file(viewer: &Viewer) -> String {
    let mut text = String::from("[virt-viewer]\ntype=spice\n");
    // Writing to a string can't fail.
    let _ = match viewer.listeners.first() {
        Some(Listen::Tcp(address)) => {
            writeln!(
                text,
                "host={}\nport={}",
                host(address, false),
                address.port()
            )
        }
        Some(Listen::Unix(path)) => {
            writeln!(text, "unix-path={}", escape(&path.display().to_string()))
        }
        None => Ok(()),
    };
    if let Some(password) = &viewer.password {
        let _ = writeln!(text, "password={}", escape(password.reveal()));
    }
    let _ = writeln!(text, "title={}", escape(&viewer.title));
    text
}

/// The host to connect to: one that listens everywhere is reached on the loopback.
fn host(address: &std::net::SocketAddr, brackets: bool) -> String {
    match address {
        std::net::SocketAddr::V4(v4) if v4.ip().is_unspecified() => "127.0.0.1".to_owned(),
        std::net::SocketAddr::V4(v4) => v4.ip().to_string(),
        std::net::SocketAddr::V6(v6) => {
            let ip = match v6.ip().is_unspecified() {
                true => "::1".to_owned(),
                false => v6.ip().to_string(),
            };
            if brackets { format!("[{ip}]") } else { ip }
        }
    }
}

/// As GKeyFile reads strings: `\s` for a leading space, `\n`, `\t`, `\r`, `\\`.
fn escape(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('\t', "\\t")
        .replace('\r', "\\r");
    match escaped.strip_prefix(' ') {
        Some(rest) => format!("\\s{rest}"),
        None => escaped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::spice::Secret;

    fn viewer(listen: &str, password: Option<&str>) -> Viewer {
        Viewer {
            title: "desk".into(),
            listeners: vec![listen.parse().unwrap()],
            password: password.map(Secret::new),
        }
    }

    #[test]
    fn a_port_becomes_host_and_port() {
        let text = file(&viewer("[::]:5901", Some("a\\b")));

        assert_eq!(
            text,
            "[virt-viewer]\ntype=spice\nhost=::1\nport=5901\npassword=a\\\\b\ntitle=desk\n"
        );
    }

    #[test]
    fn a_socket_becomes_a_path() {
        let text = file(&viewer("unix:/run/desk.spice", None));

        assert_eq!(
            text,
            "[virt-viewer]\ntype=spice\nunix-path=/run/desk.spice\ntitle=desk\n"
        );
    }

    #[test]
    fn the_viewers_line_can_be_pasted() {
        for (listen, line) in [
            ("0.0.0.0:5900", "remote-viewer spice://127.0.0.1:5900"),
            ("[::1]:5900", "remote-viewer spice://[::1]:5900"),
            ("unix:/run/x", "remote-viewer spice+unix:///run/x"),
        ] {
            assert_eq!(viewer_line(&listen.parse().unwrap()), line);
        }
    }
}
