//! How a viewer finds the machine: the line to type, and the connection file of virt-viewer.

use std::path::Path;

use crate::command::{SecureViewer, Viewer};
use crate::config::endpoint::Listen;
use crate::config::tls::Channels;

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

/// The command that opens a viewer on `listen` by TLS, given the CA's file and the certificate's
/// subject.
#[must_use]
pub fn secure_viewer_line(listen: &Listen, ca: Option<&Path>, subject: &str) -> String {
    let ca = ca.map(|path| format!("--spice-ca-file={} ", quoted(&path.display().to_string())));
    let ca = ca.unwrap_or_default();
    let place = match listen {
        Listen::Tcp(address) => {
            format!(
                "spice://{}?tls-port={}",
                host(address, true),
                address.port()
            )
        }
        Listen::Unix(_) => uri(listen),
    };
    let subject = quoted(subject);
    format!("remote-viewer {ca}--spice-host-subject={subject} '{place}'")
}

/// For a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// What a browser opens to get to `listen`; `None` if it can't.
#[must_use]
pub fn url(scheme: &str, listen: &Listen) -> Option<String> {
    match listen {
        Listen::Tcp(address) => Some(format!(
            "{scheme}://{}:{}/",
            host(address, true),
            address.port()
        )),
        Listen::Unix(_) => None,
    }
}

/// The content of a `.vv` file (`remote-viewer(1)`, "CONNECTION FILE").
#[must_use]
pub fn file(viewer: &Viewer) -> String {
    let mut lines = vec!["[virt-viewer]".to_owned(), "type=spice".to_owned()];
    let mut add = |key: &str, value: &str| lines.push(format!("{key}={}", escape(value)));
    match (&viewer.tls, viewer.listeners.first()) {
        (Some(tls), _) => {
            add("host", &host(&tls.listen, false));
            // Where every channel wants TLS, a plain port would only cost a detour.
            if let Channels::Only(kinds) = &tls.channels {
                if let Some(port) = plain_port(viewer, tls) {
                    add("port", &port.to_string());
                }
                let names: Vec<String> = kinds.iter().map(ToString::to_string).collect();
                add("secure-channels", &names.join(";"));
            }
            add("tls-port", &tls.listen.port().to_string());
            add("host-subject", &tls.subject);
            if let Some(ca) = &tls.ca {
                add("ca", ca);
            }
        }
        (None, Some(Listen::Tcp(address))) => {
            add("host", &host(address, false));
            add("port", &address.port().to_string());
        }
        (None, Some(Listen::Unix(path))) => add("unix-path", &path.display().to_string()),
        (None, None) => {}
    }
    if let Some(password) = &viewer.password {
        add("password", password.reveal());
    }
    add("title", &viewer.title);
    lines.push(String::new());
    lines.join("\n")
}

/// The plain port beside `tls`, on the same host.
fn plain_port(viewer: &Viewer, tls: &SecureViewer) -> Option<u16> {
    viewer.listeners.iter().find_map(|listen| match listen {
        Listen::Tcp(plain) => (plain.ip() == tls.listen.ip()).then_some(plain.port()),
        Listen::Unix(_) => None,
    })
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
    use caraway_spice::ChannelKind;

    use super::*;
    use crate::config::spice::Secret;

    fn viewer(listen: &str, password: Option<&str>) -> Viewer {
        Viewer {
            title: "desk".into(),
            listeners: vec![listen.parse().unwrap()],
            tls: None,
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

    fn secured(channels: Channels) -> Viewer {
        Viewer {
            tls: Some(SecureViewer {
                listen: "0.0.0.0:5901".parse().unwrap(),
                subject: "C=US,CN=desk".into(),
                ca: Some("-----BEGIN\nabc\n".into()),
                channels,
            }),
            ..viewer("0.0.0.0:5900", None)
        }
    }

    #[test]
    fn tls_for_all_leaves_the_plain_port_out() {
        let text = file(&secured(Channels::All));

        assert_eq!(
            text,
            "[virt-viewer]\ntype=spice\nhost=127.0.0.1\ntls-port=5901\n\
             host-subject=C=US,CN=desk\nca=-----BEGIN\\nabc\\n\ntitle=desk\n"
        );
    }

    #[test]
    fn tls_for_some_channels_names_them() {
        let channels = vec![ChannelKind::Main, ChannelKind::Inputs];

        let text = file(&secured(Channels::Only(channels)));

        assert!(
            text.contains("\nport=5900\nsecure-channels=main;inputs\ntls-port=5901\n"),
            "{text}"
        );
    }

    #[test]
    fn the_line_for_tls_can_be_pasted() {
        let listen = "[::1]:5901".parse().unwrap();

        let line = secure_viewer_line(&listen, Some(Path::new("/k/it's.pem")), "O=a b,CN=c");

        let expected = "remote-viewer --spice-ca-file='/k/it'\\''s.pem' \
                        --spice-host-subject='O=a b,CN=c' 'spice://[::1]?tls-port=5901'";
        assert_eq!(line, expected);
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
