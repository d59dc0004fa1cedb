//! `disk.*`: what is asked of disks while they run.

use std::sync::Arc;

use caraway_virtio::block::{BlockFailure, OnError, ResizeError};

use crate::command::{ApiError, ErrorCode, Reply};
use crate::config::{DiskSpec, MachineSpec};
use crate::disk::{DiskInfo, DiskLimit, DiskList, DiskResize};
use crate::events::{Event, EventLog};
use crate::machine::{DiskFailed, DiskHandle, Machine, Notice, Notices};
use crate::metrics::Metrics;

/// The disks of a running machine.
pub(super) struct Disks {
    disks: Vec<Known>,
    events: Arc<EventLog>,
    metrics: Arc<Metrics>,
}

struct Known {
    handle: DiskHandle,
    spec: DiskSpec,
}

impl Known {
    fn info(&self) -> DiskInfo {
        DiskInfo {
            id: self.spec.id.clone(),
            path: self.spec.image.path.display().to_string(),
            format: self.spec.image.format.word().to_owned(),
            size: self.handle.size(),
            readonly: self.spec.readonly,
            limits: self.spec.limits.into(),
        }
    }
}

/// Tells of failures, and stops the machine if it must.
pub(super) fn reporter(events: &Arc<EventLog>, notices: &Arc<Notices>) -> DiskFailed {
    let (events, notices) = (Arc::clone(events), Arc::clone(notices));
    Arc::new(move |id: &str, failure: BlockFailure| {
        let action = if failure.stopped {
            OnError::Pause
        } else {
            OnError::Report
        };
        events.emit(Event::DiskError {
            id: id.to_owned(),
            message: failure.to_string(),
            no_space: failure.no_space,
            action: action.into(),
        });
        if failure.stopped {
            notices.post(Notice::DiskStopped);
        }
    })
}

impl Disks {
    pub(super) fn new(
        spec: &MachineSpec,
        machine: &Machine,
        events: &Arc<EventLog>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let mut disks = Self {
            disks: Vec::new(),
            events: Arc::clone(events),
            metrics: Arc::clone(metrics),
        };
        for (handle, spec) in machine.disks().zip(&spec.disks) {
            disks.add(handle, spec.clone());
        }
        disks
    }

    /// Knows one more disk.
    pub(super) fn add(&mut self, handle: DiskHandle, spec: DiskSpec) -> DiskInfo {
        handle.export(&self.metrics, &spec.id);
        let known = Known { handle, spec };
        let info = known.info();
        self.disks.push(known);
        info
    }

    /// Knows a disk no longer.
    pub(super) fn remove(&mut self, id: &str) {
        self.disks.retain(|disk| disk.spec.id != id);
        self.metrics.forget(("disk", id));
    }

    /// An error if there is no such disk.
    pub(super) fn require(&mut self, id: &str) -> Result<(), ApiError> {
        self.find(id).map(drop)
    }

    pub(super) fn list(&self) -> DiskList {
        DiskList {
            disks: self.disks.iter().map(Known::info).collect(),
        }
    }

    fn find(&mut self, id: &str) -> Result<&mut Known, ApiError> {
        let ids: Vec<String> = self.disks.iter().map(|disk| disk.spec.id.clone()).collect();
        let found = self.disks.iter_mut().find(|disk| disk.spec.id == id);
        found.ok_or_else(|| {
            let error = ApiError::new(ErrorCode::NotFound, format!("there is no disk {id:?}"));
            match ids.is_empty() {
                true => error.hint("this machine has no disks"),
                false => error.hint(format!("its disks are {}", ids.join(", "))),
            }
        })
    }

    pub(super) fn limit(&mut self, limit: &DiskLimit) -> Result<DiskInfo, ApiError> {
        let limits = limit.limits.checked().map_err(|error| {
            let path = format!("limits.{}", error.key());
            ApiError::new(ErrorCode::BadRequest, error.to_string()).path(path)
        });
        let disk = self.find(&limit.id)?;
        disk.spec.limits = limits?;
        disk.handle.limit(disk.spec.limits);
        let info = disk.info();
        self.events.emit(Event::DiskLimited {
            id: info.id.clone(),
            limits: info.limits,
        });
        Ok(info)
    }

    /// Has a disk resized in a thread of its own, as the host may take its time.
    pub(super) fn resize(&mut self, resize: DiskResize, reply: Reply<DiskInfo>) {
        let known = match self.find(&resize.id) {
            Ok(known) => known,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let (handle, mut info) = (known.handle.clone(), known.info());
        let events = Arc::clone(&self.events);
        let work = move || {
            let answer = match handle.grow(resize.size.bytes()) {
                Ok(()) => {
                    info.size = handle.size();
                    events.emit(Event::DiskResized {
                        id: info.id.clone(),
                        size: info.size,
                    });
                    Ok(info)
                }
                Err(error) => Err(refused(&error)),
            };
            // Whoever asked may be gone.
            drop(reply.send(answer));
        };
        let started = std::thread::Builder::new()
            .name("blk-resize".to_owned())
            .spawn(work);
        if let Err(error) = started {
            tracing::error!(%error, "a disk can't be resized");
        }
    }
}

fn refused(error: &ResizeError) -> ApiError {
    let code = match error {
        ResizeError::ReadOnly => ErrorCode::WrongState,
        ResizeError::NotWhole(_) | ResizeError::Shrinks { .. } => ErrorCode::BadRequest,
        ResizeError::Host(_) => ErrorCode::Internal,
    };
    let mut told = ApiError::new(code, error.to_string());
    if let ResizeError::Host(source) = error {
        told.causes.push(source.to_string());
    }
    match code {
        ErrorCode::BadRequest => told.path("size"),
        _ => told,
    }
}
