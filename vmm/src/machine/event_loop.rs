//! The `devices` thread: one epoll loop for everything that is quick and waits for a descriptor.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use event_manager::{
    EventManager, EventOps, Events, MutEventSubscriber, SubscriberId, SubscriberOps,
};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

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

/// What the loop is told between two rounds.
enum Order {
    /// Serve these too, under this number.
    Serve(u64, Vec<Source>),
    /// Serve those of this number no longer; the sender is dropped once they are gone.
    Leave(u64, Sender<()>),
    /// End.
    End,
}

/// Tells the loop.
#[derive(Clone)]
struct Orders {
    sender: Sender<Order>,
    bell: Arc<EventFd>,
}

impl Orders {
    fn give(&self, order: Order) {
        // A loop that has ended serves nothing anyway.
        let _ = self.sender.send(order);
        // The counter of an eventfd that is read can't overflow.
        let _ = self.bell.write(1);
    }
}

/// The running loop; ends with it.
pub struct EventLoop {
    orders: Orders,
    served: AtomicU64,
    thread: Option<JoinHandle<()>>,
}

impl EventLoop {
    /// Starts the thread `name` that serves `sources` until the end.
    ///
    /// # Errors
    /// The system's, if it has no descriptor or thread to give.
    pub fn start(name: &str, sources: Vec<Source>) -> std::io::Result<Self> {
        let mut manager = EventManager::new().map_err(std::io::Error::other)?;
        let (sender, receiver) = mpsc::channel();
        let bell = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        for source in sources {
            manager.add_subscriber(source);
        }
        let heard = Arc::clone(&bell);
        manager.add_subscriber(Source::new(bell.as_raw_fd(), move || {
            // What it rang for is looked at after each round.
            let _ = heard.read();
            Keep::Yes
        }));
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&mut manager, &receiver))?;
        Ok(Self {
            orders: Orders { sender, bell },
            served: AtomicU64::new(0),
            thread: Some(thread),
        })
    }

    /// Serves `sources` too, for as long as the returned value is there.
    pub fn serve(&self, sources: Vec<Source>) -> Served {
        let number = self.served.fetch_add(1, Ordering::Relaxed);
        self.orders.give(Order::Serve(number, sources));
        Served {
            number,
            orders: self.orders.clone(),
        }
    }
}

fn run(manager: &mut EventManager<Source>, orders: &Receiver<Order>) {
    let mut groups: BTreeMap<u64, Vec<SubscriberId>> = BTreeMap::new();
    loop {
        if let Err(error) = manager.run() {
            tracing::error!(%error, "the event loop failed");
            return;
        }
        for order in orders.try_iter() {
            match order {
                Order::Serve(number, sources) => {
                    let sources = sources.into_iter();
                    let ids = sources.map(|source| manager.add_subscriber(source));
                    groups.insert(number, ids.collect());
                }
                Order::Leave(number, _done) => {
                    for id in groups.remove(&number).unwrap_or_default() {
                        // Nobody else takes it out.
                        let _ = manager.remove_subscriber(id);
                    }
                }
                Order::End => return,
            }
        }
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        self.orders.give(Order::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sources that came into a running loop. Dropped, it waits until they are out of it and what they
/// owned is let go. That must not be on the loop's own thread.
pub struct Served {
    number: u64,
    orders: Orders,
}

impl Drop for Served {
    fn drop(&mut self) {
        let (done, gone) = mpsc::channel();
        self.orders.give(Order::Leave(self.number, done));
        // Nothing is ever sent: it ends when the loop drops its end.
        let _ = gone.recv();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that tells what it reads, and the event to write to.
    fn source() -> (Source, EventFd, Receiver<u64>) {
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        let inside = event.try_clone().unwrap();
        let (tell, told) = mpsc::channel();
        let source = Source::new(inside.as_raw_fd(), move || {
            tell.send(inside.read().unwrap()).unwrap();
            Keep::Yes
        });
        (source, event, told)
    }

    #[test]
    fn an_event_calls_its_action() {
        let (source, event, told) = source();
        let _running = EventLoop::start("test", vec![source]).unwrap();

        event.write(3).unwrap();

        assert_eq!(told.recv().unwrap(), 3);
    }

    #[test]
    fn what_comes_later_is_served_until_it_goes() {
        let running = EventLoop::start("test", Vec::new()).unwrap();
        let (source, event, told) = source();

        let served = running.serve(vec![source]);
        event.write(5).unwrap();
        let heard = told.recv();
        drop(served);
        event.write(7).unwrap();

        assert_eq!(heard, Ok(5));
        // The source is gone when `drop` returns, so its end of the channel is too.
        assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }

    #[test]
    fn what_is_still_served_may_outlive_the_loop() {
        let running = EventLoop::start("test", Vec::new()).unwrap();
        let (source, _event, told) = source();
        let served = running.serve(vec![source]);

        drop(running);
        drop(served);

        assert_eq!(told.recv(), Err(mpsc::RecvError));
    }
}
