use super::*;
use disk_backend::Buffers;
use disk_backend::DiskAccess;
use disk_backend::DiskError;
use disk_backend::DiskInfo;
use disk_backend::SECTOR;
use rustix::event::EventfdFlags;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::fd::OwnedFd;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;

const OPERATIONS: u64 = 2;

fn open_file() -> Arc<OpenFile> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(OPERATIONS * SECTOR).unwrap();
    open(file)
}

fn open(file: File) -> Arc<OpenFile> {
    let info = DiskInfo {
        name: "test".into(),
        sectors: OPERATIONS,
        logical_block: SECTOR as u32,
        physical_block: SECTOR as u32,
        access: DiskAccess::ReadWrite,
        discard_granularity: None,
        id: None,
    };
    Arc::new(OpenFile::new(file, info, None, None))
}

/// Completes two writes in the ring, and puts a failed poll of event 0 between their entries.
fn queue_with_error_between_completions(events: &[BorrowedFd<'_>]) -> RingQueue {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4096)]).unwrap();
    let memory = Arc::new(memory);
    let mut queue = RingQueue::open(open_file(), 8, events).unwrap();
    for token in 0..OPERATIONS {
        let offset = token * SECTOR;
        let buffers = Buffers::guest(&memory, [(GuestAddress(offset), SECTOR)]).unwrap();
        queue.submit(token, DiskOperation::Write { offset, buffers });
    }
    queue.fill().unwrap();
    while queue.entries.len() < OPERATIONS as usize {
        queue.enter(1).unwrap();
        let entries = queue.ring.completion().map(Entry::from);
        queue
            .entries
            .extend(entries.filter(|entry| entry.user_data < EVENT));
    }
    let failed_poll = Entry {
        user_data: EVENT,
        result: -libc::EBADF,
        more: false,
    };
    queue.entries.insert(1, failed_poll);
    queue
}

type Take = fn(&mut RingQueue, &mut Vec<Completion>) -> io::Result<()>;

#[test]
fn an_error_between_two_completions_loses_neither() {
    if probe().is_err() {
        return;
    }
    let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    for take in [RingQueue::poll as Take, RingQueue::wait as Take] {
        let mut queue = queue_with_error_between_completions(&[event.as_fd()]);
        let mut completions = Vec::new();
        // Nothing is in flight any more: this ends the waits.
        rustix::io::write(&event, &1u64.to_ne_bytes()).unwrap();
        let error = take(&mut queue, &mut completions).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        let mut tokens: Vec<_> = completions.iter().map(|c| c.token).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, [0, 1]);
        assert!(completions.iter().all(|c| c.result.is_ok()));
        // Each is reported once, and the event is watched again.
        completions.clear();
        queue.wait(&mut completions).unwrap();
        assert!(completions.is_empty());
    }
}

#[test]
fn a_flush_that_failed_is_not_tried_again() {
    if probe().is_err() {
        return;
    }
    // A pipe cannot be flushed.
    let (_reader, writer) = io::pipe().unwrap();
    let pipe = File::from(OwnedFd::from(writer));
    let mut queue = RingQueue::open(open(pipe), 8, &[]).unwrap();
    let mut flush = || {
        let mut completions = Vec::new();
        queue.submit(0, DiskOperation::Flush);
        queue.wait(&mut completions).unwrap();
        completions.remove(0).result.unwrap_err()
    };
    assert!(!matches!(flush(), DiskError::FlushFailed));
    assert!(matches!(flush(), DiskError::FlushFailed));
}
