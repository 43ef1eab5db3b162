//! Variables in a VMGS store: what a change costs, and what a failing device leaves.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use uefi_nvram::SecureBoot;
use uefi_nvram::VariableServices;
use uefi_nvram::VmgsNvram;
use uefi_nvram_storage::Name;
use uefi_nvram_storage::NameQuirk;
use uefi_nvram_storage::VariableKey;
use uefi_nvram_storage::Variables;
use uefi_specs::EfiStatus;
use uefi_specs::guid::GLOBAL_VARIABLE;
use vmgs::BlockDevice;
use vmgs::FileId;
use vmgs::MemoryDevice;
use vmgs::OpenOptions;
use vmgs::Vmgs;
use vmgs_broker::Broker;
use vmgs_broker::VmgsClient;

const ATTRIBUTES: u32 = 7;

#[derive(Default)]
struct State {
    flushes: usize,
    /// Writes that succeed before all fail.
    writes_left: Option<usize>,
}

struct Device {
    memory: MemoryDevice,
    state: Arc<Mutex<State>>,
}

impl BlockDevice for Device {
    fn sector_size(&self) -> u32 {
        self.memory.sector_size()
    }

    fn sector_count(&self) -> u64 {
        self.memory.sector_count()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.memory.read_at(offset, buf)
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if let Some(left) = &mut self.state.lock().writes_left {
            *left = left
                .checked_sub(1)
                .ok_or_else(|| io::Error::other("the disk is broken"))?;
        }
        self.memory.write_at(offset, buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.state.lock().flushes += 1;
        self.memory.flush()
    }
}

fn store() -> (VmgsClient, Arc<Mutex<State>>) {
    let state = Arc::<Mutex<State>>::default();
    let device = Device {
        memory: MemoryDevice::new(512, 4 << 20),
        state: state.clone(),
    };
    let store = Vmgs::format(Box::new(device), OpenOptions::default()).unwrap();
    (Broker::spawn(store).unwrap().0, state)
}

fn services(client: &VmgsClient) -> VariableServices {
    let (storage, file) = VmgsNvram::open(client.clone()).unwrap();
    let secure_boot = SecureBoot::default();
    VariableServices::new(Box::new(storage), file.as_deref(), &secure_boot).unwrap()
}

fn key(name: &str) -> VariableKey {
    VariableKey {
        vendor: GLOBAL_VARIABLE,
        name: Name::new(name).unwrap(),
    }
}

#[test]
fn a_change_is_durable_in_at_most_two_flushes() {
    let (client, state) = store();
    let mut services = services(&client);
    services.synchronize();
    for n in 0..50_u8 {
        let before = state.lock().flushes;
        let data = vec![n; usize::from(n) * 100];
        let set = services.set(
            &key(&format!("Boot{n:04X}")),
            ATTRIBUTES,
            &[&[n][..], &data].concat(),
        );
        assert_eq!(set, Ok(()));
        let flushes = state.lock().flushes - before;
        assert!((1..=2).contains(&flushes), "{flushes}");
    }
}

#[test]
fn wherever_the_device_fails_the_guest_and_the_store_agree() {
    for writes in 0..8 {
        let (client, state) = store();
        let mut services = services(&client);
        services.set(&key("a"), ATTRIBUTES, b"old").unwrap();
        let old = services.variables().clone();
        state.lock().writes_left = Some(writes);
        let set = services.set(&key("a"), ATTRIBUTES, &[1; 5000]);
        let new = services.variables().clone();
        match set {
            Ok(()) => assert_ne!(new, old),
            Err(status) => {
                assert_eq!(status, EfiStatus::DEVICE_ERROR);
                assert_eq!(new, old);
            }
        }
        state.lock().writes_left = None;
        // The same again, or a retry.
        assert_eq!(services.set(&key("a"), ATTRIBUTES, &[1; 5000]), Ok(()));
        let file = pal_async::block_on(client.read(FileId::BIOS_NVRAM)).unwrap();
        let kept = Variables::decode(&file, NameQuirk::Refuse).unwrap();
        assert_eq!(&kept, services.variables());
    }
}
