//! `cargo xtask soak`: repeats one scenario many times, to find rare hangs.

use crate::guest_run::Arg;
use crate::guest_run::GuestRun;
use crate::guest_run::PlaceOption;
use clap::Args;
use clap::ValueEnum;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

/// Boot, or hibernate and resume, COUNT times in a row, and stop at the first guest that hangs; or print COUNT MiB.
///
/// Prints how long each run took. For a guest that hangs, prints the end of its console output, openvmm's events and
/// openvmm's state.
#[derive(Args)]
pub(crate) struct SoakArgs {
    /// What to repeat.
    #[arg(value_enum)]
    kind: SoakKind,
    /// How many times, or how many MiB.
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Where to run the guests.
    #[arg(long = "where", value_enum, default_value_t)]
    place: PlaceOption,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SoakKind {
    /// OVMF and Debian's kernel boot, and the guest powers off.
    UefiBoot,
    /// One session hibernates and resumes; the host's firmware changes each time.
    Hibernate,
    /// The same, but openvmm is killed while the guest hibernates or resumes.
    Killed,
    /// A guest prints to its serial port without a pause; every byte is checked.
    Flood,
}

/// The time limit for each guest: longer than vmm_soak waits before it reports a hang.
const LIMIT_EACH: Duration = Duration::from_secs(400);

pub(crate) fn run(args: &SoakArgs) -> anyhow::Result<ExitCode> {
    let (place, why) = args.place.decide();
    println!("soak: guests run {why}");
    let kind = match args.kind {
        SoakKind::UefiBoot => "uefi-boot",
        SoakKind::Hibernate => "hibernate",
        SoakKind::Killed => "killed",
        SoakKind::Flood => "flood",
    };
    let run = GuestRun::of_vmm_tests(
        "vmm_soak",
        vec![kind.into(), Arg::Text(args.count.to_string())],
        place,
        LIMIT_EACH * args.count.saturating_add(1),
    );
    let status = run.run(place, Box::new(io::stdout()))?;
    Ok(ExitCode::from(status))
}
