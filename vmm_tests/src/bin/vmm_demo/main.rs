//! Demos that run openvmm several times. `cargo xtask demo` builds it and runs it on a machine with KVM.
#![forbid(unsafe_code)]

mod hibernate;
mod igvm;
mod timeline;
mod update;

use clap::Parser;
use clap::Subcommand;
use std::process::ExitCode;
use timeline::Timeline;
use vmm_tests::Environment;

#[derive(Parser)]
struct VmmDemoArgs {
    #[command(subcommand)]
    demo: VmmDemo,
}

#[derive(Subcommand)]
enum VmmDemo {
    /// A guest hibernates and resumes its session.
    Hibernate,
    /// The same, but the host's firmware is updated in between.
    FirmwareUpdate,
    /// Debian's kernel is packed into an IGVM file, and boots from it.
    Igvm,
}

fn main() -> ExitCode {
    let args = VmmDemoArgs::parse();
    let timeline = Timeline::start();
    let result = Environment::from_env().and_then(|environment| match args.demo {
        VmmDemo::Hibernate => hibernate::run(&environment, &timeline),
        VmmDemo::Igvm => igvm::run(&environment, &timeline),
        VmmDemo::FirmwareUpdate => update::run(&environment, &timeline),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            timeline.host(&format!("the demo failed: {err:#}"));
            ExitCode::FAILURE
        }
    }
}
