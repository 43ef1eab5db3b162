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
const PLACE: u64 = 0x1234;

pub(crate) fn memory() -> GuestMemory {
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

    fn seen_at(&self, address: u64) -> [u8; 16] {
        self.memory.map().read_obj(GuestAddress(address)).unwrap()
    }
}

#[test]
fn the_id_is_there_once_its_place_is_known() {
    let mut m = Machine::new();
    assert_eq!(m.seen_at(PLACE), NONE);
    m.device.set_address(PLACE);
    assert_eq!(m.seen_at(PLACE), OLD);
    // That is no change.
    assert_eq!(*m.events.0.lock(), []);
    m.device.set_address(PLACE + 0x100);
    assert_eq!(m.seen_at(PLACE + 0x100), OLD);
}

#[test]
fn a_change_is_written_and_signalled() {
    let mut m = Machine::new();
    m.device.set_address(PLACE);
    m.device.change(NEW);
    assert_eq!((m.seen_at(PLACE), m.device.id()), (NEW, NEW));
    assert_eq!(*m.events.0.lock(), [(5, true), (5, false)]);
}

#[test]
fn a_change_before_the_place_is_known_shows_later() {
    let mut m = Machine::new();
    m.device.change(NEW);
    m.device.set_address(PLACE);
    assert_eq!(m.seen_at(PLACE), NEW);
}

#[test]
fn places_outside_of_memory_are_refused() {
    let mut m = Machine::new();
    m.device.set_address(PLACE);
    for address in [MIN_RAM - 15, MIN_RAM, u64::MAX - 3, u64::MAX] {
        m.device.set_address(address);
        assert_eq!(m.device.address(), Some(PLACE));
    }
    m.device.set_address(MIN_RAM - 16);
    assert_eq!(m.seen_at(MIN_RAM - 16), OLD);
}

#[test]
fn address_zero_is_nowhere() {
    let mut m = Machine::new();
    m.device.set_address(PLACE);
    m.device.set_address(0);
    m.device.change(NEW);
    assert_eq!((m.seen_at(0), m.seen_at(PLACE)), (NONE, OLD));
    assert_eq!(m.device.address(), None);
}

/// The file with the address may be restored, and tell it, before the ID is.
#[test]
fn the_restored_id_prevails_over_that_of_the_new_machine() {
    let mut m = Machine::new();
    m.device.set_address(PLACE);
    m.device.change(NEW);
    let state = m.device.save().unwrap();
    for address_first in [true, false] {
        let mut n = Machine::new();
        if address_first {
            n.device.set_address(PLACE);
        }
        n.device.restore(&state).unwrap();
        if !address_first {
            n.device.set_address(PLACE);
        }
        assert_eq!(n.seen_at(PLACE), NEW);
    }
}

#[test]
fn a_reset_keeps_the_id_and_forgets_its_place() {
    let mut m = Machine::new();
    m.device.set_address(PLACE);
    m.device.change(NEW);
    m.device.reset();
    assert_eq!((m.device.id(), m.device.address()), (NEW, None));
    m.memory.map().write_obj(NONE, GuestAddress(PLACE)).unwrap();
    m.device.change(OLD);
    assert_eq!(m.seen_at(PLACE), NONE);
}

#[test]
fn a_restored_device_changes_where_the_guest_looks() {
    let mut m = Machine::new();
    m.device.set_address(PLACE);
    let state = m.device.save().unwrap();
    let mut n = Machine::new();
    n.device.restore(&state).unwrap();
    assert_eq!(n.seen_at(PLACE), OLD);
    assert_eq!(*n.events.0.lock(), []);
    assert_eq!(n.device.inspect()["address"], "0x1234");
    n.device.change(NEW);
    assert_eq!(n.seen_at(PLACE), NEW);
    assert_eq!(n.device.inspect()["id"], "02".repeat(16));
}

#[test]
fn impossible_states_are_refused() {
    let mut m = Machine::new();
    m.device.set_address(PLACE);
    let state = m.device.save().unwrap();
    // The address is last: 16 bits of it. Longer, it is outside of memory.
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
