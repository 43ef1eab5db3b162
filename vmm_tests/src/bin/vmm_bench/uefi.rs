//! Measures UEFI guests: boot, disk and network rates, hibernation.

use crate::vmm::BenchMachine;
use crate::vmm::GuestLines;
use crate::vmm::RunningVmm;
use crate::vmm::Vmm;
use anyhow::Context;
use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use tempfile::TempDir;
use vmm_tests::Environment;
use vmm_tests::HostTap;

/// The size of the disk to read. After the first pass, its content is in the host's page cache.
const DISK: usize = 128 << 20;

/// The size of the disk to hibernate to.
const SWAP: u64 = 1 << 30;

/// How long a rate is measured, in seconds.
const SECONDS: u32 = 4;

/// How long the host waits for a tap interface to appear.
const TAP_LIMIT: Duration = Duration::from_secs(30);

/// A directory for the files of one guest.
struct GuestDir {
    dir: TempDir,
}

impl GuestDir {
    fn new(environment: &Environment) -> anyhow::Result<Self> {
        let files = Self {
            dir: tempfile::Builder::new().prefix("vmm-bench-").tempdir()?,
        };
        std::io::copy(
            &mut File::open(&environment.ovmf_4m.vars)?,
            &mut File::create(files.variables())?,
        )
        .context("cannot copy the firmware's variables")?;
        Ok(files)
    }

    fn variables(&self) -> PathBuf {
        self.dir.path().join("vars")
    }

    fn disk(&self) -> PathBuf {
        self.dir.path().join("disk")
    }
}

/// Milliseconds from the start of the process through the firmware to the guest's `/init`.
pub(crate) fn boot(vmm: Vmm, environment: &Environment) -> anyhow::Result<f64> {
    boot_to_init(vmm, environment, &GuestDir::new(environment)?, None)
}

/// The same with a VMGS file: for a start that stores the firmware, and for one that finds it stored.
pub(crate) fn boots_with_store(environment: &Environment) -> anyhow::Result<[f64; 2]> {
    let files = GuestDir::new(environment)?;
    let store = files.dir.path().join("store.vmgs");
    let boot = || boot_to_init(Vmm::Openvmm, environment, &files, Some(&store));
    Ok([boot()?, boot()?])
}

fn boot_to_init(
    vmm: Vmm,
    environment: &Environment,
    files: &GuestDir,
    store: Option<&Path>,
) -> anyhow::Result<f64> {
    let started = Instant::now();
    let (_running, mut lines) = start(
        vmm,
        environment,
        &BenchMachine {
            variables: &files.variables(),
            initrd: &environment.initrd,
            cmdline: "console=ttyS0 quiet vmtest=",
            disk: None,
            tap: None,
            store,
        },
    )?;
    lines.wait_for_guest("init")?;
    Ok(milliseconds(started))
}

/// The rates that a guest measures.
pub(crate) struct Rates {
    /// 4 KiB random reads per second, one at a time.
    pub(crate) random_1: f64,
    /// 4 KiB random reads per second, 32 at a time.
    pub(crate) random_32: f64,
    /// Sequential reads of 1 MiB, in MiB per second.
    pub(crate) sequential: f64,
    /// TCP to the host, in MiB per second.
    pub(crate) send: f64,
    /// TCP from the host, in MiB per second.
    pub(crate) receive: f64,
}

