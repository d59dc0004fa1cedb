//! A tap of the host, whose frames go between the kernel and guest memory without a copy between.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use caraway_virtio::net::{Backend, Header, Offloads};
use smallvec::SmallVec;
use vm_memory::VolatileSlice;

use super::guest_vector;
use super::inherited::Inherited;

/// What the kernel makes taps from.
const NODE: &str = "/dev/net/tun";

/// Why a tap can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// There is no such interface.
    #[error("there is no network interface {0:?}")]
    Missing(String),
    /// The kernel's node can't be opened.
    #[error("cannot open {NODE}")]
    Node(#[source] io::Error),
    /// It is another's.
    #[error("no right to the tap {0:?}")]
    NotPermitted(String),
    /// Another program has it open.
    #[error("another program uses the tap {0:?}")]
    Busy(String),
    /// It is something else, or has fewer queues than are wanted.
    #[error("the network interface {name:?} is no tap{}", of_queues(*.queues))]
    Kind {
        /// Which interface.
        name: String,
        /// How many queues it should have.
        queues: u16,
    },
    /// The descriptor that was given is not one of a tap.
    #[error("the descriptor {0} is not that of a tap")]
    Descriptor(RawFd),
    /// The tap that was given was opened in another way than is needed.
    #[error(
        "the tap of the descriptor {0} was not opened with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR"
    )]
    Flags(RawFd),
    /// The kernel refuses something that every kernel of the last years does.
    #[error("the tap {name:?} refuses {what}")]
    Refused {
        /// Which tap.
        name: String,
        /// What was asked of it.
        what: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

fn of_queues(queues: u16) -> &'static str {
    match queues {
        1 => "",
        _ => " of several queues",
    }
}

impl TapError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        let make = |name: &str, more: &str| {
            format!(
                "have root make one: ip tuntap add {name} mode tap user $USER{more} && \
                 ip link set {name} up"
            )
        };
        match self {
            Self::Missing(name) | Self::NotPermitted(name) => {
                let made = make(name, "");
                format!("{made}; or use `\"user\": {{}}`, which needs no rights")
            }
            Self::Kind { name, queues: 1 } => make(&format!("another-than-{name}"), ""),
            Self::Kind { name, .. } => {
                let made = make(name, " multi_queue");
                format!("leave `queues` out, or {made}")
            }
            Self::Node(_) => format!(
                "modprobe tun; {NODE} should be readable and writable; or use `\"user\": {{}}`, which \
                 needs neither"
            ),
            Self::Busy(_) => "end that program, or give each machine a tap of its own".to_owned(),
            Self::Descriptor(_) => {
                "have whoever starts caraway open the tap and leave the descriptor open".to_owned()
            }
            Self::Flags(_) => "open it with these flags".to_owned(),
            Self::Refused { .. } => "`caraway doctor` says what this host lacks".to_owned(),
        }
    }
}

/// A frame's pieces, as the kernel takes them.
type Vectors = SmallVec<[libc::iovec; 4]>;

/// One queue of a tap.
pub struct Tap {
    file: File,
    has_siblings: bool,
    is_attached: bool,
}

