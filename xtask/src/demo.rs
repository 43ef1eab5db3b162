//! `cargo xtask demo`: guests on openvmm, from nothing to a summary of how long it took.

use crate::guest::GuestFile;
use crate::lab::OutFile;
use crate::place::Arg;
use crate::place::GuestRun;
use crate::place::Place;
use crate::place::Where;
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
    story: Story,
    /// Where to run the guest.
    #[arg(long = "where", value_enum, default_value_t)]
    place: Where,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Story {
    /// A guest hibernates, the host's firmware is updated, and the guest wakes on the firmware it knew. Without that,
    /// it is lost.
    #[default]
    FirmwareUpdate,
    /// Debian's kernel boots; the guest shows what it sees and powers off.
    Linux,
    /// The same behind UEFI firmware: Debian's OVMF.
    Uefi,
    /// A guest hibernates, and goes on where it was.
    Hibernate,
}

pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let (place, why) = args.place.decide();
    println!("demo: openvmm runs {why}");
    match args.story {
        Story::FirmwareUpdate => several_lives(place, "firmware-update"),
        Story::Linux => one_life(place, Vec::new(), "summary,poweroff"),
        Story::Uefi => one_life(
            place,
            vec![
                "--uefi".into(),
                "--uefi-firmware".into(),
                Arg::Guest(GuestFile::Ovmf4mCode),
                // The guest's own copy. Debian's OVMF does not start on erased flash.
                "--uefi-vars".into(),
                Arg::Guest(GuestFile::Ovmf4mVars),
                "--disk".into(),
                "mem:64M".into(),
                "--virtio-rng".into(),
            ],
            "summary,firmware,disks,poweroff",
        ),
        Story::Hibernate => several_lives(place, "hibernate"),
    }
}

/// Runs openvmm once, with the guest that carries out `commands`.
fn one_life(place: Place, firmware: Vec<Arg>, commands: &str) -> anyhow::Result<ExitCode> {
    let events = tempfile::NamedTempFile::new()?;
    let run = GuestRun {
        packages: vec!["openvmm".to_owned()],
        gated_test: None,
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
        host_programs: Vec::new(),
        host_files: Vec::new(),
        env: Vec::new(),
        outputs: vec![OutFile {
            name: "events".to_owned(),
            target: events.path().to_owned(),
        }],
        time_limit: Duration::from_secs(600),
    };
    let status = run.run(place, Box::new(io::stdout()))?;
    let events = fs::read_to_string(events.path()).context("cannot read the events")?;
    println!("demo: what happened when, since the start of openvmm:");
    for line in timeline(&events) {
        println!("demo:   {line}");
    }
    println!("demo: openvmm ended with status {status}");
    Ok(ExitCode::from(status))
}

/// Runs a program that runs openvmm several times.
fn several_lives(place: Place, story: &'static str) -> anyhow::Result<ExitCode> {
    let run = GuestRun {
        packages: vec!["openvmm".to_owned(), "vmm_tests".to_owned()],
        gated_test: None,
        program: "vmm_demo".to_owned(),
        args: vec![story.into()],
        host_programs: Vec::new(),
        host_files: Vec::new(),
        env: place.test_environment(),
        outputs: Vec::new(),
        time_limit: Duration::from_secs(1200),
    };
    let status = run.run(place, Box::new(io::stdout()))?;
    Ok(ExitCode::from(status))
}

/// One line for each event.
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
    fn the_timeline_skips_what_it_cannot_read() {
        let events = r#"{"event":"created","monotonic_ns":7,"since_start_ns":1500000}
not json
{"event":"halted","since_start_ns":2000000000,"reason":"power_off"}"#;
        assert_eq!(
            timeline(events),
            ["    0.002 s  created", "    2.000 s  halted (power off)"]
        );
    }
}
