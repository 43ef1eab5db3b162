//! Sets up the lab's machine: file systems, kernel modules, virtio-serial ports.

use anyhow::Context;
use lab_init::Module;
use rustix::mount::MountFlags;
use std::ffi::CString;
use std::fs;
use std::fs::File;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

/// How long a port may take to appear once its driver is loaded.
const PORT_DEADLINE: Duration = Duration::from_secs(60);

/// The machine's addresses and its default routes, which lead nowhere: programs that look for the Internet find it.
const NETWORK: [&str; 6] = [
    "link set lo up",
    "link set dummy0 up",
    "address add 203.0.113.2/24 dev dummy0",
    "route add default via 203.0.113.1",
    "-6 address add 2001:db8::2/64 dev dummy0",
    "-6 route add default via 2001:db8::1",
];

/// Makes the root directory a mount that a process can leave by pivot_root(2), as sandboxes do: the kernel does not allow
/// it for the initramfs.
pub(crate) fn change_root() -> anyhow::Result<()> {
    const ROOT: &str = "/root/root";
    fs::create_dir_all(ROOT).with_context(|| format!("cannot create {ROOT}"))?;
    rustix::mount::mount_bind("/", ROOT).context("cannot mount the root directory again")?;
    rustix::process::chdir(ROOT)
        .and_then(|()| rustix::mount::mount_move(".", "/"))
        .and_then(|()| rustix::process::chroot("."))
        .and_then(|()| rustix::process::chdir("/"))
        .context("cannot change the root directory")
}

/// Gives the machine its network.
pub(crate) fn bring_network_up() -> anyhow::Result<()> {
    for arguments in NETWORK {
        let output = Command::new("/bin/busybox")
            .arg("ip")
            .args(arguments.split(' '))
            .output()
            .context("cannot run busybox")?;
        anyhow::ensure!(
            output.status.success(),
            "ip {arguments} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Mounts the file systems that programs expect.
pub(crate) fn mount_filesystems() -> anyhow::Result<()> {
    for (kind, target) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("devpts", "/dev/pts"),
        ("tmpfs", "/dev/shm"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
        ("tracefs", "/sys/kernel/tracing"),
    ] {
        fs::create_dir_all(target).with_context(|| format!("cannot create {target}"))?;
        rustix::mount::mount(kind, target, kind, MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {kind} on {target}"))?;
    }
    Ok(())
}

/// Loads one kernel module.
pub(crate) fn load_module(module: &Module) -> anyhow::Result<()> {
    let attempt = || format!("cannot load kernel module {}", module.path);
    let file = File::open(&module.path).with_context(attempt)?;
    let params = CString::new(module.params.as_str()).with_context(attempt)?;
    rustix::system::finit_module(&file, &params, 0).with_context(attempt)
}

/// Opens the virtio-serial port called `name`, for reading and writing.
pub(crate) fn open_port(name: &str) -> anyhow::Result<File> {
    let device = find_port(name)?;
    File::options()
        .read(true)
        .write(true)
        .open(&device)
        .with_context(|| format!("cannot open {device} ({name})"))
}

fn find_port(name: &str) -> anyhow::Result<String> {
    let deadline = Instant::now() + PORT_DEADLINE;
    loop {
        // Ports appear one by one, by messages on the device's control queue.
        if let Ok(ports) = fs::read_dir("/sys/class/virtio-ports") {
            for port in ports.flatten() {
                let found = fs::read_to_string(port.path().join("name")).unwrap_or_default();
                if found.trim_end() == name {
                    return Ok(format!("/dev/{}", port.file_name().to_string_lossy()));
                }
            }
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "virtio-serial port {name} did not appear"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Powers the machine off. Returns only if the kernel refuses.
pub(crate) fn power_off() {
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
}
