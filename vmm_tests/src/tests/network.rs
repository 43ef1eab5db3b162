//! Guests have a network.

use super::Context;
use anyhow::Context as _;
use anyhow::ensure;
use sha2::Digest as _;
use sha2::Sha256;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use vmm_tests::HostTap;
use vmm_tests::Vm;

const BYTES: usize = 4 << 20;

/// TCP in both directions, again after a reset.
pub(super) fn tcp(context: &Context) -> anyhow::Result<()> {
    let tap = HostTap::new();
    let mut vm = context
        .uefi()?
        .linux("")
        .args(["-p", "2", "--net", &tap.argument()])
        .boot()?;
    tap.bring_up()?;
    exchange(&mut vm, &tap)?;
    vm.type_line("reboot")?;
    vm.wait_for_event("reset", 1)?;
    vm.wait_for_guest("ready")?;
    exchange(&mut vm, &tap)?;
    vm.power_off()
}

/// Brings the guest's network up and transfers data.
pub(super) fn exchange(vm: &mut Vm, tap: &HostTap) -> anyhow::Result<()> {
    let up = vm.ask(&format!("net up {}/24", tap.guest()), "net up ")?;
    ensure!(up.starts_with("0 "), "the guest's network: {up}");
    transfer(vm, tap)
}

/// Sends some megabytes to the guest and receives some, and compares checksums. The guest's network is up.
pub(super) fn transfer(vm: &mut Vm, tap: &HostTap) -> anyhow::Result<()> {
    transfer_by(vm, tap.host(), tap.host())
}

/// The same with a server at the address `own`, which the guest knows as `server`.
fn transfer_by(vm: &mut Vm, own: Ipv4Addr, server: Ipv4Addr) -> anyhow::Result<()> {
    let listener = TcpListener::bind((own, 0)).context("the host cannot listen")?;
    let port = listener.local_addr()?.port();

    let data: Vec<u8> = (0..BYTES).map(|i| (i * 7 % 251) as u8).collect();
    let serving = serve(listener.try_clone()?, {
        let data = data.clone();
        move |mut guest| guest.write_all(&data).map(|()| Vec::new())
    });
    let said = vm.ask(&format!("net receive {server} {port}"), "net receive ")?;
    ensure!(said.starts_with("0 "), "receiving, the guest said {said}");
    serving
        .join()
        .map_err(|_| anyhow::anyhow!("sending panicked"))??;
    let expected = format!("0 {BYTES} {}", sha256(&data));
    ensure!(
        said == expected,
        "the guest received {said}, not {expected}"
    );

    let serving = serve(listener, |mut guest| {
        let mut received = Vec::new();
        guest.read_to_end(&mut received).map(|_| received)
    });
    let kib = BYTES >> 10;
    let said = vm.ask(&format!("net send {server} {port} {kib}"), "net send ")?;
    ensure!(said.starts_with("0 "), "sending, the guest said {said}");
    let received = serving
        .join()
        .map_err(|_| anyhow::anyhow!("receiving panicked"))??;
    let expected = format!("0 {} {}", received.len(), sha256(&received));
    ensure!(
        said == expected && received.len() == BYTES,
        "the guest sent {said}, {expected} arrived"
    );
    Ok(())
}

/// The time limit for each step on the network.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits for a connection, with a time limit: a guest that failed does not connect.
fn accept(listener: &TcpListener) -> std::io::Result<TcpStream> {
    let deadline = Instant::now() + LIMIT;
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((guest, _)) => {
                guest.set_nonblocking(false)?;
                return Ok(guest);
            }
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Starts a thread that serves one connection of the guest.
fn serve(
    listener: TcpListener,
    talk: impl FnOnce(TcpStream) -> std::io::Result<Vec<u8>> + Send + 'static,
) -> thread::JoinHandle<std::io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let guest = accept(&listener)?;
        guest.set_read_timeout(Some(LIMIT))?;
        guest.set_write_timeout(Some(LIMIT))?;
        talk(guest)
    })
}

fn sha256(data: &[u8]) -> String {
    let digest = Sha256::digest(data);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