/// Has one guest measure its disk and its network.
pub(crate) fn rates(
    vmm: Vmm,
    environment: &Environment,
    bench_initrd: &Path,
) -> anyhow::Result<Rates> {
    let files = GuestDir::new(environment)?;
    std::fs::write(files.disk(), vec![0x5a; DISK]).context("cannot make a disk")?;
    let tap = HostTap::new();
    let sink = TcpListener::bind(("0.0.0.0", 0))?;
    let source = TcpListener::bind(("0.0.0.0", 0))?;
    let server = |listener: &TcpListener| -> anyhow::Result<String> {
        Ok(format!("{}-{}", tap.host(), listener.local_addr()?.port()))
    };
    let commands = [
        format!("bench:random:/dev/vda:1:{SECONDS}"),
        format!("bench:random:/dev/vda:32:{SECONDS}"),
        format!("bench:sequential:/dev/vda:{SECONDS}"),
        format!("net:up:{}/24", tap.guest()),
        format!("bench:send:{}:{SECONDS}", server(&sink)?),
        format!("bench:receive:{}:{SECONDS}", server(&source)?),
        "poweroff".to_owned(),
    ];
    serve(sink, |mut guest| {
        std::io::copy(&mut guest, &mut std::io::sink()).map(drop)
    });
    serve(source, |mut guest| {
        let buffer = vec![0; 256 << 10];
        loop {
            guest.write_all(&buffer)?;
        }
    });
    let (_running, mut lines) = start(
        vmm,
        environment,
        &BenchMachine {
            variables: &files.variables(),
            initrd: bench_initrd,
            cmdline: &format!("console=ttyS0 quiet vmtest={}", commands.join(",")),
            disk: Some(&files.disk()),
            tap: Some(&tap),
            store: None,
        },
    )?;
    bring_up(&tap)?;
    let mut rate = || -> anyhow::Result<f64> {
        let said = lines.wait_for_guest("bench ")?;
        said.parse()
            .with_context(|| format!("the guest measured {said:?}"))
    };
    Ok(Rates {
        random_1: rate()?,
        random_32: rate()?,
        sequential: rate()?,
        send: rate()?,
        receive: rate()?,
    })
}

/// Waits until the VMM has created the interface, and brings it up.
fn bring_up(tap: &HostTap) -> anyhow::Result<()> {
    let deadline = Instant::now() + TAP_LIMIT;
    while !Path::new("/sys/class/net").join(tap.name()).exists() {
        anyhow::ensure!(
            Instant::now() < deadline,
            "the interface {} did not appear",
            tap.name()
        );
        thread::sleep(Duration::from_millis(10));
    }
    tap.bring_up()
}

/// Starts a thread that serves one connection of the guest.
fn serve(
    listener: TcpListener,
    talk: impl FnOnce(TcpStream) -> std::io::Result<()> + Send + 'static,
) {
    thread::spawn(move || listener.accept().and_then(|(guest, _)| talk(guest)));
}

/// How long hibernation takes.
pub(crate) struct HibernationTimes {
    /// Milliseconds from the start of hibernation to the end of the process.
    pub(crate) to_exit: f64,
    /// Milliseconds from the start of the process until the guest is resumed.
    pub(crate) to_resumed: f64,
}

/// Has a guest hibernate and resume.
pub(crate) fn hibernation(vmm: Vmm, environment: &Environment) -> anyhow::Result<HibernationTimes> {
    let files = GuestDir::new(environment)?;
    File::create(files.disk())?.set_len(SWAP)?;
    let machine = BenchMachine {
        variables: &files.variables(),
        initrd: &environment.initrd,
        cmdline: "console=ttyS0 quiet vmtest=hibernate,poweroff",
        disk: Some(&files.disk()),
        tap: None,
        store: None,
    };
    let (mut running, mut lines) = start(vmm, environment, &machine)?;
    lines.wait_for_guest("hibernating")?;
    let began = Instant::now();
    running.0.wait()?;
    let to_exit = milliseconds(began);

    let began = Instant::now();
    let (_running, mut lines) = start(vmm, environment, &machine)?;
    lines.wait_for_guest("resumed")?;
    Ok(HibernationTimes {
        to_exit,
        to_resumed: milliseconds(began),
    })
}

fn start(
    vmm: Vmm,
    environment: &Environment,
    machine: &BenchMachine<'_>,
) -> anyhow::Result<(RunningVmm, GuestLines)> {
    let mut running = vmm.start_uefi(environment, machine)?;
    let lines = running.lines()?;
    Ok((running, lines))
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
