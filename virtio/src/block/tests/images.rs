//! qcow2 images, made by the library that reads them: what other programs say of them is for the
//! tests that have those.

use std::os::unix::fs::MetadataExt;

use imago::file::File as ImageFile;
use imago::qcow2::Qcow2;
use imago::{FormatCreateBuilder, FormatDriverBuilder, Storage, StorageCreateOptions};

use super::*;

const SIZE: u64 = 1 << 20;

/// An empty image of one MiB.
fn empty(folder: &Path) -> BlockConfig {
    let path = folder.join("a.qcow2");
    let options = StorageCreateOptions::new().filename(&path);
    let file = ImageFile::create_open(options).unwrap();
    let image = Qcow2::<ImageFile>::create_builder(file).size(SIZE);
    image.create().unwrap();
    BlockConfig::new(ImageConfig {
        path,
        format: ImageFormat::Qcow2,
    })
}

/// A disk on an image in a folder.
fn rig(folder: &TempDir) -> Rig {
    let machine = Machine::ready(open(&empty(folder.path())).unwrap());
    Rig {
        machine,
        image: NamedTempFile::new().unwrap(),
    }
}

/// The first bytes of the disk in the image, as someone sees them who opens it now.
fn seen_from_outside(folder: &TempDir, len: usize) -> Vec<u8> {
    let image = Qcow2::<ImageFile>::builder_path(folder.path().join("a.qcow2"));
    let image = image
        .open(imago::PermissiveImplicitOpenGate::default())
        .unwrap();
    let mut bytes = vec![0; len];
    imago::FormatAccess::new(image)
        .read(bytes.as_mut_slice(), 0)
        .unwrap();
    bytes
}

#[test]
fn a_qcow2_image_keeps_what_is_written() {
    let folder = TempDir::new().unwrap();
    let mut rig = rig(&folder);
    rig.machine.put(DATA, &[0xcc; 1024]);
    let segments = [readable(DATA, 512), readable(DATA + 512, 512)];
    let write = rig.request(OUT, 100, &segments);
    rig.machine.put(DATA, &[0; 1024]);

    let read = rig.request(IN, 100, &[writable(DATA, 1024)]);

    assert_eq!((write, read), ((OK, 1), (OK, 1025)));
    assert_eq!(rig.machine.get::<1024>(DATA), [0xcc; 1024]);
    assert_eq!(rig.machine.device().size(), SIZE);
}

#[test]
fn zeroes_and_discards_of_any_part_leave_the_neighbours_alone() {
    let folder = TempDir::new().unwrap();
    let mut rig = rig(&folder);
    rig.machine.put(DATA, &[0xcc; 0x1_0000]);
    for sector in (0..1024).step_by(128) {
        rig.request(OUT, sector, &[readable(DATA, 0x1_0000)]);
    }
    // From the middle of the first cluster to the middle of the third; the fifth whole.
    let zeroed = rig.range(WRITE_ZEROES, 64, 256, 1);
    let discarded = rig.range(DISCARD, 512, 128, 0);
    rig.request(FLUSH, 0, &[]);
    drop(rig);

    let bytes = seen_from_outside(&folder, 0x8_0000);
    let ranges = |wanted: u8| bytes.iter().filter(|&&byte| byte == wanted).count();

    assert_eq!((zeroed, discarded), (OK, OK));
    assert_eq!(bytes[64 * 512..320 * 512], [0; 256 * 512]);
    assert_eq!(bytes[512 * 512..640 * 512], [0; 128 * 512]);
    assert_eq!(ranges(0xcc), 0x8_0000 - 384 * 512);
}

#[test]
fn what_is_discarded_is_the_hosts_again() {
    let folder = TempDir::new().unwrap();
    let taken = || {
        std::fs::metadata(folder.path().join("a.qcow2"))
            .unwrap()
            .blocks()
            * 512
    };
    let mut rig = rig(&folder);
    rig.machine.put(DATA, &[0xcc; 0x1_0000]);
    for sector in (0..2048).step_by(128) {
        rig.request(OUT, sector, &[readable(DATA, 0x1_0000)]);
    }
    rig.request(FLUSH, 0, &[]);
    let full = taken();

    // All but the first and the last cluster, and of these some sectors; then the first by zeroes.
    let discarded = rig.range(DISCARD, 120, 1800 + 8, 0);
    let discarded = (discarded, full - taken());
    let zeroed = rig.range(WRITE_ZEROES, 0, 128, 1);
    let zeroed = (zeroed, full - taken());
    rig.request(FLUSH, 0, &[]);
    drop(rig);

    assert_eq!(discarded, (OK, 14 << 16));
    assert_eq!(zeroed, (OK, 15 << 16));
    let bytes = seen_from_outside(&folder, SIZE as usize);
    let kept = bytes.iter().filter(|&&byte| byte == 0xcc).count();
    assert_eq!(kept, 0x1_0000);
}

#[test]
fn what_is_not_flushed_is_in_no_table_and_what_is_flushed_is() {
    let folder = TempDir::new().unwrap();
    let mut rig = rig(&folder);
    rig.machine.put(DATA, &[0xcc; 512]);
    rig.submit(0, OUT, 0, &[readable(DATA, 512)]);
    rig.machine.notify(0);
    let answered = rig.machine.used(0).len();
    let before = seen_from_outside(&folder, 512);

    rig.request(FLUSH, 0, &[]);

    assert_eq!((answered, before), (1, vec![0; 512]));
    assert_eq!(seen_from_outside(&folder, 512), [0xcc; 512]);
}

#[test]
fn a_pause_leaves_the_image_as_it_was_written() {
    let folder = TempDir::new().unwrap();
    let mut rig = rig(&folder);
    rig.machine.put(DATA, &[0xcc; 512]);
    rig.request(OUT, 0, &[readable(DATA, 512)]);

    rig.machine.device().pause();

    assert_eq!(seen_from_outside(&folder, 512), [0xcc; 512]);
}

#[test]
fn a_qcow2_image_grows() {
    let folder = TempDir::new().unwrap();
    let mut rig = rig(&folder);

    // So far that it needs another L1 table.
    rig.machine.device().grow(64 << 30).unwrap();
    rig.machine.put(DATA, &[0xcc; 512]);
    let last = (64 << 30) / 512 - 1;
    let written = rig.request(OUT, last, &[readable(DATA, 512)]).0;
    drop(rig);
    let config = BlockConfig::new(ImageConfig {
        path: folder.path().join("a.qcow2"),
        format: ImageFormat::Qcow2,
    });

    assert_eq!(written, OK);
    assert_eq!(open(&config).unwrap().size(), 64 << 30);
}
