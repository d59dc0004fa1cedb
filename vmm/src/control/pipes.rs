//! Ports, shared folders and USB slots of the SPICE server, each joined to a Unix socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use caraway_spice::{Devices, Pipe, Port};
use tokio::net::UnixListener;

use crate::config::MachineSpec;
use crate::config::pipe::PipesSpec;
use crate::exit::{Exit, Failure};
use crate::socket::SocketFile;

/// How long to wait when the system has no room for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// All pipes, their sockets bound.
#[derive(Default)]
pub(super) struct Pipes {
    ports: Vec<Port>,
    webdav: Option<Arc<Pipe>>,
    usb_slots: Vec<Arc<Pipe>>,
    joints: Vec<Joint>,
}

impl Pipes {
    /// Binds the sockets that the config names.
    ///
    /// # Errors
    /// One is in use or can't be made; those bound before are gone again.
    pub(super) fn bind(spec: &MachineSpec) -> Result<Self, Failure> {
        let Some(spice) = &spec.spice else {
            return Ok(Self::default());
        };
        let PipesSpec {
            ports,
            webdav,
            usb_redirection,
        } = &spice.pipes;
        let mut pipes = Self::default();
        for (index, (name, path)) in ports.iter().enumerate() {
            let pipe = pipes.join(path, false, || format!("spice.ports[{index}].to"))?;
            let name = name.clone();
            pipes.ports.push(Port { name, pipe });
        }
        if let Some(path) = webdav {
            // spice-webdavd speaks with one client after the other; it must know where one ends.
            let pipe = pipes.join(path, true, || "spice.webdav".to_owned())?;
            pipes.webdav = Some(pipe);
        }
        for (index, path) in usb_redirection.iter().enumerate() {
            let pipe = pipes.join(path, true, || format!("spice.usb_redirection[{index}]"))?;
            pipes.usb_slots.push(pipe);
        }
        Ok(pipes)
    }

    fn join(
        &mut self,
        path: &Path,
        one_client: bool,
        place: impl Fn() -> String,
    ) -> Result<Arc<Pipe>, Failure> {
        let socket = SocketFile::bind(path)
            .map_err(|error| Failure::of(Exit::Resource, &error).context(place()))?;
        let pipe = Pipe::new();
        self.joints.push(Joint {
            socket,
            pipe: pipe.clone(),
            one_client,
        });
        Ok(pipe)
    }

    /// Gives them to a server.
    pub(super) fn add_to(&self, devices: Devices) -> Devices {
        Devices {
            ports: self.ports.clone(),
            webdav: self.webdav.clone(),
            usb_slots: self.usb_slots.clone(),
            ..devices
        }
    }

    /// Those that are to be served.
    pub(super) fn into_joints(self) -> Vec<Joint> {
        self.joints
    }
}

/// A socket and the pipe that whoever connects to it is joined to.
pub(super) struct Joint {
    socket: SocketFile,
    pipe: Arc<Pipe>,
    one_client: bool,
}

impl Joint {
    /// Serves one program after the other, for ever; those that come meanwhile wait.
    ///
    /// # Errors
    /// The runtime cannot drive the socket.
    pub(super) async fn serve(self) -> std::io::Result<()> {
        let listener = UnixListener::from_std(self.socket.listener()?)?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    if let Err(error) = self.pipe.relay(stream, self.one_client).await {
                        let socket = self.socket.path();
                        tracing::debug!(?socket, %error, "a pipe's program vanished");
                    }
                }
                Err(error) => {
                    let socket = self.socket.path();
                    tracing::warn!(?socket, %error, "cannot take a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
