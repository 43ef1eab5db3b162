//! Storing an image with `vmgstool`, compared with `dd` and `cp` of the same bytes on the same file system.
//! Run it with `TMPDIR` on a disk.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on has failed"
)]

use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

const ROUNDS: usize = 30;
/// Warm-up rounds, in which the file system allocates blocks to files that are written for the first time.
const WARM_UP: usize = 6;
const TOOL: &str = env!("CARGO_BIN_EXE_vmgstool");

fn run(dir: &Path, command: &str) -> Duration {
    let mut words = command.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command
        .args(words)
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let start = Instant::now();
    assert!(command.status().unwrap().success(), "{command:?}");
    start.elapsed()
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let image: Vec<u8> = (0..6u32 << 20).map(|n| (n >> 4) as u8).collect();
    std::fs::write(dir.join("image"), &image).unwrap();
    std::fs::write(dir.join("key"), [1; 32]).unwrap();
    run(dir, &format!("{TOOL} create -f plain.vmgs -s 33554432"));
    run(
        dir,
        &format!("{TOOL} create -f encrypted.vmgs -s 33554432 -k key -e AES_GCM"),
    );
    let commands = [
        "dd if=image of=copy bs=1M conv=fdatasync".to_owned(),
        "dd if=image of=over bs=1M conv=fdatasync,notrunc".to_owned(),
        "cp image copied".to_owned(),
        format!("{TOOL} write -f plain.vmgs -i 19 -d image --force"),
        format!("{TOOL} write -f encrypted.vmgs -i 19 -d image -k key --force"),
        format!("{TOOL} dump -f plain.vmgs -i 19 -d out"),
        format!("{TOOL} dump-headers -f plain.vmgs"),
    ];
    let mut times = vec![Vec::new(); commands.len()];
    for round in 0..WARM_UP + ROUNDS {
        // Interleaved, so that load on the machine affects all equally.
        for (command, times) in commands.iter().zip(&mut times) {
            let time = run(dir, command);
            if round >= WARM_UP {
                times.push(time);
            }
        }
    }
    for (command, times) in commands.iter().zip(&mut times) {
        times.sort();
        let name = command.replace(TOOL, "vmgstool");
        println!(
            "{:>10.3?} median {:>10.3?} best  {name}",
            times[ROUNDS / 2],
            times[0]
        );
    }
    let ratio = |n: usize| times[n][ROUNDS / 2].as_secs_f64() / times[3][ROUNDS / 2].as_secs_f64();
    println!(
        "storing runs at {:.2} times the speed of dd to a new file, {:.2} of dd over an old one, {:.2} of cp",
        ratio(0),
        ratio(1),
        ratio(2)
    );
    let size = std::fs::metadata(TOOL).unwrap().len();
    println!("{size} bytes: vmgstool");
}
