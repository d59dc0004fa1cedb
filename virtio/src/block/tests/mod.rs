mod damage;
mod images;
mod qcow2_file;
mod running;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Instant;

use caraway_devices::{FakeClock, Lifecycle, state_tests};
use proptest::prelude::*;
use tempfile::{NamedTempFile, TempDir};

use super::at_once::AtOnce;
use super::raw::SECTOR;
use super::*;
use crate::testing::*;
use crate::transport::VirtioPci;

const SECTORS: u64 = 256;
const HEADER: u64 = BUFFERS;
const DATA: u64 = BUFFERS + 0x1_0000;
const STATUS: u64 = BUFFERS + 0x8000;

const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

/// An image in which each byte of sector n is n.
fn image() -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    for sector in 0..SECTORS {
        file.write_all(&[sector as u8; SECTOR as usize]).unwrap();
    }
    file
}

fn config(path: &Path) -> BlockConfig {
    BlockConfig {
        serial: "disk-0".to_owned(),
        ..BlockConfig::new(ImageConfig {
            path: path.to_owned(),
            format: ImageFormat::Raw,
        })
    }
}

fn open(config: &BlockConfig) -> Result<Block, BlockError> {
    Block::open(config, FakeClock::new(0))
}

/// A disk that the guest has set up, and its image.
struct Rig {
    machine: Machine<Block>,
    image: NamedTempFile,
}

impl Rig {
    fn new(change: impl FnOnce(&mut BlockConfig)) -> Self {
        let image = image();
        let mut config = config(image.path());
        change(&mut config);
        let machine = Machine::ready(open(&config).unwrap());
        Self { machine, image }
    }

    /// A disk that gives the ring also what the page cache could do at once.
    fn through_the_ring(change: impl FnOnce(&mut BlockConfig)) -> Self {
        let rig = Self::new(change);
        for place in &rig.machine.device().lanes {
            place.lane.lock().at_once = AtOnce::never();
        }
        rig
    }

    /// Each engine, one after the other.
    fn each(mut test: impl FnMut(Self)) {
        test(Self::new(|config| config.synchronous = true));
        test(Self::new(|_| {}));
        test(Self::through_the_ring(|_| {}));
    }

    fn header(&self, kind: u32, sector: u64) {
        self.machine.put(HEADER, &kind.to_le_bytes());
        self.machine.put(HEADER + 8, &sector.to_le_bytes());
        self.machine.put(STATUS, &[0xff]);
    }

    /// Makes a request with `data` after the header available on `queue`.
    fn submit(&mut self, queue: u16, kind: u32, sector: u64, data: &[(u64, u32, bool)]) {
        self.header(kind, sector);
        let mut chain = vec![readable(HEADER, 16)];
        chain.extend(data);
        chain.push(writable(STATUS, 1));
        self.machine.submit(queue, &chain);
    }

    /// Sends a request with `data` after the header and gives its status and used length.
    fn request(&mut self, kind: u32, sector: u64, data: &[(u64, u32, bool)]) -> (u8, u32) {
        self.submit(0, kind, sector, data);
        self.machine.notify(0);
        self.settle();
        let used = self.machine.used(0);
        assert_eq!(used.len(), 1);
        let [status] = self.machine.get(STATUS);
        (status, used[0].1)
    }

    /// Waits for everything under way.
    fn settle(&self) {
        self.machine.device().pause();
        self.machine.device().resume();
    }

    fn on_disk(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let file = File::open(self.image.path()).unwrap();
        file.read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }

    /// A request for one range of sectors.
    fn range(&mut self, kind: u32, sector: u64, count: u32, flags: u32) -> u8 {
        let mut bytes = sector.to_le_bytes().to_vec();
        bytes.extend(count.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        self.machine.put(DATA, &bytes);
        self.request(kind, 0, &[readable(DATA, 16)]).0
    }
}

fn shared_image() -> &'static Path {
    static IMAGE: std::sync::OnceLock<NamedTempFile> = std::sync::OnceLock::new();
    IMAGE.get_or_init(image).path()
}

fn on_shared_image() -> VirtioPci<Block> {
    let mut config = config(shared_image());
    config.read_only = true;
    Arc::into_inner(Machine::new(open(&config).unwrap()).pci).unwrap()
}

