//! The VM's life as JSON lines.
//!
//! Each line has `event`, `monotonic_ns` (the host's CLOCK_MONOTONIC when it happened) and
//! `since_start_ns` (since this process started, as the kernel has it). Readers skip what they do not know.

use crate::cli::EventsTarget;
use firmware_hibernation::HibernationEvent;
use openvmm_defs::event::HaltReason;
use openvmm_defs::event::LifecycleEvent;
use openvmm_defs::event::VmEvent;
use openvmm_defs::event::VmEventKind;
use rustix::time::ClockId;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use std::fs::File;
use std::io;
use std::io::Write;
use std::time::Instant;

/// Writes events. A reader that goes away ends the writing, not the VM.
pub(crate) struct EventLog {
    out: Option<File>,
    base: Instant,
    base_monotonic_ns: u64,
    process_start_ns: u64,
}

impl EventLog {
    /// Opens `target`; without one, events go nowhere.
    pub(crate) fn open(target: Option<&EventsTarget>) -> io::Result<Self> {
        let out = match target {
            None => None,
            Some(EventsTarget::File(path)) => Some(File::create(path)?),
            // Through /proc, so that the descriptor stays its owner's and an invalid number is an error.
            Some(EventsTarget::Descriptor(fd)) => Some(
                File::options()
                    .append(true)
                    .open(format!("/proc/self/fd/{fd}"))?,
            ),
        };
        let monotonic = rustix::time::clock_gettime(ClockId::Monotonic);
        Ok(Self {
            out,
            base: Instant::now(),
            base_monotonic_ns: nanoseconds(monotonic.tv_sec, monotonic.tv_nsec),
            process_start_ns: process_start_ns().unwrap_or(0),
        })
    }

    /// Writes a VM's event.
    pub(crate) fn vm_event(&mut self, event: &VmEvent) {
        let (name, fields) = match &event.kind {
            VmEventKind::Hibernation(of_firmware) => {
                return self.hibernation(of_firmware, event.at);
            }
            VmEventKind::Created => ("created", Map::new()),
            VmEventKind::PowerButton => ("power_button", Map::new()),
            VmEventKind::Lifecycle(event) => match event {
                LifecycleEvent::Started => ("started", Map::new()),
                LifecycleEvent::FirstInstruction => ("first_instruction", Map::new()),
                LifecycleEvent::Paused => ("paused", Map::new()),
                LifecycleEvent::Resumed => ("resumed", Map::new()),
                LifecycleEvent::Reset => ("reset", Map::new()),
                LifecycleEvent::Halted(reason) => ("halted", halt_fields(reason)),
            },
        };
        self.write(name, event.at, fields);
    }

    /// Writes what happened to the firmware that is kept: `hibernation_` and the event's own name, with its fields.
    fn hibernation(&mut self, event: &HibernationEvent, at: Instant) {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(event) else {
            return;
        };
        if let Some(Value::String(name)) = fields.remove("event") {
            self.write(&format!("hibernation_{name}"), at, fields);
        }
    }

    /// Writes that the VM ended for a reason that is not the guest's.
    pub(crate) fn ended(&mut self, reason: &str, fields: Map<String, Value>) {
        let mut all = Map::new();
        all.insert("reason".into(), json!(reason));
        all.extend(fields);
        self.write("halted", Instant::now(), all);
    }

    fn write(&mut self, name: &str, at: Instant, fields: Map<String, Value>) {
        let Some(out) = &mut self.out else { return };
        let monotonic = match at.checked_duration_since(self.base) {
            Some(after) => self
                .base_monotonic_ns
                .saturating_add(after.as_nanos() as u64),
            None => {
                let before = self.base.duration_since(at).as_nanos() as u64;
                self.base_monotonic_ns.saturating_sub(before)
            }
        };
        let mut line = Map::new();
        line.insert("event".into(), json!(name));
        line.insert("monotonic_ns".into(), json!(monotonic));
        line.insert(
            "since_start_ns".into(),
            json!(monotonic.saturating_sub(self.process_start_ns)),
        );
        line.extend(fields);
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        // One write, so that a reader sees whole lines.
        if let Err(error) = out.write_all(text.as_bytes()) {
            tracing::warn!(%error, "JSON events can no longer be written");
            self.out = None;
        }
    }
}

fn halt_fields(reason: &HaltReason) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("reason".into(), json!(reason.name()));
    match reason {
        HaltReason::TripleFault { vp, registers } => {
            fields.insert("vp".into(), json!(vp.0));
            if let Some(registers) = registers {
                fields.insert("rip".into(), json!(format!("{:#x}", registers.rip)));
            }
        }
        HaltReason::Hypervisor(error) | HaltReason::Error(error) => {
            fields.insert("error".into(), json!(error));
        }
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

/// When this process was started, on CLOCK_MONOTONIC, to the kernel's clock tick (10 ms).
fn process_start_ns() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Field 22, counted after the command name, which may hold anything.
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
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_times_in_order() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let target = EventsTarget::File(file.path().into());
        let mut log = EventLog::open(Some(&target)).unwrap();
        for kind in [
            VmEventKind::Created,
            VmEventKind::Lifecycle(LifecycleEvent::Halted(HaltReason::PowerOff)),
        ] {
            log.vm_event(&VmEvent {
                at: Instant::now(),
                kind,
            });
        }
        let text = std::fs::read_to_string(file.path()).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["event"], "created");
        assert_eq!(lines[1]["reason"], "power_off");
        assert!(lines[0]["monotonic_ns"].as_u64() <= lines[1]["monotonic_ns"].as_u64());
        assert!(lines[0]["since_start_ns"].as_u64() > Some(0));
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_an_error() {
        assert!(EventLog::open(Some(&EventsTarget::Descriptor(9999))).is_err());
    }
}
