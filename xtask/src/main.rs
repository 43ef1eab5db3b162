//! Developer commands: `cargo xtask help`.
#![forbid(unsafe_code)]

mod archive;
mod bench;
mod build;
mod build_igvm;
mod check_layers;
mod demo;
mod doctor;
mod fuzz;
mod guest;
mod guest_run;
mod host_kvm;
mod lab;
mod mutants;
mod process;
mod setup;
mod shared_writer;
mod soak;
mod test;
mod userland;
mod workspace;

use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Builds, runs, tests and measures openvmm"
)]
enum Xtask {
    Demo(demo::DemoArgs),
    Test(test::TestArgs),
    BuildIgvm(build_igvm::BuildIgvmArgs),
    Bench(bench::BenchArgs),
    Soak(soak::SoakArgs),
    Doctor(doctor::DoctorArgs),
    Setup(setup::SetupArgs),
    Lab(lab::LabArgs),
    Guest(guest::GuestArgs),
    TestFirmware(guest::test_firmware::TestFirmwareArgs),
    CheckLayers(check_layers::CheckLayersArgs),
    Fuzz(fuzz::FuzzArgs),
    Mutants(mutants::MutantsArgs),
}

fn main() -> ExitCode {
    let result = match Xtask::parse() {
        Xtask::Demo(args) => demo::run(&args),
        Xtask::Test(args) => test::run(&args),
        Xtask::BuildIgvm(args) => build_igvm::run(&args),
        Xtask::Bench(args) => bench::run(&args),
        Xtask::Soak(args) => soak::run(&args),
        Xtask::Doctor(args) => doctor::run(&args),
        Xtask::Setup(args) => setup::run(&args),
        Xtask::Lab(args) => lab::run(args),
        Xtask::Guest(args) => guest::run(&args),
        Xtask::TestFirmware(args) => guest::test_firmware::run(&args),
        Xtask::CheckLayers(args) => check_layers::run(&args),
        Xtask::Fuzz(args) => fuzz::run(&args),
        Xtask::Mutants(args) => mutants::run(&args),
    };
    result.unwrap_or_else(|err| {
        eprintln!("error: {err:#}");
        ExitCode::FAILURE
    })
}
