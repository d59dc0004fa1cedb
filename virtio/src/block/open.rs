//! Opens a disk's image with everything under it, and locks every file of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imago::format::builder::FormatDriverBuilder;
use imago::format::gate::ImplicitOpenGate;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::vmdk::Vmdk;
use imago::{DenyImplicitOpenGate, FormatAccess, StorageOpenOptions};

use super::config::{BlockConfig, ImageConfig, ImageFormat};
use super::image::Image;
use super::layer::{Journal, Layer};
use super::layered::{Access, Layered, Writer};
use super::lock::{self, Holder};
use super::qcow2::{self, Qcow2Error};
use super::raw::{DIRECT_ALIGNMENT, RawImage, SECTOR};
use super::vmdk::{self, DescriptorError};

/// Why a disk could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// It can't be opened, or its size can't be had.
    #[error("the disk image {path:?} can't be opened")]
    Open {
        /// The image.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is neither a regular file nor a block device.
    #[error("{path:?} is a {found}; a disk image is a regular file or a block device")]
    NotADisk {
        /// The image.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// It has no whole sector.
    #[error("the disk image {path:?} has {size} bytes; the smallest disk is one sector of 512")]
    TooSmall {
        /// The image.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// Someone else uses it.
    #[error(
        "the disk image {path:?} is in use by {}; stop that first, or open it read-only in both",
        .holder.as_ref().map_or_else(|| "another process".to_owned(), ToString::to_string)
    )]
    InUse {
        /// The image.
        path: PathBuf,
        /// Who, if that can be found out.
        holder: Option<Holder>,
    },
    /// It can't be locked.
    #[error("the disk image {path:?} can't be locked")]
    Lock {
        /// The image.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is under itself.
    #[error("the disk image {path:?} is twice in one chain of images; name each file once")]
    Twice {
        /// The image, as it is named the second time.
        path: PathBuf,
    },
    /// Its qcow2 header or tables can't be used.
    #[error("the disk image {path:?} can't be used as qcow2: {source}")]
    Qcow2 {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: Qcow2Error,
    },
    /// Its vmdk descriptor can't be used.
    #[error("the disk image {path:?} can't be used as vmdk: {source}")]
    Vmdk {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: DescriptorError,
    },
    /// Something deeper in it is wrong.
    #[error("the {format} image {path:?} is damaged, or uses what is not known here")]
    Damaged {
        /// The image.
        path: PathBuf,
        /// How it is stored.
        format: &'static str,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// It needs a backing file that the config does not name.
    #[error(
        "the disk image {path:?} has the backing file {name:?}, which no config key allows it to open; \
         add it to `backing` of the disk"
    )]
    BackingNotNamed {
        /// The image.
        path: PathBuf,
        /// The name in its header.
        name: String,
    },
    /// The config names a backing file that it does not need.
    #[error("the disk image {path:?} has no backing file; remove {backing:?} from `backing`")]
    NoBacking {
        /// The image.
        path: PathBuf,
        /// The file that the config names.
        backing: PathBuf,
    },
    /// It is to be written, and can't be.
    #[error(
        "{format} images can only be read; give the disk `\"readonly\": true`, or convert {path:?}"
    )]
    OnlyRead {
        /// The image.
        path: PathBuf,
        /// How it is stored.
        format: &'static str,
    },
    /// Its clusters are too small to go past the page cache.
    #[error(
        "the disk image {path:?} has clusters of {cluster} bytes; to go past the host's page cache they \
         must have 4096 at least: choose another `cache`"
    )]
    SmallClusters {
        /// The image.
        path: PathBuf,
        /// Bytes of a cluster.
        cluster: u64,
    },
}

/// The files that are open for one disk.
#[derive(Default)]
struct Opened {
    identities: Vec<(u64, u64)>,
}

/// A file of an image, locked for as long as it is open.
struct Locked {
    file: File,
    /// The same through the page cache, if `file` goes past it.
    buffered: Option<File>,
}

