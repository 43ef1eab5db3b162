//! Clients and their broker.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use futures::FutureExt;
use std::sync::Arc;
use std::sync::Mutex;
use vmgs::FileId;
use vmgs::Key;
use vmgs::MemoryDevice;
use vmgs::OpenOptions;
use vmgs::Overwrite;
use vmgs::Protection;
use vmgs::Vmgs;
use vmgs::testing::Fault;
use vmgs::testing::RecordingDevice;
use vmgs_broker::Broker;
use vmgs_broker::BrokerError;
use vmgs_broker::Changes;
use vmgs_broker::FileContent;
use vmgs_broker::NonVolatileStore;

const ID: FileId = FileId(20);

fn store(device: &MemoryDevice) -> Vmgs {
    Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap()
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn threads_ask_and_are_answered() {
    let device = MemoryDevice::new(512, 32 << 20);
    let (client, thread) = Broker::spawn(store(&device)).unwrap();
    let client = client.blocking();
    assert_eq!(client.device_size().unwrap(), 32 << 20);
    assert!(client.read(ID).unwrap_err().is_not_allocated());
    client
        .write(ID, Protection::Plain, b"content".to_vec())
        .unwrap();
    assert_eq!(client.file_info(ID).unwrap().valid_bytes, 7);
    assert_eq!(client.read_range(ID, 3, usize::MAX).unwrap(), b"tent");
    assert_eq!(client.read_range(ID, 99, 5).unwrap(), b"");
    client.move_file(ID, FileId(21), Overwrite::Refuse).unwrap();
    let sink = Sink::default();
    assert_eq!(
        client.read_to(FileId(21), Box::new(sink.clone())).unwrap(),
        7
    );
    assert_eq!(*sink.0.lock().unwrap(), b"content");
    client.delete_file(FileId(21)).unwrap();
    assert!(
        client
            .delete_file(FileId(21))
            .unwrap_err()
            .is_not_allocated()
    );
    client.flush().unwrap();

    let threads: Vec<_> = (0..8)
        .map(|n| {
            let client = client.clone();
            std::thread::spawn(move || {
                for round in 0..10u8 {
                    let id = FileId(30 + n);
                    client
                        .write(id, Protection::Plain, vec![round; 100])
                        .unwrap();
                    assert_eq!(client.read(id).unwrap(), [round; 100]);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    drop(client);
    let store = thread.join().unwrap();
    assert_eq!(store.active_header().1, 1 + 3 + 80);
}

#[test]
fn token_and_image_are_one_commit() {
    let device = MemoryDevice::new(512, 32 << 20);
    let (client, thread) = Broker::spawn(store(&device)).unwrap();
    let client = client.blocking();
    let image = vec![0x5a; 6 << 20];
    let stream = std::io::Cursor::new(image.clone());
    client
        .commit(
            Changes::new()
                .write(
                    FileId::HIBERNATION_FIRMWARE,
                    Protection::IfEncrypted,
                    FileContent::Stream {
                        len: 6 << 20,
                        source: Box::new(stream),
                    },
                )
                .write(FileId::HIBERNATION_TOKEN, Protection::Plain, vec![0xff; 8])
                .delete_if_present(ID),
        )
        .unwrap();
    assert_eq!(client.read(FileId::HIBERNATION_FIRMWARE).unwrap(), image);
    drop(client);
    assert_eq!(thread.join().unwrap().active_header().1, 2);
}

#[test]
fn saving_seals() {
    let device = MemoryDevice::new(512, 1 << 20);
    let (client, thread) = Broker::spawn(store(&device)).unwrap();
    let asking = client.clone().blocking();
    futures_block(client.update_key(Key::new([1; 32]))).unwrap();
    asking
        .write(ID, Protection::Encrypted, b"secret".to_vec())
        .unwrap();
    let saved = asking.save().unwrap();
    let sealed = |result| assert!(matches!(result, Err(BrokerError::Sealed)));
    sealed(asking.write(ID, Protection::Encrypted, vec![]));
    sealed(asking.delete_file(ID));
    sealed(asking.move_file(ID, FileId(21), Overwrite::Refuse));
    sealed(futures_block(client.update_key(Key::new([2; 32]))));
    sealed(futures_block(client.rekey()).map(drop));
    assert!(asking.info().unwrap().sealed);
    assert_eq!(asking.read(ID).unwrap(), b"secret");

    let (restored, restored_client) =
        Broker::restore(Box::new(device.clone()), OpenOptions::default(), &saved).unwrap();
    let running = std::thread::spawn(|| restored.run_blocking());
    let restored_client = restored_client.blocking();
    assert_eq!(restored_client.read(ID).unwrap(), b"secret");
    drop(restored_client);
    running.join().unwrap();

    asking.unseal().unwrap();
    asking
        .write(ID, Protection::Encrypted, b"changed".to_vec())
        .unwrap();
    drop((asking, client));
    thread.join().unwrap();

    let nonsense = mesh::saved_state::SavedState::from_bytes(vec![1, 2, 3]);
    assert!(Broker::restore(Box::new(device), OpenOptions::default(), &nonsense).is_err());
}

#[test]
fn what_formatted_the_store_is_told_and_recorded() {
    let device = MemoryDevice::new(512, 1 << 20);
    let (client, thread) = Broker::spawn(store(&device)).unwrap();
    let client = client.blocking();
    let reason = client.info().unwrap().provisioned.unwrap();
    assert_eq!(reason, vmgs::ProvisioningReason::Request);
    let marker = vmgs::ProvisioningMarker {
        provisioner: vmgs::Provisioner::Unknown,
        reason: reason.into(),
        tpm_version: "1.38".into(),
        tpm_nvram_size: 32768,
        akcert_size: 4096,
        akcert_attrs: "0x42060004".into(),
        provisioner_version: "1".into(),
    };
    client.write_provisioning_marker(&marker).unwrap();
    let stored = client.read(FileId::PROVISIONING_MARKER).unwrap();
    assert_eq!(stored, marker.to_bytes().unwrap());
    drop(client);
    drop(thread.join().unwrap());
    let reopened = Vmgs::open(Box::new(device), OpenOptions::default()).unwrap();
    let (client, _thread) = Broker::spawn(reopened).unwrap();
    assert_eq!(client.blocking().info().unwrap().provisioned, None);
}

#[test]
fn threads_change_keys() {
    let device = MemoryDevice::new(512, 1 << 20);
    let (client, thread) = Broker::spawn(store(&device)).unwrap();
    let client = client.blocking();
    client.update_key(Key::new([1; 32])).unwrap();
    client
        .write(ID, Protection::Encrypted, b"secret".to_vec())
        .unwrap();
    assert_eq!(client.rekey().unwrap(), []);
    drop(client);
    drop(thread.join().unwrap());
    let reopened = Vmgs::open(Box::new(device), OpenOptions::default()).unwrap();
    let (client, _thread) = Broker::spawn(reopened).unwrap();
    let client = client.blocking();
    assert!(client.info().unwrap().locked);
    let error = client.unlock(Key::new([2; 32])).unwrap_err();
    assert!(matches!(error, BrokerError::Store(vmgs::Error::WrongKey)));
    client.unlock(Key::new([1; 32])).unwrap();
    assert_eq!(client.read(ID).unwrap(), b"secret");
}

fn futures_block<T>(future: impl Future<Output = T>) -> T {
    // The broker has its own thread; asking again and again is all it takes.
    let mut future = std::pin::pin!(future);
    loop {
        if let Some(output) = future.as_mut().now_or_never() {
            return output;
        }
        std::thread::yield_now();
    }
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
    let thread = std::thread::spawn(|| broker.run_blocking());
    futures_block(kept).unwrap();
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
        client.blocking().read(ID),
        Err(BrokerError::Offline(_))
    ));
}

#[test]
fn doubt_is_resolved_before_the_next_change() {
    for fault in [Fault::Fails(3), Fault::FailsAfterEffect(3), Fault::Fails(4)] {
        let device = RecordingDevice::new(512, vec![0; 1 << 20]);
        let store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
        let (client, _thread) = Broker::spawn(store).unwrap();
        let client = client.blocking();
        client
            .write(ID, Protection::Plain, b"old".to_vec())
            .unwrap();
        // After content, table and flush comes the header, and its flush.
        device.inject(Some(fault));
        client
            .write(ID, Protection::Plain, b"new".to_vec())
            .unwrap_err();
        client
            .write(FileId(21), Protection::Plain, b"next".to_vec())
            .unwrap();
        let content = client.read(ID).unwrap();
        let happened = fault != Fault::Fails(3);
        assert_eq!(content == b"new", happened, "{fault:?}");
        assert_eq!(client.read(FileId(21)).unwrap(), b"next");
    }
}

#[test]
fn a_device_keeps_its_state_in_a_file() {
    let device = MemoryDevice::new(512, 1 << 20);
    let (client, _thread) = Broker::spawn(store(&device)).unwrap();
    let file = NonVolatileStore::new(client, FileId::BIOS_NVRAM, Protection::IfEncrypted);
    assert_eq!(futures_block(file.restore()).unwrap(), None);
    futures_block(file.persist(vec![1, 2, 3])).unwrap();
    assert_eq!(futures_block(file.restore()).unwrap(), Some(vec![1, 2, 3]));
}
