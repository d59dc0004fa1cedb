//! The `display` thread: takes commands from the QXL rings, and looks at the VGA modes while
//! somebody watches.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use caraway_qxl::Qxl;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// How often the picture of a VGA mode is compared with the canvas.
const REFRESH: Duration = Duration::from_millis(30);
/// Which of the two descriptors is readable.
const STOP: u64 = 0;
const KICK: u64 = 1;

/// The running thread; ends with it.
pub struct DisplayThread {
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl DisplayThread {
    /// Starts it for `qxl`.
    ///
    /// # Errors
    /// The system's, if it has no descriptor or thread to give.
    pub fn start(qxl: Arc<Qxl>) -> std::io::Result<Self> {
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let epoll = Epoll::new()?;
        let watch = |fd: RawFd, token| {
            epoll.ctl(
                ControlOperation::Add,
                fd,
                EpollEvent::new(EventSet::IN, token),
            )
        };
        watch(stop.as_raw_fd(), STOP)?;
        watch(qxl.kick().as_raw_fd(), KICK)?;
        let thread = std::thread::Builder::new()
            .name("display".to_owned())
            .spawn(move || work(&epoll, &qxl))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

fn work(epoll: &Epoll, qxl: &Qxl) {
    let mut ready = [EpollEvent::default(); 2];
    loop {
        let patience = if qxl.wants_refresh() {
            REFRESH.as_millis() as i32
        } else {
            -1
        };
        let count = match epoll.wait(patience, &mut ready) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                tracing::error!(%error, "the display thread can't wait");
                return;
            }
        };
        let ready = &ready[..count];
        if ready.iter().any(|event| event.data() == STOP) {
            return;
        }
        if ready.iter().any(|event| event.data() == KICK) {
            // Only resets the counter: how often it was kicked does not matter.
            let _ = qxl.kick().read();
        }
        qxl.process();
        if qxl.wants_refresh() {
            qxl.refresh();
        }
    }
}

impl Drop for DisplayThread {
    fn drop(&mut self) {
        // The counter of an eventfd can't overflow by one write.
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