/// Opens the image of `config`.
pub(crate) fn open(config: &BlockConfig) -> Result<Image, BlockError> {
    let mut opened = Opened::default();
    let (direct, read_only) = (config.cache.is_direct(), config.read_only);
    let top = &config.image;
    if top.format == ImageFormat::Raw {
        if let Some(backing) = config.backing.first() {
            return Err(BlockError::NoBacking {
                path: top.path.clone(),
                backing: backing.path.clone(),
            });
        }
        let Locked { file, buffered } = opened.open(&top.path, read_only, direct)?;
        return RawImage::new(&top.path, file, buffered, read_only).map(Image::Raw);
    }
    if top.format == ImageFormat::Vmdk && !read_only {
        return Err(BlockError::OnlyRead {
            path: top.path.clone(),
            format: "vmdk",
        });
    }
    let (access, writer) = opened.chain(top, &config.backing, !read_only, direct)?;
    let image = Layered::new(access, writer);
    let size = image.size();
    if size < SECTOR {
        return Err(BlockError::TooSmall {
            path: top.path.clone(),
            size,
        });
    }
    Ok(Image::Layered(Box::new(image)))
}

impl Opened {
    /// Opens `path`, locks it and makes sure that it is opened for the first time.
    fn open(&mut self, path: &Path, read_only: bool, direct: bool) -> Result<Locked, BlockError> {
        let cant_open = |source| BlockError::Open {
            path: path.to_owned(),
            source,
        };
        let metadata = std::fs::metadata(path).map_err(cant_open)?;
        if let Some(found) = wrong_kind(metadata.file_type()) {
            return Err(BlockError::NotADisk {
                path: path.to_owned(),
                found,
            });
        }
        let identity = (metadata.dev(), metadata.ino());
        if self.identities.contains(&identity) {
            return Err(BlockError::Twice {
                path: path.to_owned(),
            });
        }
        let open = |flags| {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(!read_only).custom_flags(flags);
            options.open(path).map_err(cant_open)
        };
        let file = open(if direct { libc::O_DIRECT } else { 0 })?;
        let buffered = direct.then(|| open(0)).transpose()?;
        match lock::lock(&file, read_only) {
            Ok(true) => {}
            Ok(false) => {
                return Err(BlockError::InUse {
                    path: path.to_owned(),
                    holder: lock::holder(&file),
                });
            }
            Err(source) => {
                return Err(BlockError::Lock {
                    path: path.to_owned(),
                    source,
                });
            }
        }
        self.identities.push(identity);
        Ok(Locked { file, buffered })
    }

    /// Opens `image` on top of `below`.
    fn chain(
        &mut self,
        image: &ImageConfig,
        below: &[ImageConfig],
        writable: bool,
        direct: bool,
    ) -> Result<(Access, Option<Writer>), BlockError> {
        if image.format != ImageFormat::Qcow2
            && let Some(backing) = below.first()
        {
            return Err(BlockError::NoBacking {
                path: image.path.clone(),
                backing: backing.path.clone(),
            });
        }
        match image.format {
            ImageFormat::Raw => self.raw(image, direct).map(|access| (access, None)),
            ImageFormat::Vmdk => self.vmdk(image, direct).map(|access| (access, None)),
            ImageFormat::Qcow2 => self.qcow2(image, below, writable, direct),
        }
    }

    /// A raw image under another one.
    fn raw(&mut self, image: &ImageConfig, direct: bool) -> Result<Access, BlockError> {
        let Locked { file, .. } = self.open(&image.path, true, direct)?;
        let layer = Layer::file(Arc::new(file), alignment(direct));
        let raw = Raw::builder(layer).open(DenyImplicitOpenGate::default());
        raw.map(FormatAccess::new)
            .map_err(|source| damaged(image, source))
    }

