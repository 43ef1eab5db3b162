//! Runs commands of vmgstool on a store made from the input.

use std::ffi::OsString;
use std::os::unix::fs::FileExt;
use vmgs::Container;

/// The commands. `STORE` stands for the store and `DATA` for another file.
const COMMANDS: [&str; 14] = [
    "dump-headers -f STORE",
    "dump-headers --json -f STORE",
    "dump-file-table -f STORE",
    "ls --json -f STORE",
    "ls -f STORE",
    "verify -f STORE",
    "query-encryption -f STORE",
    "dump -f STORE -i 1",
    "dump --decode -f STORE -i 19",
    "uefi-nvram dump -f STORE",
    "uefi-nvram export -f STORE",
    "uefi-nvram remove-boot-entries -f STORE",
    "write -f STORE -i 5 -d DATA --force",
    "delete -f STORE -i 1",
];

/// Runs one input: a byte that selects the command, a byte that selects where the rest goes (the start of the store, or
/// files in it), and the rest.
pub(crate) fn run(data: &[u8]) {
    let [command, place, rest @ ..] = data else {
        return;
    };
    if prepare(*place, rest, *command).is_none() {
        unreachable!("a directory for temporary files is writable");
    }
}

fn prepare(place: u8, rest: &[u8], command: u8) -> Option<()> {
    let dir = tempfile::tempdir().ok()?;
    let (store, data) = (dir.path().join("store"), dir.path().join("data"));
    std::fs::write(&data, b"data").ok()?;
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&store)
        .ok()?;
    vmgs::create_file(&file, 64 * 4096, Container::Vhd1, Some(Default::default())).ok()?;
    if place & 1 == 0 {
        file.write_all_at(&rest[..rest.len().min(64 * 4096)], 0)
            .ok()?;
    } else {
        let device =
            vmgs::FileDevice::new(file, Container::Vhd1, vmgs::StoreAccess::ReadWrite).ok()?;
        let mut made = vmgs::Vmgs::format(Box::new(device), vmgs::OpenOptions::default()).ok()?;
        for id in [1, 19] {
            let _ = made.write(vmgs::FileId(id), vmgs::Protection::Plain, rest);
        }
    }
    let command = COMMANDS[usize::from(command) % COMMANDS.len()];
    let args = std::iter::once("vmgstool")
        .chain(command.split(' '))
        .map(|arg| match arg {
            "STORE" => store.clone().into_os_string(),
            "DATA" => data.clone().into_os_string(),
            arg => OsString::from(arg),
        });
    vmgstool::run(args, &mut std::io::sink());
    Some(())
}