impl Tap {
    /// Opens `queues` queues of the tap `name`, which must be there.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn open(name: &str, queues: u16) -> Result<Vec<Self>, TapError> {
        // The kernel would make one for those who may.
        let text = CString::new(name).map_err(|_| TapError::Missing(name.to_owned()))?;
        // SAFETY: `text` is a string that ends.
        if unsafe { libc::if_nametoindex(text.as_ptr()) } == 0 {
            return Err(TapError::Missing(name.to_owned()));
        }
        let taps: Vec<_> = (0..queues)
            .map(|_| Self::open_queue(name, queues))
            .collect::<Result<_, _>>()?;
        if !is_up(name) {
            tracing::warn!(tap = name, "the tap is down: ip link set {name} up");
        }
        Ok(taps)
    }

    fn open_queue(name: &str, queues: u16) -> Result<Self, TapError> {
        let mut how = OpenOptions::new();
        how.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let file = how.open(NODE).map_err(TapError::Node)?;
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        let several = flags | libc::IFF_MULTI_QUEUE;
        // A tap may have been made for several queues where one is wanted.
        let attempts = match queues {
            1 => &[flags, several][..],
            _ => &[several],
        };
        let mut attached = Ok(());
        for &flags in attempts {
            let mut request = interface(name);
            request.ifr_ifru.ifru_flags = flags as libc::c_short;
            attached = control(&file, libc::TUNSETIFF, &raw mut request);
            if !attached
                .as_ref()
                .is_err_and(|e| e.raw_os_error() == Some(libc::EINVAL))
            {
                break;
            }
        }
        let name = || name.to_owned();
        attached.map_err(|source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => TapError::NotPermitted(name()),
            Some(libc::EBUSY | libc::E2BIG) => TapError::Busy(name()),
            Some(libc::EINVAL) => TapError::Kind {
                name: name(),
                queues,
            },
            _ => TapError::Refused {
                name: name(),
                what: "to be opened",
                source,
            },
        })?;
        Self::prepare(file, &name(), queues > 1)
    }

    /// Takes over the tap that whoever started this program opened as descriptor `fd`.
    ///
    /// # Errors
    /// [`TapError`]; the descriptor is left alone then.
    pub fn adopt(fd: RawFd, inherited: &Inherited) -> Result<Self, TapError> {
        let mut request = interface("");
        let taken = inherited.take(fd, |tap| {
            control(&tap, libc::TUNGETIFF, &raw mut request)
                .map_err(|_| TapError::Descriptor(fd))?;
            // SAFETY: the kernel has filled the flags in.
            let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
            let wanted = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
            match flags & wanted == wanted {
                true => Ok(()),
                false => Err(TapError::Flags(fd)),
            }
        });
        let file = File::from(taken.unwrap_or(Err(TapError::Descriptor(fd)))?);
        let name: Vec<u8> = request.ifr_name.iter().map(|&c| c as u8).collect();
        let name = String::from_utf8_lossy(&name);
        let name = name.trim_end_matches('\0');
        for (command, value, what) in [
            (libc::F_SETFD, libc::FD_CLOEXEC, "FD_CLOEXEC"),
            (libc::F_SETFL, libc::O_NONBLOCK, "O_NONBLOCK"),
        ] {
            // SAFETY: these commands take a number.
            if unsafe { libc::fcntl(fd, command, value) } < 0 {
                return Err(TapError::Refused {
                    name: name.to_owned(),
                    what,
                    source: io::Error::last_os_error(),
                });
            }
        }
        Self::prepare(file, name, false)
    }

    fn prepare(file: File, name: &str, has_siblings: bool) -> Result<Self, TapError> {
        let mut size = Header::SIZE as libc::c_int;
        let mut yes: libc::c_int = 1;
        for (request, value, what) in [
            (libc::TUNSETVNETHDRSZ, &mut size, "TUNSETVNETHDRSZ"),
            (libc::TUNSETVNETLE, &mut yes, "TUNSETVNETLE"),
        ] {
            control(&file, request, &raw mut *value).map_err(|source| TapError::Refused {
                name: name.to_owned(),
                what,
                source,
            })?;
        }
        Ok(Self {
            file,
            has_siblings,
            is_attached: true,
        })
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Backend for Tap {
    fn offloads(&self) -> Offloads {
        Offloads::ALL
    }

    fn set_offloads(&mut self, guest: Offloads) {
        let bits = [
            (guest.checksum, libc::TUN_F_CSUM),
            (guest.tso4, libc::TUN_F_TSO4),
            (guest.tso6, libc::TUN_F_TSO6),
            (guest.ecn, libc::TUN_F_TSO_ECN),
        ];
        let wanted = bits.iter().filter(|(on, _)| *on).map(|(_, bit)| bit);
        // Segments without checksums make no sense to the kernel.
        let flags: libc::c_uint = if guest.checksum { wanted.sum() } else { 0 };
        // SAFETY: this request takes a number.
        let set = unsafe { libc::ioctl(self.as_raw_fd(), libc::TUNSETOFFLOAD, flags) };
        if set < 0 {
            let error = io::Error::last_os_error();
            tracing::warn!(%error, flags, "a tap does not take its offloads");
        }
    }

    fn set_used(&mut self, used: bool) {
        if !self.has_siblings || used == self.is_attached {
            return;
        }
        let mut request = interface("");
        let flags = match used {
            true => libc::IFF_ATTACH_QUEUE,
            false => libc::IFF_DETACH_QUEUE,
        };
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        match control(&self.file, libc::TUNSETQUEUE, &raw mut request) {
            Ok(()) => self.is_attached = used,
            Err(error) => tracing::warn!(%error, used, "a tap's queue does not move"),
        }
    }

    fn set_link(&mut self, up: bool) {
        let mut carrier = libc::c_int::from(up);
        // Kernels before 5.0 have no such request: the host then does not see what the guest sees.
        if let Err(error) = control(&self.file, libc::TUNSETCARRIER, &raw mut carrier) {
            tracing::debug!(%error, "a tap's carrier stays as it is");
        }
    }

    fn send(&mut self, header: Header, frame: &[VolatileSlice<'_>]) -> io::Result<()> {
        let mut header = header.to_bytes(0);
        let mut vectors = Vectors::with_capacity(frame.len() + 1);
        vectors.push(vector(&mut header));
        vectors.extend(frame.iter().map(guest_vector));
        let (fd, first, count) = (self.as_raw_fd(), vectors.as_ptr(), vectors.len());
        // SAFETY: the vectors are of `header` and of guest memory, both of which outlive the call.
        let written = unsafe { libc::writev(fd, first, count as libc::c_int) };
        match written {
            0.. => Ok(()),
            _ => Err(last_error()),
        }
    }

    fn receive(
        &mut self,
        room: &[VolatileSlice<'_>],
        spill: &mut [u8],
    ) -> io::Result<(Header, usize)> {
        let mut header = [0; Header::SIZE];
        let mut vectors = Vectors::with_capacity(room.len() + 2);
        vectors.push(vector(&mut header));
        vectors.extend(room.iter().map(guest_vector));
        vectors.push(vector(spill));
        let (fd, first, count) = (self.as_raw_fd(), vectors.as_ptr(), vectors.len());
        // SAFETY: the vectors are of `header`, `spill` and guest memory, which all outlive the call
        // and may be written.
        let read = unsafe { libc::readv(fd, first, count as libc::c_int) };
        let read = usize::try_from(read).map_err(|_| last_error())?;
        let length = read.checked_sub(Header::SIZE);
        let length = length.ok_or(io::ErrorKind::InvalidData)?;
        Ok((Header::from_bytes(&header), length))
    }
}

fn vector(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

/// What the kernel said, with the end of the tap as the device knows it.
fn last_error() -> io::Error {
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // Somebody removed the interface.
        Some(libc::EBADFD | libc::ENODEV) => {
            io::Error::new(io::ErrorKind::ConnectionReset, "the tap is gone")
        }
        _ => error,
    }
}

/// A request about the interface of this name, which is cut where the kernel cuts it.
fn interface(name: &str) -> libc::ifreq {
    // SAFETY: all zeroes is a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (target, byte) in request.ifr_name.iter_mut().zip(name.bytes().take(room)) {
        *target = byte as libc::c_char;
    }
    request
}

fn control<T>(file: &impl AsRawFd, request: libc::Ioctl, argument: *mut T) -> io::Result<()> {
    // SAFETY: every request here takes a pointer to what `argument` points to.
    match unsafe { libc::ioctl(file.as_raw_fd(), request, argument) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether an interface is up; it counts as such if nobody can tell.
fn is_up(name: &str) -> bool {
    let Ok(socket) = std::net::UdpSocket::bind("127.0.0.1:0") else {
        return true;
    };
    let mut request = interface(name);
    match control(&socket, libc::SIOCGIFFLAGS, &raw mut request) {
        // SAFETY: the kernel has filled the flags in.
        Ok(()) => i32::from(unsafe { request.ifr_ifru.ifru_flags }) & libc::IFF_UP != 0,
        Err(_) => true,
    }
}
