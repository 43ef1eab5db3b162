//! `cargo xtask demo`: runs guests on openvmm and prints when each step happened.

use crate::guest::GuestFile;
use crate::guest_run::Arg;
use crate::guest_run::GuestPlace;
use crate::guest_run::GuestRun;
use crate::guest_run::PlaceOption;
use crate::lab::OutFile;
use anyhow::Context;
use clap::Args;
use clap::ValueEnum;
use serde_json::Value;
use std::fs;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

/// Show a guest on openvmm.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// What to show.
    #[arg(value_enum, default_value_t)]
    demo: Demo,
    /// Where to run the guest.
    #[arg(long = "where", value_enum, default_value_t)]
    place: PlaceOption,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Demo {
    /// A guest hibernates, the host's firmware is updated, and the guest resumes on its old firmware. A second guest
    /// that gets the new firmware loses its session.
    #[default]
    FirmwareUpdate,
    /// Debian's kernel boots; the guest prints what it sees of the machine and powers off.
    Linux,
    /// The same on UEFI firmware: Debian's OVMF.
    Uefi,
    /// An IGVM file is made of Debian's kernel, and boots.
    Igvm,
    /// A guest hibernates and resumes its session.
    Hibernate,
}

pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let (place, why) = args.place.decide();
    println!("demo: openvmm runs {why}");
    match args.demo {
        Demo::FirmwareUpdate => run_demo_program(place, "firmware-update"),
        Demo::Linux => run_openvmm(place, Vec::new(), "summary,poweroff"),
        Demo::Uefi => run_openvmm(
            place,
            vec![
                "--uefi".into(),
                "--uefi-firmware".into(),
                Arg::Guest(GuestFile::Ovmf4mCode),
                // The guest's own copy: Debian's OVMF does not start with erased variables.
                "--uefi-vars".into(),
                Arg::Guest(GuestFile::Ovmf4mVars),
                "--disk".into(),
                "mem:64M".into(),
                "--virtio-rng".into(),
            ],
            "summary,firmware,disks,poweroff",
        ),
        Demo::Igvm => run_demo_program(place, "igvm"),
        Demo::Hibernate => run_demo_program(place, "hibernate"),
    }
}

/// Runs openvmm once, with the guest that executes `commands`.
fn run_openvmm(place: GuestPlace, firmware: Vec<Arg>, commands: &str) -> anyhow::Result<ExitCode> {
    let events = tempfile::NamedTempFile::new()?;
    let run = GuestRun {
        packages: vec!["openvmm".to_owned()],
        program: "openvmm".to_owned(),
        args: firmware
            .into_iter()
            .chain([
                "--kernel".into(),
                Arg::Guest(GuestFile::Kernel),
                "--initrd".into(),
                Arg::Guest(GuestFile::Initrd),
                "--cmdline".into(),
                Arg::Text(format!("console=ttyS0 quiet vmtest={commands}")),
                "-p".into(),
                "2".into(),
                "-m".into(),
                "512M".into(),
                "--json-events".into(),
                "events".into(),
            ])
            .collect(),
        outputs: vec![OutFile {
            name: "events".to_owned(),
            target: events.path().to_owned(),
        }],
        time_limit: Duration::from_secs(600),
        ..GuestRun::default()
    };
    let status = run.run(place, Box::new(io::stdout()))?;
    let events = fs::read_to_string(events.path()).context("cannot read the events")?;
    println!("demo: events, by the time since the start of openvmm:");
    for line in timeline(&events) {
        println!("demo:   {line}");
    }
    println!("demo: openvmm ended with status {status}");
    Ok(ExitCode::from(status))
}

/// Runs `vmm_demo`, which runs openvmm several times.
fn run_demo_program(place: GuestPlace, demo: &'static str) -> anyhow::Result<ExitCode> {
    let limit = Duration::from_secs(1200);
    let run = GuestRun::of_vmm_tests("vmm_demo", vec![demo.into()], place, limit);
    let status = run.run(place, Box::new(io::stdout()))?;
    Ok(ExitCode::from(status))
}

/// Formats one line for each event.
fn timeline(events: &str) -> Vec<String> {
    events
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|event| {
            let name = event.get("event")?.as_str()?.replace('_', " ");
            let at = Duration::from_nanos(event.get("since_start_ns")?.as_u64()?);
            let reason = event
                .get("reason")
                .and_then(Value::as_str)
                .map(|reason| format!(" ({})", reason.replace('_', " ")))
                .unwrap_or_default();
            Some(format!("{:9.3} s  {name}{reason}", at.as_secs_f64()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeline_skips_malformed_lines() {
        let events = r#"{"event":"created","monotonic_ns":7,"since_start_ns":1500000}
not json
{"event":"halted","since_start_ns":2000000000,"reason":"power_off"}"#;
        assert_eq!(
            timeline(events),
            ["    0.002 s  created", "    2.000 s  halted (power off)"]
        );
    }
}
