//! Clients and their broker.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use futures::FutureExt;
use pal_async::block_on;
use std::ops::ControlFlow;
use vmgs::Commit;
use vmgs::FileId;
use vmgs::Key;
use vmgs::MemoryDevice;
use vmgs::OpenOptions;
use vmgs::Protection;
use vmgs::Vmgs;
use vmgs::testing::Fault;
use vmgs::testing::RecordingDevice;
use vmgs_broker::Broker;
use vmgs_broker::BrokerError;

const ID: FileId = FileId(20);

fn store(device: &MemoryDevice) -> Vmgs {
    Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap()
}

#[test]
fn several_threads_use_one_store() {
    let device = MemoryDevice::new(512, 32 << 20);
    let (client, thread) = Broker::spawn(store(&device)).unwrap();
    assert_eq!(block_on(client.info()).unwrap().device_size, 32 << 20);
    assert!(block_on(client.read(ID)).unwrap_err().is_not_allocated());
    block_on(client.write(ID, Protection::Plain, b"content".to_vec())).unwrap();
    assert_eq!(block_on(client.file_info(ID)).unwrap().valid_bytes, 7);
    assert_eq!(
        block_on(client.read_range(ID, 3, usize::MAX)).unwrap(),
        b"tent"
    );
    assert_eq!(block_on(client.read_range(ID, 99, 5)).unwrap(), b"");
    let mut content = Vec::new();
    let collect = &mut |bytes: &[u8]| {
        content.extend_from_slice(bytes);
        ControlFlow::Continue(())
    };
    block_on(client.read_chunks(ID, collect)).unwrap();
    assert_eq!(content, b"content");
    block_on(client.commit(Commit::new().delete(ID))).unwrap();
    let again = block_on(client.commit(Commit::new().delete(ID)));
    assert!(again.unwrap_err().is_not_allocated());

    let threads: Vec<_> = (0..8)
        .map(|n| {
            let client = client.clone();
            std::thread::spawn(move || {
                for round in 0..10u8 {
                    let id = FileId(30 + n);
                    block_on(client.write(id, Protection::Plain, vec![round; 100])).unwrap();
                    assert_eq!(block_on(client.read(id)).unwrap(), [round; 100]);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    drop(client);
    let store = thread.join().unwrap();
    assert_eq!(store.active_header().1, 1 + 2 + 80);
}

#[test]
fn token_and_image_are_one_commit() {
    let device = MemoryDevice::new(512, 32 << 20);
    let (client, thread) = Broker::spawn(store(&device)).unwrap();
    let image = vec![0x5a; 6 << 20];
    let commit = Commit::new()
        .write(
            FileId::HIBERNATION_FIRMWARE,
            Protection::IfEncrypted,
            image.clone(),
        )
        .write(FileId::HIBERNATION_TOKEN, Protection::Plain, vec![0xff; 8])
        .delete_if_present(ID);
    block_on(client.commit(commit)).unwrap();
    assert_eq!(
        block_on(client.read(FileId::HIBERNATION_FIRMWARE)).unwrap(),
        image
    );
    drop(client);
    assert_eq!(thread.join().unwrap().active_header().1, 2);
}

#[test]
fn a_reader_takes_a_file_in_chunks_and_may_stop() {
    let device = MemoryDevice::new(512, 32 << 20);
    let (client, thread) = Broker::spawn(store(&device)).unwrap();
    let content: Vec<u8> = (0..5 << 20).map(|n| (n / 7) as u8).collect();
    block_on(client.write(ID, Protection::Plain, content.clone())).unwrap();
    let mut received = Vec::new();
    let collect = &mut |bytes: &[u8]| {
        received.extend_from_slice(bytes);
        ControlFlow::Continue(())
    };
    block_on(client.read_chunks(ID, collect)).unwrap();
    assert!(received == content);
    let mut chunks = 0;
    let stop = &mut |bytes: &[u8]| {
        assert!(bytes.len() < content.len());
        chunks += 1;
        ControlFlow::Break(())
    };
    block_on(client.read_chunks(ID, stop)).unwrap();
    assert_eq!(chunks, 1);
    let absent = block_on(client.read_chunks(FileId(21), &mut |_| panic!("a chunk of nothing")));
    assert!(absent.unwrap_err().is_not_allocated());
    // The broker serves on.
    assert!(block_on(client.read(ID)).unwrap() == content);
    drop(client);
    thread.join().unwrap();
}

#[test]
fn saving_seals_the_store() {
    let device = MemoryDevice::new(512, 1 << 20);
    let (client, thread) = Broker::spawn(store(&device)).unwrap();
    let asking = client.clone();
    block_on(client.update_key(Key::new([1; 32]))).unwrap();
    block_on(asking.write(ID, Protection::Encrypted, b"secret".to_vec())).unwrap();
    let saved = block_on(asking.save()).unwrap();
    let sealed = |result| assert!(matches!(result, Err(BrokerError::Sealed)));
    sealed(block_on(asking.write(ID, Protection::Encrypted, vec![])));
    sealed(block_on(asking.commit(Commit::new().delete(ID))));
    sealed(block_on(client.update_key(Key::new([2; 32]))));
    assert!(block_on(asking.info()).unwrap().sealed);
    assert_eq!(block_on(asking.read(ID)).unwrap(), b"secret");

    let (restored, restored_client) =
        Broker::restore(Box::new(device.clone()), OpenOptions::default(), &saved).unwrap();
    let running = std::thread::spawn(|| block_on(restored.run()));
    assert_eq!(block_on(restored_client.read(ID)).unwrap(), b"secret");
    drop(restored_client);
    running.join().unwrap();

    block_on(asking.unseal()).unwrap();
    block_on(asking.write(ID, Protection::Encrypted, b"changed".to_vec())).unwrap();
    drop((asking, client));
    thread.join().unwrap();

    let nonsense = mesh::saved_state::SavedState::from_bytes(vec![1, 2, 3]);
    assert!(Broker::restore(Box::new(device), OpenOptions::default(), &nonsense).is_err());
}

#[test]
fn only_the_broker_that_formatted_a_store_gives_the_reason() {
    let device = MemoryDevice::new(512, 1 << 20);
    let (client, thread) = Broker::spawn(store(&device)).unwrap();
    let reason = block_on(client.info()).unwrap().provisioned.unwrap();
    assert_eq!(reason, vmgs::ProvisioningReason::Request);
    drop(client);
    drop(thread.join().unwrap());
    let reopened = Vmgs::open(Box::new(device), OpenOptions::default()).unwrap();
    let (client, _thread) = Broker::spawn(reopened).unwrap();
    assert_eq!(block_on(client.info()).unwrap().provisioned, None);
}

#[test]
fn threads_change_keys() {
    let device = MemoryDevice::new(512, 1 << 20);
    let (client, thread) = Broker::spawn(store(&device)).unwrap();
    block_on(client.update_key(Key::new([1; 32]))).unwrap();
    block_on(client.write(ID, Protection::Encrypted, b"secret".to_vec())).unwrap();
    drop(client);
    drop(thread.join().unwrap());
    let reopened = Vmgs::open(Box::new(device), OpenOptions::default()).unwrap();
    let (client, _thread) = Broker::spawn(reopened).unwrap();
    assert!(block_on(client.info()).unwrap().locked);
    let error = block_on(client.unlock(Key::new([2; 32]))).unwrap_err();
    assert!(matches!(error, BrokerError::Store(vmgs::Error::WrongKey)));
    block_on(client.unlock(Key::new([1; 32]))).unwrap();
    assert_eq!(block_on(client.read(ID)).unwrap(), b"secret");
}

#[test]
fn a_withdrawn_request_is_not_carried_out() {
    let device = MemoryDevice::new(512, 1 << 20);
    let (broker, client) = Broker::new(store(&device));
    // Nobody serves yet: both wait in the queue, and one is withdrawn.
    let mut kept = Box::pin(client.write(FileId(1), Protection::Plain, vec![1]));
    let mut dropped = Box::pin(client.write(FileId(2), Protection::Plain, vec![2]));
    assert!(kept.as_mut().now_or_never().is_none());
    assert!(dropped.as_mut().now_or_never().is_none());
    drop(dropped);
    let thread = std::thread::spawn(|| block_on(broker.run()));
    block_on(kept).unwrap();
    drop(client);
    let store = thread.join().unwrap();
    assert!(store.is_allocated(FileId(1)));
    assert!(!store.is_allocated(FileId(2)));
}

#[test]
fn a_broker_that_is_gone_is_an_error() {
    let device = MemoryDevice::new(512, 1 << 20);
    let (broker, client) = Broker::new(store(&device));
    let mut waiting = Box::pin(client.read(ID));
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(broker);
    assert!(matches!(
        waiting.now_or_never(),
        Some(Err(BrokerError::Offline(_)))
    ));
    assert!(matches!(
        block_on(client.read(ID)),
        Err(BrokerError::Offline(_))
    ));
}

#[test]
fn the_store_is_reloaded_before_the_change_after_a_commit_in_doubt() {
    for fault in [Fault::Fails(3), Fault::FailsAfterEffect(3), Fault::Fails(4)] {
        let device = RecordingDevice::new(512, vec![0; 1 << 20]);
        let store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
        let (client, _thread) = Broker::spawn(store).unwrap();
        block_on(client.write(ID, Protection::Plain, b"old".to_vec())).unwrap();
        // After content, table and flush comes the header, and its flush.
        device.inject(Some(fault));
        block_on(client.write(ID, Protection::Plain, b"new".to_vec())).unwrap_err();
        block_on(client.write(FileId(21), Protection::Plain, b"next".to_vec())).unwrap();
        let content = block_on(client.read(ID)).unwrap();
        let happened = fault != Fault::Fails(3);
        assert_eq!(content == b"new", happened, "{fault:?}");
        assert_eq!(block_on(client.read(FileId(21))).unwrap(), b"next");
    }
}

#[test]
fn blocks_are_kept_free_for_a_reserved_file() {
    let device = MemoryDevice::new(512, 8 * 4096);
    let (client, _thread) = Broker::spawn(store(&device)).unwrap();
    block_on(client.reserve(ID, 8)).unwrap();
    // Of the four free blocks two are for the file and its successor, and one for a table.
    block_on(client.write(FileId(21), Protection::Plain, vec![1])).unwrap();
    let error = block_on(client.write(FileId(22), Protection::Plain, vec![1])).unwrap_err();
    assert!(
        matches!(
            error,
            BrokerError::Store(vmgs::Error::Reserved {
                id: FileId(22),
                reserved: 12288,
            })
        ),
        "{error}"
    );
    for content in [b"first", b"again"] {
        block_on(client.write(ID, Protection::Plain, content.to_vec())).unwrap();
    }
}
