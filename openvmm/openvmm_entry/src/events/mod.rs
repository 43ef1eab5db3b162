//! Writes the VM's events as JSON lines.
//!
//! Each line has `event`, `monotonic_ns` (the host's CLOCK_MONOTONIC when it happened) and
//! `since_start_ns` (since this process started, as the kernel has it). Readers skip unknown events and fields.

mod queue;

use crate::cli::EventsTarget;
use firmware_hibernation::HibernationEvent;
use openvmm_defs::event::HaltReason;
use openvmm_defs::event::LifecycleEvent;
use openvmm_defs::event::VmEvent;
use openvmm_defs::event::VmEventKind;
use queue::LineQueue;
use rustix::time::ClockId;
use serde_json::Value;
use serde_json::json;
use std::fs::File;
use std::os::unix::fs::FileTypeExt as _;
use std::time::Duration;
use std::time::Instant;

/// How long a stalled reader may keep the events of a VM that has ended.
const PATIENCE: Duration = Duration::from_secs(2);

/// The events' way to their reader. A reader that stalls delays nothing but its events, and loses those that do not fit
/// in the queue. If the file can no longer be written, events are dropped and the VM keeps running.
#[derive(Clone)]
pub(crate) struct EventLog {
    queue: Option<LineQueue>,
    opened: Instant,
    opened_monotonic_ns: u64,
    process_start_ns: u64,
}

impl EventLog {
    /// Opens `target`. Without a target, events are dropped.
    pub(crate) fn open(target: Option<&EventsTarget>) -> Result<Self, String> {
        let queue = target.map(open_queue).transpose()?;
        let monotonic = rustix::time::clock_gettime(ClockId::Monotonic);
        Ok(Self {
            queue,
            opened: Instant::now(),
            opened_monotonic_ns: nanoseconds(monotonic.tv_sec, monotonic.tv_nsec),
            process_start_ns: process_start_ns().unwrap_or(0),
        })
    }

    /// Adds an event of the VM. Never waits.
    pub(crate) fn vm_event(&self, event: &VmEvent) {
        let (name, fields) = match &event.kind {
            VmEventKind::Hibernation(hibernation) => {
                return self.hibernation(hibernation, event.at);
            }
            VmEventKind::Created => ("created", json!({})),
            // For people who wait.
            VmEventKind::SnapshotProgress { .. } => return,
            VmEventKind::SnapshotSaved { dir, saved } => (
                "snapshot_saved",
                json!({
                    "dir": dir,
                    "memory_bytes": saved.memory,
                    "stored_bytes": saved.stored,
                    "paused_ms": saved.paused_ms,
                }),
            ),
            VmEventKind::PowerButton => ("power_button", json!({})),
            VmEventKind::Lifecycle(lifecycle) => match lifecycle {
                LifecycleEvent::Started => ("started", json!({})),
                LifecycleEvent::FirstInstruction => ("first_instruction", json!({})),
                LifecycleEvent::Paused => ("paused", json!({})),
                LifecycleEvent::Resumed => ("resumed", json!({})),
                LifecycleEvent::Reset => ("reset", json!({})),
                LifecycleEvent::Halted(reason) => {
                    return self.halted(event.at, halt_fields(reason));
                }
            },
        };
        self.add(name, event.at, fields);
    }

    /// Adds a hibernation event, with `hibernation_` before its name.
    fn hibernation(&self, event: &HibernationEvent, at: Instant) {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(event) else {
            return;
        };
        if let Some(Value::String(name)) = fields.remove("event") {
            self.add(&format!("hibernation_{name}"), at, fields.into());
        }
    }

    /// Adds that the user or a signal ended the VM.
    pub(crate) fn ended(&self, fields: Value) {
        self.halted(Instant::now(), fields);
    }

    /// Waits until the reader has all events. A reader that takes none is given up on.
    pub(crate) fn flush(&self) {
        let left = self.queue.as_ref().map_or(0, |queue| queue.flush(PATIENCE));
        if left > 0 {
            tracing::warn!(
                events = left,
                "the last JSON events were not read and are lost"
            );
        }
    }

    fn add(&self, name: &str, at: Instant, fields: Value) {
        if let Some(queue) = &self.queue {
            queue.add(self.line(name, at, fields), |lost| self.lost(at, lost));
        }
    }

    fn halted(&self, at: Instant, fields: Value) {
        if let Some(queue) = &self.queue {
            queue.add_last(self.line("halted", at, fields), |lost| self.lost(at, lost));
        }
    }

    fn lost(&self, at: Instant, count: u64) -> String {
        self.line("events_lost", at, json!({"count": count}))
    }

    fn line(&self, name: &str, at: Instant, fields: Value) -> String {
        let after_open = at.saturating_duration_since(self.opened).as_nanos() as u64;
        let monotonic = self.opened_monotonic_ns.saturating_add(after_open);
        let mut line = json!({
            "event": name,
            "monotonic_ns": monotonic,
            "since_start_ns": monotonic.saturating_sub(self.process_start_ns),
        });
        if let (Value::Object(line), Value::Object(fields)) = (&mut line, fields) {
            line.extend(fields);
        }
        let mut text = line.to_string();
        text.push('\n');
        text
    }
}

fn open_queue(target: &EventsTarget) -> Result<LineQueue, String> {
    let file = match target {
        EventsTarget::File(path) => {
            if std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
                // Its reader may come later; only the events wait for it.
                let path = path.clone();
                return LineQueue::start(move || File::options().write(true).open(path))
                    .map_err(|error| format!("cannot start a thread: {error}"));
            }
            host_file::open_output(path)
                .map_err(|error| format!("cannot create {}: {error}", path.display()))?
        }
        // Through /proc: the descriptor is not taken from its owner, and an invalid number is an error.
        EventsTarget::Descriptor(fd) => File::options()
            .append(true)
            .open(format!("/proc/self/fd/{fd}"))
            .map_err(|error| format!("cannot write to file descriptor {fd}: {error}"))?,
    };
    LineQueue::start(move || Ok(file)).map_err(|error| format!("cannot start a thread: {error}"))
}

fn halt_fields(reason: &HaltReason) -> Value {
    let mut fields = json!({"reason": reason.name()});
    match reason {
        HaltReason::TripleFault { vp, registers } => {
            fields["vp"] = json!(vp.0);
            if let Some(registers) = registers {
                fields["rip"] = json!(format!("{:#x}", registers.rip));
            }
        }
        HaltReason::Hypervisor(error) | HaltReason::Error(error) => fields["error"] = json!(error),
        HaltReason::PowerOff
        | HaltReason::Hibernate
        | HaltReason::Reset
        | HaltReason::GuestPanic => {}
    }
    fields
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> u64 {
    (seconds as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds as u64)
}

/// The start of this process on CLOCK_MONOTONIC, with the resolution of the kernel's clock tick (10 ms).
fn process_start_ns() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Field 22. Counted from the end of the command name, which may contain any character.
    let ticks: u64 = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()?;
    let boot = rustix::time::clock_gettime(ClockId::Boottime);
    let monotonic = rustix::time::clock_gettime(ClockId::Monotonic);
    let suspended = nanoseconds(boot.tv_sec, boot.tv_nsec)
        .saturating_sub(nanoseconds(monotonic.tv_sec, monotonic.tv_nsec));
    let per_second = rustix::param::clock_ticks_per_second();
    Some((ticks.saturating_mul(1_000_000_000) / per_second).saturating_sub(suspended))
}

#[cfg(test)]
#[path = "events_test.rs"]
mod tests;
