//! What happened to the machine: a bounded log that can be followed and replayed.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::config::disk::{DiskErrorAction, DiskLimits};
use crate::config::policy::OnResume;
use crate::device::Asked;

/// Records that are kept for those who come late or fall behind.
pub const CAPACITY: usize = 1024;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event")]
#[non_exhaustive]
pub enum Event {
    /// The vCPUs run for the first time.
    #[serde(rename = "vm.started")]
    Started,
    /// The vCPUs stopped.
    #[serde(rename = "vm.paused")]
    Paused,
    /// The vCPUs run again.
    #[serde(rename = "vm.resumed")]
    Resumed {
        /// Milliseconds that they stood still, or that the machine waited for its first instruction.
        paused_ms: u64,
        /// What the guest's time did.
        clock: OnResume,
    },
    /// The host was asleep while the machine ran.
    #[serde(rename = "host.slept")]
    HostSlept {
        /// Milliseconds.
        slept_ms: u64,
        /// What the guest's time did.
        clock: OnResume,
    },
    /// The machine starts anew.
    #[serde(rename = "vm.reset")]
    Reset {
        /// Who asked.
        by: Origin,
    },
    /// The guest was told that it goes on from a copy of itself.
    #[serde(rename = "vm.generation")]
    GenerationRenewed {
        /// Its VM generation id from now on.
        generation: String,
    },
    /// The machine ends.
    #[serde(rename = "vm.shutdown")]
    Shutdown {
        /// Why, as [`Exit::word`](crate::exit::Exit::word) says it.
        reason: String,
        /// The exit code.
        code: u8,
    },
    /// The guest set its CMOS clock.
    #[serde(rename = "clock.changed")]
    ClockChanged {
        /// Milliseconds that it is ahead of the host's UTC now; negative if behind.
        offset_ms: i64,
        /// By how many of these the guest moved it.
        step_ms: i64,
    },
    /// The guest's kernel says that it panicked.
    #[serde(rename = "guest.panicked")]
    Panicked,
    /// A viewer connected.
    #[serde(rename = "spice.connected")]
    SpiceConnected {
        /// The session's number.
        session: u32,
        /// Where it comes from.
        peer: String,
        /// The id of its ticket, if the machine asks for tickets.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ticket: Option<String>,
    },
    /// A viewer went away.
    #[serde(rename = "spice.disconnected")]
    SpiceDisconnected {
        /// The session's number.
        session: u32,
        /// Where it came from.
        peer: String,
        /// Why.
        reason: String,
    },
    /// A viewer was not let in.
    #[serde(rename = "spice.refused")]
    SpiceRefused {
        /// Where it came from.
        peer: String,
        /// Why, as a word that stays the same: `wrong-ticket`, `expired-ticket`, …
        code: String,
        /// Why, in words.
        reason: String,
        /// The id of the ticket that it came with, if that opens nothing any more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ticket: Option<String>,
    },
    /// Somebody may connect by one more ticket.
    #[serde(rename = "ticket.added")]
    TicketAdded {
        /// The ticket's id.
        id: String,
        /// Whose it is.
        label: String,
    },
    /// Nobody may connect by this ticket any more.
    #[serde(rename = "ticket.revoked")]
    TicketRevoked {
        /// The ticket's id.
        id: String,
    },
    /// New connections are shown another certificate from here on.
    #[serde(rename = "spice.tls-reloaded")]
    TlsReloaded {
        /// Its subject.
        subject: String,
        /// When its time is over: UTC, RFC 3339.
        expires: String,
    },
    /// What the guest shows has another size now.
    #[serde(rename = "display.mode")]
    DisplayMode {
        /// Pixels across; 0 if it shows nothing.
        width: u32,
        /// Pixels down; 0 if it shows nothing.
        height: u32,
    },
    /// There is a device in a slot that was free, and the guest was told.
    #[serde(rename = "device.added")]
    DeviceAdded {
        /// The device's id.
        id: String,
        /// The PCI address of the slot's root port.
        slot: String,
    },
    /// The guest took a device that was added.
    #[serde(rename = "device.accepted")]
    DeviceAccepted {
        /// The device's id.
        id: String,
    },
    /// The guest could not use a device that was added.
    #[serde(rename = "device.refused")]
    DeviceRefused {
        /// The device's id.
        id: String,
    },
    /// The guest has said nothing for ten seconds about a device that was added, or that it was asked to
    /// let go; it may still do so.
    #[serde(rename = "device.unanswered")]
    DeviceUnanswered {
        /// The device's id.
        id: String,
        /// What the guest was asked.
        asked: Asked,
    },
    /// The guest let a device go, and nothing of it is left: its files are free.
    #[serde(rename = "device.removed")]
    DeviceRemoved {
        /// The device's id.
        id: String,
    },
    /// The host could not do what the guest asked of a disk.
    #[serde(rename = "disk.error")]
    DiskError {
        /// The disk's id.
        id: String,
        /// What failed, where, and what the host said.
        message: String,
        /// Whether the host has no room left.
        no_space: bool,
        /// What became of the request: the guest was told, or it waits for `vm.resume`.
        action: DiskErrorAction,
    },
    /// A disk has another size, and the guest was told.
    #[serde(rename = "disk.resized")]
    DiskResized {
        /// The disk's id.
        id: String,
        /// Its size in bytes.
        size: u64,
    },
    /// A disk has other limits.
    #[serde(rename = "disk.limited")]
    DiskLimited {
        /// The disk's id.
        id: String,
        /// What they are now.
        limits: DiskLimits,
    },
    /// A network card's cable was put in or pulled, or its other end is gone or there again.
    #[serde(rename = "net.link")]
    NetLink {
        /// The card's id.
        id: String,
        /// Whether the guest has a link now.
        up: bool,
        /// Why, if nobody asked for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The reader fell behind: the records in between are gone.
    #[serde(rename = "events.lost")]
    Lost {
        /// How many.
        count: u64,
    },
}

/// Who asked for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The guest.
    Guest,
    /// Whoever holds the API or the terminal.
    Host,
}

