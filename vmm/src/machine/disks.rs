//! Disks: opened from the config, served by threads of their own, changed while they run.

use std::sync::Arc;
use std::thread::JoinHandle;

use caraway_devices::{Clock, RealClock};
use caraway_virtio::block::{
    BlockCounts, BlockEvents, BlockFailure, ImageConfig, Limits, ResizeError, WorkerStop,
};
use caraway_virtio::{Block, BlockConfig, BlockError, BlockWorker, VirtioPci};

use super::virtio::{AttachError, Slots};
use crate::config::{DiskSpec, ImageSpec};
use crate::exit::{Exit, Failure};
use crate::metrics::Metrics;

/// Told what a disk's threads see, with the disk's id.
pub type DiskFailed = Arc<dyn Fn(&str, BlockFailure) + Send + Sync>;

/// Opens and locks all images of `specs`.
///
/// # Errors
/// An image can't be used.
pub fn open(specs: &[DiskSpec], clock: &Arc<RealClock>) -> Result<Vec<Block>, Failure> {
    let open = |(index, spec): (usize, &DiskSpec)| {
        open_one(spec, clock)
            .map_err(|error| Failure::of(Exit::Resource, &error).context(format!("disks[{index}]")))
    };
    specs.iter().enumerate().map(open).collect()
}

/// Opens and locks the images of a disk.
///
/// # Errors
/// An image can't be used.
pub fn open_one(spec: &DiskSpec, clock: &Arc<RealClock>) -> Result<Block, BlockError> {
    let clock: Arc<dyn Clock> = clock.clone();
    Block::open(&config(spec), clock)
}

fn config(spec: &DiskSpec) -> BlockConfig {
    let image = |image: &ImageSpec| ImageConfig {
        path: image.path.clone(),
        format: image.format.into(),
    };
    BlockConfig {
        backing: spec.backing.iter().map(image).collect(),
        read_only: spec.readonly,
        serial: spec.serial.clone(),
        cache: spec.cache.into(),
        queues: spec.queues,
        discard: spec.discard,
        limits: spec.limits,
        on_error: spec.on_error,
        ..BlockConfig::new(image(&spec.image))
    }
}

/// Tells a disk's failures with its id.
struct Reporter {
    id: String,
    failed: DiskFailed,
}

impl BlockEvents for Reporter {
    fn failed(&self, failure: BlockFailure) {
        (self.failed)(&self.id, failure);
    }
}

/// A disk with its running threads `blkN`, one a queue. It ends with them, once everything under
/// way is answered.
pub struct RunningDisk {
    disk: Arc<VirtioPci<Block>>,
    threads: Vec<(WorkerStop, Option<JoinHandle<()>>)>,
}

impl RunningDisk {
    /// Puts the disk `index` at `address`.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn start(
        slots: &mut Slots<'_>,
        index: usize,
        spec: &DiskSpec,
        disk: Block,
        failed: DiskFailed,
    ) -> Result<Self, AttachError> {
        disk.report_to(Arc::new(Reporter {
            id: spec.id.clone(),
            failed,
        }));
        let pci = slots.attach(spec.address, Arc::new(disk))?;
        let mut running = Self {
            disk: pci,
            threads: Vec::new(),
        };
        for queue in 0..spec.queues {
            let failed = |source| AttachError::Thread { index, source };
            let (worker, stop) =
                BlockWorker::new(Arc::clone(&running.disk), queue).map_err(failed)?;
            let name = match queue {
                0 => format!("blk{index}"),
                more => format!("blk{index}q{more}"),
            };
            let thread = std::thread::Builder::new()
                .name(name)
                .spawn(move || {
                    if let Err(error) = worker.run() {
                        tracing::error!(index, queue, %error, "the disk is not served any more");
                    }
                })
                .map_err(failed)?;
            running.threads.push((stop, Some(thread)));
        }
        Ok(running)
    }

    /// Waits until nothing is under way, and starts nothing until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.disk.device().pause();
    }

    /// Goes on.
    pub fn resume(&self) {
        self.disk.device().resume();
    }

    /// What others may do with it while it runs.
    #[must_use]
    pub fn handle(&self) -> DiskHandle {
        DiskHandle(Arc::clone(&self.disk))
    }
}

impl Drop for RunningDisk {
    fn drop(&mut self) {
        for (stop, _) in &self.threads {
            stop.stop();
        }
        for (_, thread) in &mut self.threads {
            if let Some(thread) = thread.take() {
                let _ = thread.join();
            }
        }
    }
}

/// What may be done with a disk while it runs, from any thread.
#[derive(Clone)]
pub struct DiskHandle(Arc<VirtioPci<Block>>);

impl DiskHandle {
    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.device().size()
    }

    /// What it has done so far.
    #[must_use]
    pub fn counts(&self) -> BlockCounts {
        self.0.device().counts()
    }

    /// From now on these limits hold.
    pub fn limit(&self, limits: Limits) {
        self.0.device().limit(limits);
    }

    /// Makes it `bytes` long and tells the guest. May wait for the host.
    ///
    /// # Errors
    /// [`ResizeError`].
    pub fn grow(&self, bytes: u64) -> Result<(), ResizeError> {
        self.0.device().grow(bytes)?;
        self.0.config_changed();
        Ok(())
    }

    /// Shows what it does.
    pub fn export(&self, metrics: &Metrics, id: &str) {
        for (name, help, number) in COUNTS {
            let disk = Arc::clone(self.0.device());
            metrics.counter_of(name, help, &[("disk", id)], move || number(&disk.counts()));
        }
        let disk = Arc::clone(self.0.device());
        let help = "Bytes that the disk has.";
        metrics.gauge_of("disk_size_bytes", help, &[("disk", id)], move || {
            disk.size()
        });
    }
}

type Count = (&'static str, &'static str, fn(&BlockCounts) -> u64);

const COUNTS: [Count; 8] = [
    ("disk_reads_total", "Reads answered.", |c| c.reads),
    ("disk_read_bytes_total", "Bytes that reads gave.", |c| {
        c.read_bytes
    }),
    ("disk_writes_total", "Writes answered.", |c| c.writes),
    ("disk_written_bytes_total", "Bytes that writes took.", |c| {
        c.written_bytes
    }),
    ("disk_flushes_total", "Flushes answered.", |c| c.flushes),
    ("disk_discards_total", "Discards answered.", |c| c.discards),
    (
        "disk_errors_total",
        "Requests that the host could not do.",
        |c| c.errors,
    ),
    (
        "disk_throttled_total",
        "How often requests had to wait for the disk's limits.",
        |c| c.throttled,
    ),
];
