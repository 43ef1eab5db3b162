//! `cargo xtask soak`: the same story again and again, to find the hang that one in fifty has.

use crate::place::Arg;
use crate::place::GuestRun;
use crate::place::Where;
use clap::Args;
use clap::ValueEnum;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

/// Boot, or hibernate and resume, COUNT times in a row, and stop at the first guest that hangs; or print COUNT MiB.
///
/// Tells how long each took, and of one that hangs the end of its console, openvmm's events, and openvmm's state.
#[derive(Args)]
pub(crate) struct SoakArgs {
    /// What is repeated.
    #[arg(value_enum)]
    story: Story,
    /// How often, or how many MiB.
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Where to run the guests.
    #[arg(long = "where", value_enum, default_value_t)]
    place: Where,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Story {
    /// OVMF and Debian's kernel, up to the guest's power off.
    UefiBoot,
    /// One session that hibernates and resumes, while the host's firmware changes each time.
    Hibernate,
    /// The same, and openvmm is killed while it hibernates or wakes.
    Killed,
    /// A guest that prints to its serial port without a pause; each byte is looked at.
    Flood,
}

/// Longer than a single guest may take before it counts as hanging.
const LIMIT_EACH: Duration = Duration::from_secs(400);

pub(crate) fn run(args: &SoakArgs) -> anyhow::Result<ExitCode> {
    let (place, why) = args.place.decide();
    println!("soak: guests run {why}");
    let story = match args.story {
        Story::UefiBoot => "uefi-boot",
        Story::Hibernate => "hibernate",
        Story::Killed => "killed",
        Story::Flood => "flood",
    };
    let run = GuestRun {
        packages: vec!["openvmm".to_owned(), "vmm_tests".to_owned()],
        gated_test: None,
        program: "vmm_soak".to_owned(),
        args: vec![story.into(), Arg::Text(args.count.to_string())],
        host_programs: Vec::new(),
        host_files: Vec::new(),
        env: place.test_environment(),
        outputs: Vec::new(),
        time_limit: LIMIT_EACH * args.count.saturating_add(1),
    };
    let status = run.run(place, Box::new(io::stdout()))?;
    Ok(ExitCode::from(status))
}
