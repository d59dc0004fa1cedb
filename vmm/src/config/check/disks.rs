//! `disks`.

use super::Checker;
use crate::config::disk::{Disk, DiskFormat};
use crate::config::path::at;
use crate::config::spec::DiskSpec;

/// `VIRTIO_BLK_ID_BYTES` of virtio 1.2, 5.2.6.
const DISK_SERIAL: usize = 20;

impl Checker<'_> {
    pub(super) fn disks(&mut self, disks: &[Disk]) -> Vec<DiskSpec> {
        let specs = disks.iter().enumerate().filter_map(|(index, disk)| {
            let path = at!("disks", index);
            let id = self.id(&disk.id, &format!("disk{index}"), "disk", &path);
            let format = disk
                .format
                .unwrap_or_else(|| DiskFormat::of_path(&disk.path));
            if format != DiskFormat::Raw {
                self.unsupported(path.then("format"), &format!("{} images", format.word()));
            }
            let serial = disk
                .serial
                .clone()
                .unwrap_or_else(|| id.chars().take(DISK_SERIAL).collect());
            if serial.len() > DISK_SERIAL || !serial.is_ascii() {
                let message = format!("{serial:?} is not a disk's serial number");
                let hint = format!("use at most {DISK_SERIAL} ASCII characters");
                self.bad(path.then("serial"), message, hint);
            }
            Some(DiskSpec {
                id,
                address: self.address(disk.address, None, &path)?,
                path: self.file(&disk.path, path.then("path"), "disk"),
                format,
                readonly: disk.readonly.unwrap_or(false),
                serial,
            })
        });
        specs.collect()
    }
}
