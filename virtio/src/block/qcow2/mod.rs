//! qcow2 images (QEMU's `docs/interop/qcow2.txt`), checked before anything acts on what they say;
//! `imago` does the rest.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;

mod header;
mod tables;

pub(crate) use header::Header;

/// Why an image can't be used; what to do about it is part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Qcow2Error {
    /// Another kind of file.
    #[error("it does not begin as a qcow2 image does; say the right `format`")]
    NotQcow2,
    /// Neither version 2 nor 3.
    #[error("its version is {0}; only 2 and 3 are known")]
    Version(u32),
    /// A number that makes no sense.
    #[error("its {field} is {value}, which makes no sense: the image is damaged")]
    Field {
        /// Which.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A table that is not in the file.
    #[error("its {0} lies past the end of the file: the image is damaged or cut off")]
    Cut(&'static str),
    /// Something of it is where it can't be.
    #[error(
        "its {what} at byte {offset} of the file {why}: the image is damaged; \
         `qemu-img check -r all` may repair it, and `\"readonly\": true` shows what is left"
    )]
    Misplaced {
        /// What.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// Why it can't be there.
        why: &'static str,
    },
    /// Something that Caraway can't do.
    #[error("it {0}")]
    Unsupported(&'static str),
    /// Something that forbids writing.
    #[error("it {0}; a disk with `\"readonly\": true` may have that")]
    ReadOnly(&'static str),
}

/// Bytes of `file`, which may be a block device.
fn length(file: &File) -> io::Result<u64> {
    Ok(rustix::fs::seek(file, SeekFrom::End(0))?)
}

/// Reads into `buffer` what the file has from `offset` on; how many bytes that is.
fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(now) => filled += now,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads and checks the header of `file`, and all tables of one that is to be opened for writing.
pub(crate) fn read(file: &File, writable: bool) -> io::Result<Result<Header, Qcow2Error>> {
    let header = match Header::read(file, writable)? {
        Ok(header) => header,
        Err(error) => return Ok(Err(error)),
    };
    let tables = match writable {
        true => tables::check(file, &header)?,
        false => Ok(()),
    };
    Ok(tables.map(|()| header))
}
