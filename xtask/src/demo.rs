//! `cargo xtask demo`: a Linux guest on openvmm, from nothing to a summary of how long it took.

use crate::guest::GuestFile;
use crate::lab::OutFile;
use crate::place::Arg;
use crate::place::GuestRun;
use crate::place::Where;
use anyhow::Context;
use clap::Args;
use serde_json::Value;
use std::fs;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

/// Boot Debian's kernel on openvmm; the guest shows what it sees and powers off.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Where to run the guest.
    #[arg(long = "where", value_enum, default_value_t)]
    place: Where,
}

pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let (place, why) = args.place.decide();
    println!("demo: openvmm runs {why}");
    let events = tempfile::NamedTempFile::new()?;
    let run = GuestRun {
        packages: vec!["openvmm".to_owned()],
        gated_test: None,
        program: "openvmm".to_owned(),
        args: vec![
            "--kernel".into(),
            Arg::Guest(GuestFile::Kernel),
            "--initrd".into(),
            Arg::Guest(GuestFile::Initrd),
            "--cmdline".into(),
            "console=ttyS0 quiet vmtest=summary,poweroff".into(),
            "-p".into(),
            "2".into(),
            "-m".into(),
            "512M".into(),
            "--json-events".into(),
            "events".into(),
        ],
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
