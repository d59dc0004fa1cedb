//! `vsock`.

use super::Checker;
use crate::config::path::at;
use crate::config::vsock::{Vsock, VsockSpec};

/// 0 and 1 are reserved, 2 is the host, and the last one means any (virtio 1.2, 5.10.4).
const CIDS: std::ops::RangeInclusive<u32> = 3..=u32::MAX - 1;
/// `_4294967295`, which the path of a port's socket has behind it.
const SUFFIX: usize = 11;
/// `sockaddr_un` has room for 108 bytes with the final zero.
const SOCKET_PATH: usize = 107;

impl Checker<'_> {
    pub(super) fn vsock(&mut self, vsock: &Vsock) -> Option<VsockSpec> {
        let path = at!("vsock");
        if !CIDS.contains(&vsock.cid) {
            let message = format!("{} is not a guest's context id", vsock.cid);
            let hint = format!("use {} to {}", CIDS.start(), CIDS.end());
            self.bad(path.then("cid"), message, hint);
        }
        let socket = self.socket(&vsock.to.0, path.then("to"));
        let length = socket.as_os_str().len();
        if (SOCKET_PATH - SUFFIX + 1..=SOCKET_PATH).contains(&length) {
            let message = format!(
                "the socket path \"{}\" has {length} bytes; those of its ports would be too long",
                socket.display()
            );
            let hint = format!("use at most {} bytes", SOCKET_PATH - SUFFIX);
            self.bad(path.then("to"), message, hint);
        }
        Some(VsockSpec {
            id: self.id(&vsock.id, "vsock", "vsock", &path),
            address: self.address(vsock.address, None, &path)?,
            cid: vsock.cid,
            path: socket,
        })
    }
}