/// An event with its number and times; one line of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Record {
    /// Counts up from 1 without gaps.
    pub seq: u64,
    /// Nanoseconds of the host's `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
    /// The host's wall clock in UTC, RFC 3339.
    pub time: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

impl Record {
    fn new(seq: u64, event: Event) -> Self {
        Self {
            seq,
            monotonic_ns: monotonic_ns(),
            time: jiff::Timestamp::now().to_string(),
            event,
        }
    }

    /// The record as one line of JSON, newline included.
    #[must_use]
    pub fn to_line(&self) -> String {
        // A record is text and numbers only: nothing in it can fail to become JSON.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}

fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid timespec to write to, and the clock id is a constant.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// The last [`CAPACITY`] records, and whoever waits for the next.
pub struct EventLog {
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
}

struct Ring {
    records: VecDeque<Arc<Record>>,
    next: u64,
    file: Option<std::fs::File>,
}

impl Default for EventLog {
    fn default() -> Self {
        Self::new(None)
    }
}

impl EventLog {
    /// An empty log; every record is also written to `file`, one line each.
    #[must_use]
    pub fn new(file: Option<std::fs::File>) -> Self {
        Self {
            ring: Mutex::new(Ring {
                records: VecDeque::new(),
                next: 1,
                file,
            }),
            newest: watch::Sender::new(0),
        }
    }

    /// Notes that something happened; never waits for a reader.
    pub fn emit(&self, event: Event) {
        let mut ring = self.ring.lock();
        let record = Record::new(ring.next, event);
        tracing::info!(seq = record.seq, event = ?record.event, "event");
        if let Some(file) = &mut ring.file
            && let Err(error) = file.write_all(record.to_line().as_bytes())
        {
            tracing::warn!(%error, "the events file takes no more");
            ring.file = None;
        }
        ring.next += 1;
        if ring.records.len() == CAPACITY {
            ring.records.pop_front();
        }
        ring.records.push_back(Arc::new(record));
        let newest = ring.next - 1;
        drop(ring);
        self.newest.send_replace(newest);
    }

    /// Follows the log: every record after number `since`, or only what comes from now on.
    #[must_use]
    pub fn follow(self: &Arc<Self>, since: Option<u64>) -> Follower {
        let newest = self.newest.subscribe();
        let seen = since.unwrap_or_else(|| self.ring.lock().next - 1);
        Follower {
            log: Arc::clone(self),
            newest,
            seen,
        }
    }

    /// The number of the newest record; 0 if there is none.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.ring.lock().next - 1
    }

    fn after(&self, seen: u64) -> Vec<Arc<Record>> {
        let ring = self.ring.lock();
        let oldest = ring.records.front().map_or(ring.next, |record| record.seq);
        let lost = oldest.saturating_sub(seen.saturating_add(1));
        let gap =
            (lost > 0).then(|| Arc::new(Record::new(oldest - 1, Event::Lost { count: lost })));
        let skip = usize::try_from((seen + 1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        gap.into_iter()
            .chain(ring.records.iter().skip(skip).cloned())
            .collect()
    }
}

/// Reads an [`EventLog`] in order, at its own pace.
pub struct Follower {
    log: Arc<EventLog>,
    newest: watch::Receiver<u64>,
    seen: u64,
}

impl Follower {
    /// The records that came since the last call, without waiting. If some are gone already,
    /// [`Event::Lost`] stands in their place.
    pub fn take(&mut self) -> Vec<Arc<Record>> {
        self.newest.mark_unchanged();
        // A number from the future (of an earlier run, say) would wait for ever.
        self.seen = self.seen.min(self.log.newest());
        let records = self.log.after(self.seen);
        if let Some(last) = records.last() {
            self.seen = last.seq;
        }
        records
    }

    /// As [`take`](Self::take), but waits until there is at least one.
    pub async fn next(&mut self) -> Vec<Arc<Record>> {
        loop {
            let records = self.take();
            // The log holds the sender, and this holds the log: `changed` can't fail.
            if !records.is_empty() || self.newest.changed().await.is_err() {
                return records;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(count: usize) -> Arc<EventLog> {
        let log = Arc::new(EventLog::default());
        for _ in 0..count {
            log.emit(Event::Paused);
        }
        log
    }

    fn numbers(records: &[Arc<Record>]) -> Vec<u64> {
        records.iter().map(|record| record.seq).collect()
    }

    #[test]
    fn a_follower_sees_only_what_comes() {
        let log = log_of(3);
        let mut follower = log.follow(None);

        log.emit(Event::Started);

        assert_eq!(numbers(&follower.take()), [4]);
        assert!(follower.take().is_empty());
    }

    #[test]
    fn the_past_is_replayed_after_a_number() {
        let log = log_of(5);

        let records = log.follow(Some(2)).take();

        assert_eq!(numbers(&records), [3, 4, 5]);
    }

    #[test]
    fn whoever_falls_behind_is_told_how_many_are_lost() {
        let log = log_of(CAPACITY + 10);

        let records = log.follow(Some(4)).take();

        assert_eq!(records[0].event, Event::Lost { count: 6 });
        assert_eq!(records[1].seq, 11);
        assert_eq!(records.len(), CAPACITY + 1);
    }

    #[test]
    fn a_number_from_the_future_waits_for_the_next_record() {
        let log = log_of(2);
        let mut follower = log.follow(Some(u64::MAX));
        assert!(follower.take().is_empty());

        log.emit(Event::Started);

        assert_eq!(numbers(&follower.take()), [3]);
    }

    #[test]
    fn a_record_is_one_line_with_its_fields_beside_its_name() {
        let log = log_of(0);
        log.emit(Event::DisplayMode {
            width: 640,
            height: 480,
        });

        let line = log.follow(Some(0)).take()[0].to_line();

        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["seq"], 1);
        assert_eq!(value["event"], "display.mode");
        assert_eq!(value["width"], 640);
        assert!(value["monotonic_ns"].as_u64().unwrap() > 0);
        let time: jiff::Timestamp = value["time"].as_str().unwrap().parse().unwrap();
        assert!(time > jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn records_go_to_the_file_too() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let log = EventLog::new(Some(path.reopen().unwrap()));

        log.emit(Event::Started);

        let text = std::fs::read_to_string(path.path()).unwrap();
        assert!(text.contains("\"event\":\"vm.started\""), "{text}");
    }
}