    fn qcow2(
        &mut self,
        image: &ImageConfig,
        below: &[ImageConfig],
        writable: bool,
        direct: bool,
    ) -> Result<(Access, Option<Writer>), BlockError> {
        let Locked { file, buffered } = self.open(&image.path, !writable, direct)?;
        let tables = match buffered {
            Some(buffered) => buffered,
            None => file.try_clone().map_err(|source| BlockError::Open {
                path: image.path.clone(),
                source,
            })?,
        };
        let header = qcow2::read(&tables, writable).map_err(|source| BlockError::Open {
            path: image.path.clone(),
            source,
        })?;
        let header = header.map_err(|source| BlockError::Qcow2 {
            path: image.path.clone(),
            source,
        })?;
        if direct && header.cluster() < DIRECT_ALIGNMENT {
            return Err(BlockError::SmallClusters {
                path: image.path.clone(),
                cluster: header.cluster(),
            });
        }
        let backing = match (&header.backing, below.split_first()) {
            (None, None) => None,
            (Some(_), Some((next, rest))) => Some(self.chain(next, rest, false, direct)?.0),
            (Some(name), None) => {
                return Err(BlockError::BackingNotNamed {
                    path: image.path.clone(),
                    name: name.clone(),
                });
            }
            (None, Some((next, _))) => {
                return Err(BlockError::NoBacking {
                    path: image.path.clone(),
                    backing: next.path.clone(),
                });
            }
        };
        let file = Arc::new(file);
        let journal = Journal::new(Arc::new(tables));
        let data = Layer::file(Arc::clone(&file), alignment(direct));
        let qcow2 = Qcow2::<Layer>::builder(Layer::journaled(Arc::clone(&journal)))
            .write(writable)
            .backing(backing)
            .data_file(Some(data))
            .open(DenyImplicitOpenGate::default())
            .map_err(|source| damaged(image, source))?;
        let cluster = header.cluster();
        let writer = writable.then_some(Writer {
            journal,
            file,
            cluster,
        });
        Ok((FormatAccess::new(qcow2), writer))
    }

    fn vmdk(&mut self, image: &ImageConfig, direct: bool) -> Result<Access, BlockError> {
        let Locked { file, .. } = self.open(&image.path, true, false)?;
        let wrong = |source| BlockError::Vmdk {
            path: image.path.clone(),
            source,
        };
        let mut text = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(&file, vmdk::MOST + 1), &mut text).map_err(
            |source| BlockError::Open {
                path: image.path.clone(),
                source,
            },
        )?;
        if text.len() as u64 > vmdk::MOST && !text.starts_with(b"KDMV") {
            return Err(wrong(DescriptorError::NotVmdk));
        }
        let text = vmdk::descriptor(&text).map_err(wrong)?;
        let mut refused = None;
        let gate = Beside {
            opened: self,
            folder: image.path.parent().unwrap_or(Path::new("")),
            descriptor: &image.path,
            direct,
            refused: &mut refused,
        };
        let vmdk = Vmdk::<Layer>::builder(Layer::text(text.into_bytes())).open(gate);
        match (vmdk, refused) {
            (_, Some(refused)) => Err(refused),
            (Ok(vmdk), None) => Ok(FormatAccess::new(vmdk)),
            (Err(source), None) => Err(damaged(image, source)),
        }
    }
}

/// Opens the files beside a vmdk descriptor, and no other.
struct Beside<'a> {
    opened: &'a mut Opened,
    folder: &'a Path,
    descriptor: &'a Path,
    direct: bool,
    /// Why a file was not opened: `imago` only passes an [`io::Error`] on.
    refused: &'a mut Option<BlockError>,
}

impl ImplicitOpenGate<Layer> for Beside<'_> {
    fn open_format<F: FormatDriverBuilder<Layer>>(&mut self, _: F) -> io::Result<Access> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn open_storage(&mut self, options: StorageOpenOptions) -> io::Result<Layer> {
        let name = options.get_filename().unwrap_or(Path::new(""));
        let opened = vmdk::beside(name)
            .map_err(|source| BlockError::Vmdk {
                path: self.descriptor.to_owned(),
                source,
            })
            .and_then(|()| self.opened.open(&self.folder.join(name), true, self.direct));
        match opened {
            Ok(Locked { file, .. }) => Ok(Layer::file(Arc::new(file), alignment(self.direct))),
            Err(error) => {
                *self.refused = Some(error);
                Err(io::ErrorKind::PermissionDenied.into())
            }
        }
    }
}

fn alignment(direct: bool) -> usize {
    if direct { DIRECT_ALIGNMENT as usize } else { 1 }
}

fn damaged(image: &ImageConfig, source: io::Error) -> BlockError {
    BlockError::Damaged {
        path: image.path.clone(),
        format: image.format.word(),
        source,
    }
}

fn wrong_kind(kind: std::fs::FileType) -> Option<&'static str> {
    if kind.is_file() || kind.is_block_device() {
        None
    } else if kind.is_dir() {
        Some("directory")
    } else if kind.is_char_device() {
        Some("character device")
    } else if kind.is_fifo() {
        Some("pipe")
    } else {
        Some("socket")
    }
}
