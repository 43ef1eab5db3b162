use crate::GenerationId;
use chipset_device::ChipsetDevice;
use chipset_device::LineInterrupt;
use chipset_device::LineTarget;
use chipset_device::SavedState;
use guest_memory::GuestMemory;
use guest_memory::MIN_RAM;
use guest_memory::MemoryLayout;
use parking_lot::Mutex;
use std::sync::Arc;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

const OLD: [u8; 16] = [1; 16];
const NEW: [u8; 16] = [2; 16];
const NONE: [u8; 16] = [0; 16];
const ADDRESS: u64 = 0x1234;

fn memory() -> GuestMemory {
    let gap = MemoryLayout::DEFAULT_LOW_MMIO_START;
    GuestMemory::anonymous(MemoryLayout::new(MIN_RAM, gap, 46).unwrap()).unwrap()
}

#[derive(Default)]
struct Events(Mutex<Vec<(u32, bool)>>);

impl LineTarget for Events {
    fn set_line(&self, gsi: u32, high: bool) {
        self.0.lock().push((gsi, high));
    }
}

struct Machine {
    memory: GuestMemory,
    events: Arc<Events>,
    device: GenerationId,
}

impl Machine {
    fn new() -> Self {
        let (memory, events) = (memory(), Arc::<Events>::default());
        let line = LineInterrupt::new(5, events.clone());
        Self {
            device: GenerationId::new(OLD, memory.clone(), line),
            memory,
            events,
        }
    }

    fn id_at(&self, address: u64) -> [u8; 16] {
        self.memory.map().read_obj(GuestAddress(address)).unwrap()
    }
}

#[test]
fn the_id_is_written_when_its_address_is_set() {
    let mut m = Machine::new();
    assert_eq!(m.id_at(ADDRESS), NONE);
    m.device.set_address(ADDRESS);
    assert_eq!(m.id_at(ADDRESS), OLD);
    // This is not a change of the ID.
    assert_eq!(*m.events.0.lock(), []);
    m.device.set_address(ADDRESS + 0x100);
    assert_eq!(m.id_at(ADDRESS + 0x100), OLD);
}

#[test]
fn a_change_is_written_and_signalled() {
    let mut m = Machine::new();
    m.device.set_address(ADDRESS);
    m.device.change(NEW);
    assert_eq!((m.id_at(ADDRESS), m.device.state.id), (NEW, NEW));
    assert_eq!(*m.events.0.lock(), [(5, true), (5, false)]);
}

#[test]
fn an_id_changed_before_its_address_is_set_is_written_then() {
    let mut m = Machine::new();
    m.device.change(NEW);
    m.device.set_address(ADDRESS);
    assert_eq!(m.id_at(ADDRESS), NEW);
}

#[test]
fn addresses_outside_of_ram_are_refused() {
    let mut m = Machine::new();
    m.device.set_address(ADDRESS);
    for address in [MIN_RAM - 15, MIN_RAM, u64::MAX - 3, u64::MAX] {
        m.device.set_address(address);
        assert_eq!(m.device.state.address, Some(ADDRESS));
    }
    m.device.set_address(MIN_RAM - 16);
    assert_eq!(m.id_at(MIN_RAM - 16), OLD);
}

#[test]
fn address_zero_clears_the_address() {
    let mut m = Machine::new();
    m.device.set_address(ADDRESS);
    m.device.set_address(0);
    m.device.change(NEW);
    assert_eq!((m.id_at(0), m.id_at(ADDRESS)), (NONE, OLD));
    assert_eq!(m.device.state.address, None);
}

/// The fw_cfg file may be restored, and set the address, before the ID is restored.
#[test]
fn the_restored_id_replaces_that_of_the_new_machine() {
    let mut m = Machine::new();
    m.device.set_address(ADDRESS);
    m.device.change(NEW);
    let state = m.device.save().unwrap();
    for address_first in [true, false] {
        let mut n = Machine::new();
        if address_first {
            n.device.set_address(ADDRESS);
        }
        n.device.restore(&state).unwrap();
        if !address_first {
            n.device.set_address(ADDRESS);
        }
        assert_eq!(n.id_at(ADDRESS), NEW);
    }
}

#[test]
fn a_reset_keeps_the_id_and_clears_its_address() {
    let mut m = Machine::new();
    m.device.set_address(ADDRESS);
    m.device.change(NEW);
    m.device.reset();
    assert_eq!((m.device.state.id, m.device.state.address), (NEW, None));
    m.memory
        .map()
        .write_obj(NONE, GuestAddress(ADDRESS))
        .unwrap();
    m.device.change(OLD);
    assert_eq!(m.id_at(ADDRESS), NONE);
}

#[test]
fn a_restored_device_writes_changes_to_the_restored_address() {
    let mut m = Machine::new();
    m.device.set_address(ADDRESS);
    let state = m.device.save().unwrap();
    let mut n = Machine::new();
    n.device.restore(&state).unwrap();
    assert_eq!(n.id_at(ADDRESS), OLD);
    assert_eq!(*n.events.0.lock(), []);
    assert_eq!(n.device.inspect()["address"], "0x1234");
    n.device.change(NEW);
    assert_eq!(n.id_at(ADDRESS), NEW);
    assert_eq!(n.device.inspect()["id"], "02".repeat(16));
}

#[test]
fn invalid_states_are_refused() {
    let mut m = Machine::new();
    m.device.set_address(ADDRESS);
    let state = m.device.save().unwrap();
    // The address is last, with 16 bits. A longer one is outside of RAM.
    let bytes = state.as_bytes();
    let (head, tail) = bytes.split_at(bytes.len() - 3);
    assert_eq!(tail, [0x19, 0x12, 0x34]);
    let beyond = [head, &[0x1b, 0xff, 0, 0, 0, 0, 0, 0, 0]].concat();
    m.device
        .restore(&SavedState::from_bytes(beyond))
        .unwrap_err();
    m.device
        .restore(&SavedState::from_bytes(vec![0xa0]))
        .unwrap_err();
    assert_eq!(m.device.save().unwrap(), state);
}