state_tests!(state, on_shared_image(), |pci: &mut VirtioPci<Block>| {
    use caraway_devices::pci::PciFunction;
    pci.bar_write(4, reg::STATUS, &[1]);
});

#[test]
fn reads_give_what_is_on_the_disk() {
    Rig::each(|mut rig| {
        let answer = rig.request(IN, 3, &[writable(DATA, 512), writable(DATA + 512, 512)]);

        assert_eq!(answer, (OK, 1025));
        assert_eq!(rig.machine.get::<512>(DATA), [3; 512]);
        assert_eq!(rig.machine.get::<512>(DATA + 512), [4; 512]);
    });
}

#[test]
fn writes_reach_the_disk() {
    Rig::each(|mut rig| {
        rig.machine.put(DATA, &[0xaa; 1024]);

        let answer = rig.request(OUT, 7, &[readable(DATA, 1024)]);

        assert_eq!(answer, (OK, 1));
        assert_eq!(rig.on_disk(7 * 512, 1024), [0xaa; 1024]);
        assert_eq!(rig.on_disk(9 * 512, 1), [9]);
    });
}

#[test]
fn writes_reach_the_disk_without_the_flush_feature() {
    let image = image();
    let mut machine = Machine::new(open(&config(image.path())).unwrap());
    machine.probe(!feature::FLUSH);
    let mut rig = Rig { machine, image };
    rig.machine.put(DATA, &[0xaa; 512]);

    let answer = rig.request(OUT, 0, &[readable(DATA, 512)]);

    assert_eq!(answer, (OK, 1));
    assert_eq!(rig.on_disk(0, 512), [0xaa; 512]);
}

#[test]
fn flushes_succeed() {
    Rig::each(|mut rig| assert_eq!(rig.request(FLUSH, 0, &[]), (OK, 1)));
}

