//! The first process of the lab: sets the machine up, runs one command with its standard streams on
//! virtio-serial ports, and reports how it ended.
#![forbid(unsafe_code)]

mod machine;
mod run;

use lab_init::JOB_PATH;
use lab_init::LabJob;
use lab_init::port;
use std::fs;
use std::io;
use std::io::Read;
use std::io::Write;
use std::thread;

fn main() {
    if let Err(err) = lab() {
        // The host prints the console's output if no report arrives.
        eprintln!("lab: {err:#}");
    }
    machine::power_off();
}

fn lab() -> anyhow::Result<()> {
    machine::change_root()?;
    machine::mount_filesystems()?;
    let job: LabJob = serde_json::from_slice(&fs::read(JOB_PATH)?)?;
    for module in &job.modules {
        machine::load_module(module)?;
    }
    machine::bring_network_up()?;
    let mut pulse = machine::open_port(port::PULSE)?;
    thread::spawn(move || io::copy(&mut pulse, &mut io::sink()));
    let mut reports = machine::open_port(port::REPORT)?;
    let (report, files) = run::run(&job)?;
    let mut line = serde_json::to_vec(&report)?;
    line.push(b'\n');
    reports.write_all(&line)?;
    for (size, file) in files {
        // Exactly as many bytes as announced, even if the file changed: the host counts them.
        let mut bytes = file.chain(io::repeat(0)).take(size);
        io::copy(&mut bytes, &mut reports)?;
    }
    // The host ends the machine when it has received everything; powering off could lose data in flight.
    loop {
        thread::park();
    }
}
