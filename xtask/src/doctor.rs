//! `cargo xtask doctor`: reports what this machine has and lacks.

use crate::host_kvm::HostKvm;
use crate::setup;
use crate::setup::DebianKernel;
use crate::setup::DebianOvmf;
use crate::setup::LabQemu;
use crate::setup::Unpacked;
use clap::Args;
use kvm_ioctls::Cap;
use kvm_ioctls::Kvm;
use serde::Serialize;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitCode;

/// Report which KVM this machine has, and what demo, test and bench need that is missing.
///
/// Fails if something is missing. `cargo xtask setup` installs all of it but the Rust toolchain.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The KVM extensions that openvmm uses, or that make a difference to a guest.
const CAPABILITIES: [(&str, Cap); 19] = [
    ("irqchip", Cap::Irqchip),
    ("split_irqchip", Cap::SplitIrqchip),
    ("ioeventfd", Cap::Ioeventfd),
    ("irqfd", Cap::Irqfd),
    ("irq_routing", Cap::IrqRouting),
    ("signal_msi", Cap::SignalMsi),
    ("user_memory", Cap::UserMemory),
    ("nr_memslots", Cap::NrMemslots),
    ("max_vcpus", Cap::MaxVcpus),
    ("immediate_exit", Cap::ImmediateExit),
    ("tsc_control", Cap::TscControl),
    ("get_tsc_khz", Cap::GetTscKhz),
    ("adjust_clock", Cap::AdjustClock),
    ("xsave2", Cap::Xsave2),
    ("vcpu_events", Cap::VcpuEvents),
    ("x2apic_api", Cap::X2ApicApi),
    ("msr_filter", Cap::X86MsrFilter),
    ("nested_state", Cap::NestedState),
    ("hyperv_synic2", Cap::HypervSynic2),
];

#[derive(Serialize)]
struct Diagnosis {
    kvm: String,
    hardware: bool,
    /// Where guests run.
    guests_run: &'static str,
    capabilities: Vec<(&'static str, i32)>,
    missing: Vec<Missing>,
    apt: Option<String>,
    kernel: Option<String>,
    firmware: Option<PathBuf>,
    /// The QEMU of the lab's machine.
    lab_qemu: Option<String>,
    toolchain: Vec<Tool>,
    ready: bool,
}

#[derive(Serialize)]
struct Missing {
    what: &'static str,
    purpose: &'static str,
    package: &'static str,
}

#[derive(Serialize)]
struct Tool {
    command: &'static str,
    version: Option<String>,
}

pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let diagnosis = diagnose()?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&diagnosis)?);
    } else {
        print(&diagnosis);
    }
    Ok(if diagnosis.ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn diagnose() -> anyhow::Result<Diagnosis> {
    let kvm = HostKvm::detect();
    let missing = setup::missing();
    let kernel = DebianKernel::cached()?
        .map(|kernel| kernel.release())
        .transpose()?;
    let firmware = DebianOvmf::cached()?.map(|ovmf| ovmf.dir().to_owned());
    let toolchain = [
        ["rustc", "--version"],
        ["cargo", "fmt"],
        ["cargo", "clippy"],
    ]
    .map(|[program, subcommand]| tool(program, subcommand));
    let ready = missing.is_empty()
        && kernel.is_some()
        && firmware.is_some()
        && toolchain.iter().all(|tool| tool.version.is_some());
    Ok(Diagnosis {
        kvm: kvm.to_string(),
        hardware: kvm.is_hardware(),
        guests_run: if kvm.is_hardware() {
            "directly"
        } else {
            "in the lab"
        },
        capabilities: capabilities(),
        apt: (!missing.is_empty()).then(|| setup::apt_line(&missing)),
        missing: missing
            .iter()
            .map(|need| Missing {
                what: need.what,
                purpose: need.purpose,
                package: need.package,
            })
            .collect(),
        kernel,
        firmware,
        lab_qemu: LabQemu::found().ok().map(|qemu| qemu.to_string()),
        toolchain: toolchain.into(),
        ready,
    })
}

fn capabilities() -> Vec<(&'static str, i32)> {
    Kvm::new().map_or_else(
        |_| Vec::new(),
        |kvm| {
            CAPABILITIES
                .iter()
                .map(|(name, cap)| (*name, kvm.check_extension_int(*cap)))
                .collect()
        },
    )
}

/// Asks a part of the toolchain for its version.
fn tool(program: &'static str, subcommand: &'static str) -> Tool {
    let mut command = Command::new(program);
    command.arg(subcommand);
    if subcommand != "--version" {
        command.arg("--version");
    }
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success());
    Tool {
        command: if subcommand == "--version" {
            program
        } else {
            subcommand
        },
        version: output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()),
    }
}

fn print(diagnosis: &Diagnosis) {
    println!("kvm:       {}", diagnosis.kvm);
    println!("guests:    run {}", diagnosis.guests_run);
    for (name, value) in &diagnosis.capabilities {
        println!("  {name:<15} {value}");
    }
    for tool in &diagnosis.toolchain {
        let version = tool.version.as_deref().unwrap_or("MISSING");
        println!("toolchain: {}: {version}", tool.command);
    }
    println!(
        "kernel:    {}",
        diagnosis.kernel.as_deref().unwrap_or("not fetched yet")
    );
    println!(
        "firmware:  {}",
        diagnosis.firmware.as_ref().map_or_else(
            || "not fetched yet".to_owned(),
            |dir| dir.display().to_string()
        )
    );
    println!(
        "lab:       {}",
        diagnosis.lab_qemu.as_deref().unwrap_or("no QEMU")
    );
    for missing in &diagnosis.missing {
        println!(
            "missing:   {} ({}), package {}",
            missing.what, missing.purpose, missing.package
        );
    }
    if let Some(line) = &diagnosis.apt {
        println!("install:   {line}");
    }
    if !diagnosis.ready {
        println!("next:      cargo xtask setup");
    }
}