#[test]
fn the_serial_number_is_padded_with_zeroes() {
    Rig::each(|mut rig| {
        let answer = rig.request(GET_ID, 0, &[writable(DATA, 20)]);

        assert_eq!(answer, (OK, 21));
        assert_eq!(
            &rig.machine.get::<20>(DATA),
            b"disk-0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        );
    });
}

#[test]
fn zeroes_are_written() {
    Rig::each(|mut rig| {
        let status = rig.range(WRITE_ZEROES, 2, 3, 0);

        assert_eq!(status, OK);
        assert_eq!(rig.on_disk(2 * 512, 3 * 512), [0; 3 * 512]);
        assert_eq!(rig.on_disk(5 * 512, 1), [5]);
    });
}

#[test]
fn zeroes_that_may_unmap_are_written() {
    Rig::each(|mut rig| {
        let status = rig.range(WRITE_ZEROES, 8, 16, 1);

        assert_eq!(status, OK);
        assert_eq!(rig.on_disk(8 * 512, 16 * 512), [0; 16 * 512]);
    });
}

#[test]
fn discards_leave_the_size_and_the_neighbours_alone() {
    Rig::each(|mut rig| {
        let status = rig.range(DISCARD, 8, 8, 0);

        assert!(status == OK || status == UNSUPPORTED, "{status}");
        assert_eq!(rig.on_disk(7 * 512, 1), [7]);
        assert_eq!(rig.on_disk(16 * 512, 1), [16]);
        assert_eq!(fs::metadata(rig.image.path()).unwrap().len(), SECTORS * 512);
    });
}

#[test]
fn ranges_with_unknown_flags_are_unsupported() {
    Rig::each(|mut rig| {
        assert_eq!(rig.range(DISCARD, 0, 1, 1), UNSUPPORTED);
        assert_eq!(rig.range(WRITE_ZEROES, 0, 1, 2), UNSUPPORTED);
    });
}

#[test]
fn ranges_past_the_end_or_over_the_limit_are_errors() {
    Rig::each(|mut rig| {
        assert_eq!(rig.range(DISCARD, SECTORS, 1, 0), IO_ERROR);
        assert_eq!(rig.range(DISCARD, 0, 0, 0), IO_ERROR);
        assert_eq!(rig.range(WRITE_ZEROES, u64::MAX, u32::MAX, 0), IO_ERROR);
    });
}

#[test]
fn requests_past_the_end_are_errors() {
    Rig::each(|mut rig| {
        let data = [writable(DATA, 1024)];

        assert_eq!(rig.request(IN, SECTORS - 1, &data), (IO_ERROR, 1));
        assert_eq!(rig.request(IN, u64::MAX, &data), (IO_ERROR, 1));
    });
}

#[test]
fn requests_of_part_of_a_sector_are_errors() {
    Rig::each(|mut rig| {
        assert_eq!(rig.request(IN, 0, &[writable(DATA, 100)]), (IO_ERROR, 1));
    });
}

#[test]
fn unknown_requests_are_unsupported() {
    Rig::each(|mut rig| assert_eq!(rig.request(99, 0, &[]), (UNSUPPORTED, 1)));
}

#[test]
fn a_header_may_be_cut_anywhere() {
    let mut rig = Rig::new(|_| {});
    rig.header(OUT, 1);
    rig.machine.put(HEADER + 16, &[0xbb; 512]);
    rig.machine.submit(
        0,
        &[
            readable(HEADER, 5),
            readable(HEADER + 5, 100),
            readable(HEADER + 105, 423),
            writable(STATUS, 1),
        ],
    );

    rig.machine.notify(0);
    rig.settle();

    assert_eq!(rig.machine.get(STATUS), [OK]);
    assert_eq!(rig.on_disk(512, 512), [0xbb; 512]);
}

#[test]
fn a_status_may_follow_the_data_in_one_buffer() {
    let mut rig = Rig::new(|_| {});
    rig.header(IN, 5);
    rig.machine
        .submit(0, &[readable(HEADER, 16), writable(DATA, 513)]);

    rig.machine.notify(0);
    rig.settle();

    let bytes: [u8; 513] = rig.machine.get(DATA);
    assert_eq!(bytes[..512], [5; 512]);
    assert_eq!(bytes[512], OK);
}

#[test]
fn a_request_without_room_for_its_status_breaks_the_device() {
    let mut rig = Rig::new(|_| {});
    rig.machine.submit(0, &[readable(HEADER, 16)]);

    rig.machine.notify(0);

    assert_eq!(rig.machine.read8(reg::STATUS) & 0x40, 0x40);
}

#[test]
fn a_request_without_a_header_breaks_the_device() {
    let mut rig = Rig::new(|_| {});
    rig.machine
        .submit(0, &[readable(HEADER, 15), writable(STATUS, 1)]);

    rig.machine.notify(0);

    assert_eq!(rig.machine.read8(reg::STATUS) & 0x40, 0x40);
}

#[test]
fn a_read_only_disk_refuses_writes() {
    let mut rig = Rig::new(|config| config.read_only = true);

    let answer = rig.request(OUT, 0, &[readable(DATA, 512)]);

    assert_eq!(answer, (IO_ERROR, 1));
    assert_eq!(rig.machine.offered() & feature::RO, feature::RO);
    assert_eq!(rig.machine.offered() & feature::DISCARD, 0);
}

#[test]
fn a_file_that_shrank_gives_errors() {
    Rig::each(|mut rig| {
        let file = OpenOptions::new().write(true).open(rig.image.path());
        file.unwrap().set_len(512).unwrap();

        let answer = rig.request(IN, 0, &[writable(DATA, 1024)]);

        assert_eq!(answer, (IO_ERROR, 1));
    });
}

#[test]
fn direct_disks_take_buffers_of_any_alignment() {
    // Not every file system has O_DIRECT; then there is nothing to see.
    let image = image();
    let mut config = config(image.path());
    config.cache = CacheMode::None;
    let Ok(block) = open(&config) else {
        return;
    };
    let machine = Machine::ready(block);
    let mut rig = Rig { machine, image };

    let odd = rig.request(IN, 3, &[writable(DATA + 3, 512)]);
    let even = rig.request(IN, 8, &[writable(DATA + 0x1000, 4096)]);

    assert_eq!((odd, even), ((OK, 513), (OK, 4097)));
    assert_eq!(rig.machine.get::<512>(DATA + 3), [3; 512]);
    assert_eq!(rig.machine.get::<512>(DATA + 0x1000), [8; 512]);
}

#[test]
fn the_configuration_tells_size_and_limits() {
    let rig = Rig::new(|_| {});

    assert_eq!(rig.machine.read32(reg::DEVICE), SECTORS as u32);
    assert_eq!(rig.machine.read32(reg::DEVICE + 12), 254);
    assert_eq!(rig.machine.read32(reg::DEVICE + 20), 512);
    assert_eq!(rig.machine.device().size(), SECTORS * 512);
}

#[test]
fn what_the_page_cache_has_not_is_read_from_the_disk() {
    let mut rig = Rig::new(|_| {});
    let file = File::open(rig.image.path()).unwrap();
    for sector in [3, 200, 7, 255] {
        file.sync_all().unwrap();
        // SAFETY: numbers only.
        let dropped =
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        assert_eq!(dropped, 0);

        let answer = rig.request(IN, sector, &[writable(DATA, 512)]);

        assert_eq!(answer, (OK, 513));
        assert_eq!(rig.machine.get::<512>(DATA), [sector as u8; 512]);
    }
}

#[test]
fn more_requests_than_slots_are_all_answered() {
    Rig::each(|mut rig| {
        rig.header(IN, 1);
        let size = rig.machine.queues[0].size;
        for head in 0..size {
            // One chain of three descriptors, made available as often as the ring has room.
            if head == 0 {
                let chain = [
                    readable(HEADER, 16),
                    writable(DATA, 512),
                    writable(STATUS, 1),
                ];
                rig.machine.submit(0, &chain);
            } else {
                rig.machine.make_available(0, 0);
            }
        }

        rig.machine.notify(0);
        let mut answered = 0;
        while answered < usize::from(size) {
            rig.machine.pci.process_queue(0);
            answered += rig.machine.used(0).len();
        }

        assert_eq!(answered, usize::from(size));
    });
}

#[test]
fn a_paused_disk_takes_nothing_until_it_is_resumed() {
    let mut rig = Rig::new(|config| config.synchronous = true);
    rig.machine.device().pause();
    rig.submit(0, FLUSH, 0, &[]);
    rig.machine.notify(0);
    let while_paused = rig.machine.used(0).len();

    rig.machine.device().resume();
    rig.machine.pci.process_queue(0);

    assert_eq!(while_paused, 0);
    assert_eq!(rig.machine.used(0).len(), 1);
}

#[test]
fn a_reset_waits_for_what_is_under_way() {
    let mut rig = Rig::through_the_ring(|_| {});
    rig.submit(0, IN, 1, &[writable(DATA, 512)]);
    rig.machine.notify(0);

    rig.machine.write8(reg::STATUS, 0);

    assert_eq!(rig.machine.get(STATUS), [OK]);
}

#[test]
fn a_queue_reset_waits_for_what_is_under_way() {
    let mut rig = Rig::through_the_ring(|_| {});
    rig.submit(0, IN, 1, &[writable(DATA, 512)]);
    rig.machine.notify(0);
    rig.machine.write16(reg::QUEUE_SELECT, 0);

    rig.machine.write16(reg::QUEUE_RESET, 1);

    assert_eq!(rig.machine.get(STATUS), [OK]);
    assert_eq!(rig.machine.read16(reg::QUEUE_ENABLE), 0);
}

#[test]
fn a_worker_serves_until_it_is_stopped() {
    let mut rig = Rig::through_the_ring(|_| {});
    let (worker, stop) = BlockWorker::new(Arc::clone(&rig.machine.pci), 0).unwrap();
    let thread = thread::spawn(move || worker.run());
    rig.submit(0, IN, 9, &[writable(DATA, 512)]);
    rig.machine.write16(reg::NOTIFY, 0);
    while rig.machine.used(0).is_empty() {
        thread::yield_now();
    }

    stop.stop();
    let result = thread.join().unwrap();

    assert!(result.is_ok());
    assert_eq!(rig.machine.get::<512>(DATA), [9; 512]);
}

#[test]
fn a_worker_misses_no_request_however_long_the_driver_takes() {
    Rig::each(|mut rig| {
        let (worker, stop) = BlockWorker::new(Arc::clone(&rig.machine.pci), 0).unwrap();
        let thread = thread::spawn(move || worker.run());
        rig.header(IN, 7);
        let chain = [
            readable(HEADER, 16),
            writable(DATA, 512),
            writable(STATUS, 1),
        ];
        // Shorter and longer than the worker looks for the next request before it sleeps.
        let times = [0, 0, 0, 3, 8, 15, 0, 29, 31, 33, 60, 0, 5];
        let patience = Duration::from_secs(20);

        for time in times.map(Duration::from_micros).iter().cycle().take(3000) {
            let began = Instant::now();
            while began.elapsed() < *time {
                std::hint::spin_loop();
            }
            rig.machine.submit(0, &chain);
            rig.machine.notify_if_wanted(0);
            while rig.machine.used(0).is_empty() {
                assert!(began.elapsed() < patience, "a request is not answered");
                thread::yield_now();
            }
        }

        stop.stop();
        assert!(thread.join().unwrap().is_ok());
        assert_eq!(rig.machine.device().counts().reads, 3000);
    });
}

#[test]
fn a_writer_shuts_everyone_else_out_and_is_named() {
    let image = image();
    let _first = open(&config(image.path())).unwrap();

    let second = open(&config(image.path()));

    let Err(BlockError::InUse { holder, .. }) = second else {
        panic!("the image was opened twice");
    };
    assert_eq!(holder.unwrap().pid, std::process::id());
}

#[test]
fn readers_share_an_image_and_shut_writers_out() {
    let image = image();
    let mut reader = config(image.path());
    reader.read_only = true;
    let _first = open(&reader).unwrap();
    let _second = open(&reader).unwrap();

    let writer = open(&config(image.path()));

    assert!(matches!(writer, Err(BlockError::InUse { .. })));
}

#[test]
fn an_image_is_free_again_when_its_disk_is_gone() {
    let image = image();
    drop(open(&config(image.path())).unwrap());

    assert!(open(&config(image.path())).is_ok());
}

#[test]
fn a_missing_image_is_named() {
    let error = open(&config(Path::new("/nonexistent.img"))).err();

    assert!(error.unwrap().to_string().contains("/nonexistent.img"));
}

#[test]
fn a_directory_is_no_disk() {
    let folder = TempDir::new().unwrap();

    let error = open(&config(folder.path())).err().unwrap();

    assert!(matches!(
        error,
        BlockError::NotADisk {
            found: "directory",
            ..
        }
    ));
}

#[test]
fn an_image_without_a_whole_sector_is_no_disk() {
    let mut image = NamedTempFile::new().unwrap();
    image.write_all(&[0; 511]).unwrap();

    let error = open(&config(image.path())).err().unwrap();

    assert!(matches!(error, BlockError::TooSmall { size: 511, .. }));
}

#[test]
fn part_of_a_sector_at_the_end_is_not_seen() {
    let mut image = image();
    image.write_all(&[0; 100]).unwrap();

    let block = open(&config(image.path())).unwrap();

    assert_eq!(block.size(), SECTORS * 512);
}

#[test]
fn a_disk_of_another_size_is_not_restored_to() {
    let rig = Rig::new(|_| {});
    let saved = Lifecycle::save(&*rig.machine.pci).unwrap();
    let mut other = image();
    other.write_all(&[0; 512]).unwrap();
    let other = Machine::new(open(&config(other.path())).unwrap());

    assert!(Lifecycle::restore(&*other.pci, &saved).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_request_of_a_hostile_driver_reaches_past_the_disk(
        kind in prop_oneof![Just(IN), Just(OUT), Just(DISCARD), Just(WRITE_ZEROES), any::<u32>()],
        sector in prop_oneof![0..SECTORS + 2, any::<u64>()],
        lens in proptest::collection::vec((0u32..2048, any::<bool>()), 0..4),
        range in any::<[u8; 16]>(),
        ring in any::<bool>(),
    ) {
        let mut rig = if ring { Rig::through_the_ring(|_| {}) } else { Rig::new(|_| {}) };
        rig.header(kind, sector);
        rig.machine.put(DATA, &range);
        let mut chain = vec![readable(HEADER, 16)];
        chain.extend(lens.iter().map(|&(len, write)| (DATA, len, write)));
        chain.push(writable(STATUS, 1));
        rig.machine.submit(0, &chain);

        rig.machine.notify(0);
        rig.settle();

        prop_assert_eq!(fs::metadata(rig.image.path()).unwrap().len(), SECTORS * 512);
    }
}
