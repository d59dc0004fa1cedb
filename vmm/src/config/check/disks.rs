//! `disks`.

use caraway_virtio::block::MAX_QUEUES;

use super::Checker;
use crate::config::disk::{BackingImage, Disk, DiskFormat};
use crate::config::path::{JsonPath, at};
use crate::config::spec::{DiskSpec, ImageSpec};

/// `VIRTIO_BLK_ID_BYTES` of virtio 1.2, 5.2.6.
const DISK_SERIAL: usize = 20;
/// The most images under a disk's own.
const MOST_BACKING: usize = 32;

impl Checker<'_> {
    pub(super) fn disks(&mut self, disks: &[Disk]) -> Vec<DiskSpec> {
        let specs = disks
            .iter()
            .enumerate()
            .filter_map(|(index, disk)| self.disk(disk, index, at!("disks", index)));
        specs.collect()
    }

    /// The disk at `path`, which is number `index`.
    pub(super) fn disk(&mut self, disk: &Disk, index: usize, path: JsonPath) -> Option<DiskSpec> {
        let id = self.id(&disk.id, &format!("disk{index}"), "disk", &path);
        let format = disk
            .format
            .unwrap_or_else(|| DiskFormat::of_path(&disk.path));
        let readonly = disk.readonly.unwrap_or(false);
        if format == DiskFormat::Vmdk && !readonly {
            let message = "a vmdk image can only be read";
            let hint = "add `\"readonly\": true`, or convert it with `qemu-img convert -O qcow2`";
            self.bad(path.then("readonly"), message, hint);
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
        let queues = disk.queues.unwrap_or(1);
        if !(1..=MAX_QUEUES).contains(&queues) {
            let message = format!("a disk can't have {queues} queues");
            self.bad(
                path.then("queues"),
                message,
                format!("use 1 to {MAX_QUEUES}"),
            );
        }
        let limits = disk.limits.unwrap_or_default().checked();
        let limits = limits.unwrap_or_else(|error| {
            let place = path.then("limits").then(error.key());
            self.bad(
                place,
                error.to_string(),
                "`caraway schema` says what it takes",
            );
            Default::default()
        });
        Some(DiskSpec {
            address: self.address(disk.address, None, &path)?,
            image: ImageSpec {
                path: self.file(&disk.path, path.then("path"), "disk"),
                format,
            },
            backing: self.backing(&disk.backing, format, &path.then("backing")),
            id,
            readonly,
            serial,
            cache: disk.cache.unwrap_or_default(),
            queues,
            discard: disk.discard.unwrap_or(true),
            limits,
            on_error: disk.on_error.unwrap_or_default().policy(),
        })
    }

    fn backing(
        &mut self,
        images: &[BackingImage],
        mut above: DiskFormat,
        path: &JsonPath,
    ) -> Vec<ImageSpec> {
        if images.len() > MOST_BACKING {
            let message = format!("{} images are too many under one disk", images.len());
            self.bad(path.clone(), message, format!("use at most {MOST_BACKING}"));
        }
        let mut specs = Vec::new();
        for (index, image) in images.iter().enumerate().take(MOST_BACKING) {
            let place = path.then(index);
            if above != DiskFormat::Qcow2 {
                let message = format!("a {} image has none under it", above.word());
                let hint = "only qcow2 images have backing files; remove it";
                self.bad(place.clone(), message, hint);
            }
            above = image
                .format
                .unwrap_or_else(|| DiskFormat::of_path(&image.path));
            specs.push(ImageSpec {
                path: self.file(&image.path, place.then("path"), "backing file"),
                format: above,
            });
        }
        specs
    }
}
