//! Tells a story of guests that takes more than one life of openvmm: `cargo xtask demo` builds it and runs it where there
//! is a KVM.
#![forbid(unsafe_code)]

mod hibernate;
mod timeline;
mod update;

use clap::Parser;
use clap::Subcommand;
use std::process::ExitCode;
use timeline::Timeline;
use vmm_tests::Environment;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    story: Story,
}

#[derive(Subcommand)]
enum Story {
    /// A guest hibernates and goes on where it was.
    Hibernate,
    /// The same, and the host's firmware is updated meanwhile.
    FirmwareUpdate,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let timeline = Timeline::start();
    let told = Environment::from_env().and_then(|environment| match args.story {
        Story::Hibernate => hibernate::tell(&environment, &timeline),
        Story::FirmwareUpdate => update::tell(&environment, &timeline),
    });
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            timeline.host(&format!("it did not go as it should: {err:#}"));
            ExitCode::FAILURE
        }
    }
}
