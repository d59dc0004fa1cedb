//! The `devices` thread: one epoll loop for everything that is quick and waits for a descriptor.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Whether a source stays in the loop after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It stays.
    Yes,
    /// Its descriptor has nothing more to say.
    No,
}

/// Something to serve.
pub struct Source(Kind);

enum Kind {
    /// A descriptor and what to do when it is readable.
    Descriptor {
        fd: RawFd,
        action: Box<dyn FnMut() -> Keep + Send>,
    },
    /// Whatever looks after its own descriptors.
    Own(Box<dyn MutEventSubscriber + Send>),
}

impl Source {
    /// Calls `action` whenever `fd` is readable. `action` owns what `fd` is a number of, so that
    /// it stays open for as long as the source is there.
    pub fn new(fd: RawFd, action: impl FnMut() -> Keep + Send + 'static) -> Self {
        let action = Box::new(action);
        Self(Kind::Descriptor { fd, action })
    }

    /// What adds and removes its descriptors itself.
    pub fn own(subscriber: impl MutEventSubscriber + Send + 'static) -> Self {
        Self(Kind::Own(Box::new(subscriber)))
    }
}

impl MutEventSubscriber for Source {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        match &mut self.0 {
            Kind::Descriptor { fd, action } => {
                if action() == Keep::No
                    && let Err(error) = ops.remove(Events::empty_raw(*fd))
                {
                    tracing::warn!(fd, %error, "a descriptor could not leave the event loop");
                }
            }
            Kind::Own(subscriber) => subscriber.process(events, ops),
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        match &mut self.0 {
            Kind::Descriptor { fd, .. } => {
                if let Err(error) = ops.add(Events::new_raw(*fd, EventSet::IN)) {
                    tracing::warn!(fd, %error, "a descriptor could not join the event loop");
                }
            }
            Kind::Own(subscriber) => subscriber.init(ops),
        }
    }
}

/// The running loop; ends with it.
pub struct EventLoop {
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl EventLoop {
    /// Starts the thread `name` that serves `sources`.
    ///
    /// # Errors
    /// The system's, if it has no descriptor or thread to give.
    pub fn start(name: &str, sources: Vec<Source>) -> std::io::Result<Self> {
        let mut manager = EventManager::new().map_err(std::io::Error::other)?;
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let stopping = Arc::new(AtomicBool::new(false));
        for source in sources {
            manager.add_subscriber(source);
        }
        let stop_here = stop.try_clone()?;
        let stopping_there = Arc::clone(&stopping);
        manager.add_subscriber(Source::new(
            std::os::fd::AsRawFd::as_raw_fd(&stop),
            move || {
                let _ = stop_here.read();
                stopping_there.store(true, Ordering::Release);
                Keep::Yes
            },
        ));
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                while !stopping.load(Ordering::Acquire) {
                    if let Err(error) = manager.run() {
                        tracing::error!(%error, "the event loop failed");
                        return;
                    }
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        // The counter of an eventfd can't overflow by one write.
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::sync::mpsc;

    #[test]
    fn an_event_calls_its_action() {
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        let inside = event.try_clone().unwrap();
        let (tell, told) = mpsc::channel();
        let source = Source::new(event.as_raw_fd(), move || {
            tell.send(inside.read().unwrap()).unwrap();
            Keep::Yes
        });
        let _running = EventLoop::start("test", vec![source]).unwrap();

        event.write(3).unwrap();

        assert_eq!(told.recv().unwrap(), 3);
    }
}
