//! The descriptor of a vmdk image (VMware's "Virtual Disk Format 5.0"), cut down to what `imago`
//! knows, and the files that it names.

use std::path::{Component, Path};

/// The longest descriptor, in bytes; real ones have one or two thousand.
pub(crate) const MOST: u64 = 64 << 10;
/// What a sparse image begins with.
const SPARSE_MAGIC: &[u8; 4] = b"KDMV";
/// The keys of a descriptor that mean something to a reader.
const KEYS: [&str; 5] = [
    "version",
    "CID",
    "parentCID",
    "createType",
    "parentFileNameHint",
];
/// What a line that names a part of the disk begins with.
const EXTENTS: [&str; 3] = ["RW", "RDONLY", "NOACCESS"];

/// Why a descriptor can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// The disk is in the file itself.
    #[error(
        "it is a sparse vmdk image, of which only flat ones can be read; convert it with `qemu-img convert -O qcow2`"
    )]
    Sparse,
    /// Too long, no text, or without the line that must come first.
    #[error("it is no vmdk descriptor; say the right `format`")]
    NotVmdk,
    /// It is only the difference to another one.
    #[error("it is the difference to another image; convert it with `qemu-img convert -O qcow2`")]
    Delta,
    /// A file in some other folder.
    #[error("it names {0:?}, which is not a file beside it")]
    Elsewhere(String),
}

/// The lines of a descriptor that count.
///
/// # Errors
/// [`DescriptorError`].
pub(crate) fn descriptor(bytes: &[u8]) -> Result<String, DescriptorError> {
    if bytes.starts_with(SPARSE_MAGIC) {
        return Err(DescriptorError::Sparse);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| DescriptorError::NotVmdk)?;
    if !text.trim_start().starts_with("# Disk DescriptorFile") {
        return Err(DescriptorError::NotVmdk);
    }
    let mut counting = String::new();
    for line in text.lines() {
        let word = line.split(['=', ' ', '\t']).next().unwrap_or_default();
        if word == "parentFileNameHint" {
            return Err(DescriptorError::Delta);
        }
        if KEYS.contains(&word) || EXTENTS.contains(&word) {
            counting.push_str(line);
            counting.push('\n');
        }
    }
    Ok(counting)
}

/// Whether `name`, which a descriptor gives, is that of a file in its own folder.
///
/// # Errors
/// [`DescriptorError::Elsewhere`].
pub(crate) fn beside(name: &Path) -> Result<(), DescriptorError> {
    let mut parts = name.components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(_)), None) => Ok(()),
        _ => Err(DescriptorError::Elsewhere(name.display().to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_mean_nothing_to_a_reader_are_left_out() {
        let text = "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\n\
                    RW 8 FLAT \"a-flat.vmdk\" 0\nddb.toolsVersion = \"0\"\n";

        let counting = descriptor(text.as_bytes());

        assert_eq!(
            counting.unwrap(),
            "version=1\nRW 8 FLAT \"a-flat.vmdk\" 0\n"
        );
    }

    #[test]
    fn what_is_no_flat_image_is_refused() {
        let delta = b"# Disk DescriptorFile\nparentFileNameHint=\"b.vmdk\"\n";

        assert_eq!(descriptor(b"KDMV\x01\0\0\0"), Err(DescriptorError::Sparse));
        assert_eq!(descriptor(b"\xff\xfe"), Err(DescriptorError::NotVmdk));
        assert_eq!(descriptor(b"root:x:0:0"), Err(DescriptorError::NotVmdk));
        assert_eq!(descriptor(delta), Err(DescriptorError::Delta));
    }

    #[test]
    fn only_files_beside_the_descriptor_are_opened() {
        assert!(beside(Path::new("a-flat.vmdk")).is_ok());
        for name in ["/etc/shadow", "../a", "b/../../a", "a/b", ""] {
            assert!(beside(Path::new(name)).is_err(), "{name}");
        }
    }
}
