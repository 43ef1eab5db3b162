//! Writes the VM's events as JSON lines.
//!
//! Each line has `event`, `monotonic_ns` (the host's CLOCK_MONOTONIC when it happened) and
//! `since_start_ns` (since this process started, as the kernel has it). Readers skip unknown events and fields.

use crate::cli::EventsTarget;
use firmware_hibernation::HibernationEvent;
use openvmm_defs::event::HaltReason;
use openvmm_defs::event::LifecycleEvent;
use openvmm_defs::event::VmEvent;
use openvmm_defs::event::VmEventKind;
use rustix::time::ClockId;
use serde_json::Value;
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::time::Instant;

/// The events' file. If it can no longer be written, events are dropped and the VM keeps running.
pub(crate) struct EventLog {
    out: Option<File>,
    opened: Instant,
    opened_monotonic_ns: u64,
    process_start_ns: u64,
}

impl EventLog {
    /// Opens `target`. Without a target, events are dropped.
    pub(crate) fn open(target: Option<&EventsTarget>) -> Result<Self, String> {
        let out = match target {
            None => None,
            Some(EventsTarget::File(path)) => {
                let file = File::create(path);
                Some(file.map_err(|error| format!("cannot create {}: {error}", path.display()))?)
            }
            // Through /proc: the descriptor is not taken from its owner, and an invalid number is an error.
            Some(EventsTarget::Descriptor(fd)) => {
                let file = File::options()
                    .append(true)
                    .open(format!("/proc/self/fd/{fd}"));
                Some(
                    file.map_err(|error| format!("cannot write to file descriptor {fd}: {error}"))?,
                )
            }
        };
        let monotonic = rustix::time::clock_gettime(ClockId::Monotonic);
        Ok(Self {
            out,
            opened: Instant::now(),
            opened_monotonic_ns: nanoseconds(monotonic.tv_sec, monotonic.tv_nsec),
            process_start_ns: process_start_ns().unwrap_or(0),
        })
    }

    /// Writes an event of the VM.
    pub(crate) fn vm_event(&mut self, event: &VmEvent) {
        let (name, fields) = match &event.kind {
            VmEventKind::Hibernation(hibernation) => {
                return self.hibernation(hibernation, event.at);
            }
            VmEventKind::Created => ("created", json!({})),
            VmEventKind::PowerButton => ("power_button", json!({})),
            VmEventKind::Lifecycle(event) => match event {
                LifecycleEvent::Started => ("started", json!({})),
                LifecycleEvent::FirstInstruction => ("first_instruction", json!({})),
                LifecycleEvent::Paused => ("paused", json!({})),
                LifecycleEvent::Resumed => ("resumed", json!({})),
                LifecycleEvent::Reset => ("reset", json!({})),
                LifecycleEvent::Halted(reason) => ("halted", halt_fields(reason)),
            },
        };
        self.write(name, event.at, fields);
    }

    /// Writes a hibernation event, with `hibernation_` before its name.
    fn hibernation(&mut self, event: &HibernationEvent, at: Instant) {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(event) else {
            return;
        };
        if let Some(Value::String(name)) = fields.remove("event") {
            self.write(&format!("hibernation_{name}"), at, fields.into());
        }
    }

    /// Writes that the user or a signal ended the VM.
    pub(crate) fn ended(&mut self, fields: Value) {
        self.write("halted", Instant::now(), fields);
    }

    fn write(&mut self, name: &str, at: Instant, fields: Value) {
        let Some(out) = &mut self.out else { return };
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
        // One write, so that a reader sees whole lines.
        if let Err(error) = out.write_all(text.as_bytes()) {
            tracing::warn!(%error, "JSON events can no longer be written");
            self.out = None;
        }
    }
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
mod tests {
    use super::*;

    #[test]
    fn lines_have_increasing_times() {
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
