//! The lab's initramfs: busybox, our init, kernel modules, the job and its files.

use super::job::Lab;
use crate::archive::Archive;
use crate::setup::Fetched;
use crate::userland;
use anyhow::Context;
use lab_init::JOB_PATH;
use lab_init::LabJob;
use lab_init::Module;
use lab_init::WORK_DIR;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// Where the guest's files are in the lab.
pub(crate) const GUEST_DIR: &str = "/guest";

/// Where the lab's disk is, if it has one.
pub(crate) const DISK: &str = "/dev/vda";

/// KVM, the ports to the host, tap interfaces for guests, and an interface that takes the place of the Internet.
const MODULES: [&str; 5] = ["virtio_pci", "virtio_console", "kvm-amd", "tun", "dummy"];

/// The disk's.
const DISK_MODULE: &str = "virtio_blk";

/// The parameters of a module.
///
/// QEMU aborts when a nested guest writes its task priority (CR8) while KVM waits to inject an interrupt. OVMF writes CR8
/// at the end of each timer interrupt, when the next one is often pending on a machine this slow. So KVM is told to limit
/// periodic timers, which only firmware uses, to one tick per second: no handler takes that long.
fn params(module: &str) -> &'static str {
    match module {
        "kvm-amd" => "nested=1",
        "kvm" => "min_timer_period_us=1000000",
        _ => "",
    }
}

/// Writes the initramfs of one lab to `path`.
pub(super) fn write(
    path: &Path,
    lab: &Lab,
    fetched: &Fetched,
    init: &Path,
    stdin: bool,
    terminal: Option<(u16, u16)>,
) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    userland::add_to(&mut archive)?;
    archive.file("init", init)?;

    let names: Vec<_> = MODULES
        .into_iter()
        .chain(lab.disk.map(|_| DISK_MODULE))
        .chain(lab.modules.iter().map(String::as_str))
        .collect();
    let mut modules = Vec::new();
    for module in fetched.kernel.modules(&names)? {
        let name = module.file_stem().unwrap_or_default().to_string_lossy();
        let target = format!("/lab/modules/{name}.ko");
        archive.file(&target, &module)?;
        modules.push(Module {
            path: target,
            params: params(&name).to_owned(),
        });
    }

    let guest = tempfile::Builder::new()
        .prefix("openvmm-guest-")
        .tempdir()?;
    for file in &lab.guest_files {
        file.make(fetched, guest.path())?;
        archive.file(
            &format!("{GUEST_DIR}/{}", file.name()),
            &guest.path().join(file.name()),
        )?;
    }
    for input in &lab.inputs {
        archive.file(&in_work_dir(&input.name), &input.source)?;
    }
    let job = LabJob {
        argv: lab.argv.clone(),
        env: environment(lab),
        modules,
        stdin,
        terminal,
        out: lab.outputs.iter().map(|out| out.name.clone()).collect(),
    };
    archive.bytes(JOB_PATH, 0o644, &serde_json::to_vec_pretty(&job)?)?;
    archive.finish()?;
    Ok(())
}

fn environment(lab: &Lab) -> Vec<(String, String)> {
    let term = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
    [
        ("PATH", "/bin:/usr/bin:/usr/sbin:/sbin"),
        ("HOME", "/root"),
        ("TERM", &term),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into_iter()
    .chain(lab.env.iter().cloned())
    .collect()
}

fn in_work_dir(name: &str) -> String {
    if name.starts_with('/') {
        name.to_owned()
    } else {
        format!("{WORK_DIR}/{name}")
    }
}
