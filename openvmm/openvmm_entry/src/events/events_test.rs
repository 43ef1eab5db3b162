use super::queue::CAPACITY;
use super::*;
use std::io::BufRead;
use std::io::BufReader;
use std::os::fd::AsRawFd;

fn event(kind: VmEventKind) -> VmEvent {
    let at = Instant::now();
    VmEvent { at, kind }
}

fn halted() -> VmEvent {
    let reason = HaltReason::PowerOff;
    event(VmEventKind::Lifecycle(LifecycleEvent::Halted(reason)))
}

fn parse(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn lines_have_increasing_times() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let target = EventsTarget::File(file.path().into());
    let log = EventLog::open(Some(&target)).unwrap();
    log.vm_event(&event(VmEventKind::Created));
    log.vm_event(&halted());
    log.flush();
    let lines = parse(&std::fs::read_to_string(file.path()).unwrap());
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["event"], "created");
    assert_eq!(lines[1]["reason"], "power_off");
    assert!(lines[0]["monotonic_ns"].as_u64() <= lines[1]["monotonic_ns"].as_u64());
    assert!(lines[0]["since_start_ns"].as_u64() > Some(0));
}

#[test]
fn a_descriptor_that_is_not_open_is_an_error() {
    assert!(EventLog::open(Some(&EventsTarget::Descriptor(9999))).is_err());
}

#[test]
fn a_disk_or_a_directory_is_no_place_for_events() {
    let directory = tempfile::tempdir().unwrap();
    let target = EventsTarget::File(directory.path().into());
    let error = EventLog::open(Some(&target)).err().unwrap();
    assert!(error.contains("it is a directory"), "{error}");
}

/// Reads lines up to the last event.
fn read_to_halted(reader: impl std::io::Read) -> Vec<Value> {
    let mut lines = Vec::new();
    for line in BufReader::new(reader).lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let last = line["event"] == "halted";
        lines.push(line);
        if last {
            break;
        }
    }
    lines
}

#[test]
fn a_reader_that_stalls_delays_nobody_and_loses_what_has_no_room() {
    let (reader, writer) = std::io::pipe().unwrap();
    let target = EventsTarget::Descriptor(writer.as_raw_fd());
    let log = EventLog::open(Some(&target)).unwrap();
    // More than the queue and the pipe hold.
    let sent = 3 * CAPACITY;
    for _ in 0..sent {
        log.vm_event(&event(VmEventKind::PowerButton));
    }
    log.vm_event(&halted());
    let reading = std::thread::spawn(move || read_to_halted(reader));
    log.flush();
    let lines = reading.join().unwrap();
    let [buttons @ .., lost, halted] = &*lines else {
        panic!("{} lines", lines.len());
    };
    assert_eq!(halted["reason"], "power_off");
    assert_eq!(lost["event"], "events_lost");
    assert!(buttons.len() >= CAPACITY, "{}", buttons.len());
    assert!(buttons.iter().all(|line| line["event"] == "power_button"));
    let lost = lost["count"].as_u64().unwrap() as usize;
    assert_eq!(lost + buttons.len(), sent);
}

#[test]
fn a_named_pipe_may_get_its_reader_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
    let log = EventLog::open(Some(&EventsTarget::File(path.clone()))).unwrap();
    log.vm_event(&event(VmEventKind::Created));
    log.vm_event(&halted());
    let lines = read_to_halted(File::open(&path).unwrap());
    assert_eq!(lines[0]["event"], "created");
    assert_eq!(lines.len(), 2);
}
