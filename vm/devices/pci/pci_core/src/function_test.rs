use crate::Bar;
use crate::ClassCode;
use crate::FunctionBuilder;
use crate::HardwareIds;
use crate::Location;
use crate::MsiRecorder;
use crate::MsixLayout;
use crate::PciFunction;
use crate::PciLayoutError;
use chipset_device::AddressDecoder;
use chipset_device::DecodedRanges;
use chipset_device::LineInterrupt;
use chipset_device::LineTarget;
use chipset_device::RestoreError;
use parking_lot::Mutex;
use proptest::prelude::*;
use std::sync::Arc;

const IDS: HardwareIds = HardwareIds {
    vendor: 0x1af4,
    device: 0x1042,
    revision: 1,
    class: ClassCode {
        base: 0x01,
        sub: 0x80,
        interface: 0x05,
    },
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

const MEMORY64: Bar = Bar::Memory64 {
    size: 0x4000,
    prefetchable: true,
};

/// Records the calls to the chipset and the interrupt controller.
#[derive(Clone, Default)]
struct Recorder {
    ranges: Arc<Mutex<Vec<DecodedRanges>>>,
    levels: Arc<Mutex<Vec<bool>>>,
}

impl Recorder {
    fn decoder(&self) -> AddressDecoder {
        let ranges = self.ranges.clone();
        AddressDecoder::new(move |decoded| ranges.lock().push(decoded))
    }

    fn line(&self) -> LineInterrupt {
        LineInterrupt::new(16, Arc::new(self.clone()))
    }
}

impl LineTarget for Recorder {
    fn set_line(&self, _gsi: u32, high: bool) {
        self.levels.lock().push(high);
    }
}

/// A function with a BAR of each kind, INTx and MSI-X.
fn function(recorder: &Recorder) -> PciFunction {
    let mut builder = FunctionBuilder::new(&IDS);
    builder.bar(0, Bar::Memory32 { size: 0x100 }).unwrap();
    builder.bar(1, MEMORY64).unwrap();
    builder.bar(3, Bar::Io { size: 32 }).unwrap();
    builder.intx(recorder.line());
    let layout = MsixLayout {
        bar: 1,
        vectors: 3,
        table_offset: 0x2000,
        pending_offset: 0x3000,
    };
    builder.msix(layout, &MsiRecorder::new()).unwrap();
    builder.build(recorder.decoder())
}

/// Writes a register, and returns whether other ranges are decoded then.
fn set(function: &mut PciFunction, offset: u16, value: u32) -> bool {
    let before = function.decoded_ranges();
    function.write_config(offset, value, u32::MAX);
    function.decoded_ranges() != before
}

#[test]
fn the_header_has_the_ids() {
    let function = function(&Recorder::default());
    let header: Vec<_> = (0..0x40)
        .step_by(4)
        .map(|o| function.read_config(o))
        .collect();
    assert_eq!(
        header,
        [
            0x1042_1af4,
            0x0010_0000,
            0x0180_0501,
            0,
            0,
            0xc,
            0,
            1,
            0,
            0,
            0,
            0x1100_1af4,
            0,
            0x40,
            0,
            0x0000_0100,
        ]
    );
    assert_eq!(function.read_config(0x100), u32::MAX);
    assert_eq!(function.read_config(0xffc), u32::MAX);
}

#[test]
fn guests_can_determine_bar_sizes() {
    let mut function = function(&Recorder::default());
    let mut probe = |offset| {
        assert!(!set(&mut function, offset, u32::MAX));
        function.read_config(offset)
    };
    assert_eq!(probe(0x10), 0xffff_ff00);
    assert_eq!(probe(0x14), 0xffff_c00c);
    assert_eq!(probe(0x18), 0xffff_ffff);
    assert_eq!(probe(0x1c), 0xffff_ffe1);
    assert_eq!(probe(0x20), 0);
    assert_eq!(probe(0x30), 0, "no expansion ROM");
}

#[test]
fn enabled_bars_are_decoded_at_their_address() {
    let recorder = Recorder::default();
    let mut function = function(&recorder);
    for (offset, value) in [
        (0x10, 0xc000_0100),
        (0x14, 0x0000_4000),
        (0x18, 0x20),
        (0x1c, 0x6020),
    ] {
        assert!(!set(&mut function, offset, value));
    }
    assert_eq!(recorder.ranges.lock().len(), 0);
    assert_eq!(function.memory_base(0), None);

    assert!(set(&mut function, 4, 2));
    let memory = vec![0xc000_0100..=0xc000_01ff, 0x20_0000_4000..=0x20_0000_7fff];
    let last = || recorder.ranges.lock().last().cloned().unwrap();
    assert_eq!(
        last(),
        DecodedRanges {
            ports: vec![],
            mmio: memory.clone()
        }
    );
    assert!(set(&mut function, 4, 3));
    assert_eq!(
        last(),
        DecodedRanges {
            ports: vec![0x6020..=0x603f],
            mmio: memory
        }
    );
    assert_eq!(function.memory_base(0), Some(0xc000_0100));
    assert_eq!(function.memory_base(1), Some(0x20_0000_4000));
    assert_eq!(function.memory_base(2), None, "the high half of BAR 1");
    assert_eq!(function.memory_base(3), None, "an I/O BAR");
    assert_eq!(function.memory_base(9), None);

    let bar = |index, offset| Some(Location::Bar { index, offset });
    assert_eq!(function.locate_memory(0xc000_00ff), None);
    assert_eq!(function.locate_memory(0xc000_01ff), bar(0, 0xff));
    assert_eq!(function.locate_memory(0x20_0000_5fff), bar(1, 0x1fff));
    let msix = |gpa| matches!(function.locate_memory(gpa), Some(Location::Msix(_)));
    assert!(msix(0x20_0000_6000) && msix(0x20_0000_602f) && !msix(0x20_0000_6030));
    assert!(msix(0x20_0000_7000) && msix(0x20_0000_7007) && !msix(0x20_0000_7008));
    assert_eq!(function.locate_port(0x603f), bar(3, 0x1f));
    assert_eq!(function.locate_port(0x6040), None);

    // Moved while enabled, half by half.
    assert!(set(&mut function, 0x18, 0));
    assert_eq!(function.memory_base(1), Some(0x4000));
    assert!(set(&mut function, 0x14, 0));
    assert_eq!(function.memory_base(1), None, "unassigned");
    assert!(!set(&mut function, 0x14, 0));
    function.reset();
    assert_eq!(last(), DecodedRanges::default());
    assert_eq!(function.read_config(0x10), 0);
}

#[test]
fn the_pin_is_driven_unless_disabled() {
    let recorder = Recorder::default();
    let mut function = function(&recorder);
    let levels = || std::mem::take(&mut *recorder.levels.lock());
    function.set_intx(true);
    function.set_intx(true);
    assert_eq!(levels(), [true]);
    assert_eq!(function.read_config(4) & 1 << 19, 1 << 19);
    set(&mut function, 4, 1 << 10);
    assert_eq!(levels(), [false]);
    assert_eq!(function.read_config(4) & 1 << 19, 1 << 19, "asks still");
    set(&mut function, 4, 0);
    assert_eq!(levels(), [true]);
    set(&mut function, 0x40, 1 << 31);
    assert!(function.msix_enabled());
    assert_eq!(levels(), [false]);
    set(&mut function, 0x40, 0);
    assert_eq!(levels(), [true]);

    let state = function.save();
    function.set_intx(false);
    assert_eq!(function.read_config(4) & 1 << 19, 0);
    levels();
    function.restore(&state).unwrap();
    assert!(function.intx());
    assert_eq!(levels(), [true, true], "driven again");
    function.reset();
    assert_eq!(levels(), [false]);
}

#[test]
fn capabilities_are_linked() {
    let mut builder = FunctionBuilder::new(&IDS);
    builder.register(0x44, 0xabcd_0123, 0xff).unwrap();
    let a = builder.capability(0x09, &[0x14, 1, 2, 3], &[0, 0, 0xf0, 0xff, 0xff]);
    let b = builder.capability(0x05, &[7, 8], &[]);
    assert_eq!((a.unwrap(), b.unwrap()), (0x48, 0x40));
    let mut function = builder.build(AddressDecoder::detached());
    assert_eq!(function.read_config(0x04) >> 20 & 1, 1);
    assert_eq!(function.read_config(0x34), 0x48);
    assert_eq!(function.read_config(0x48), 0x0114_4009);
    assert_eq!(function.read_config(0x40), 0x0807_0005);
    for offset in (0x40..0x100).step_by(4) {
        set(&mut function, offset, u32::MAX);
    }
    assert_eq!(function.read_config(0x48), 0x0114_4009);
    assert_eq!(function.read_config(0x4c), 0x0000_fff2);
    assert_eq!(function.read_config(0x40), 0x0807_0005);
    assert_eq!(function.read_config(0x44), 0xabcd_01ff);
    assert_eq!(function.read_config(0x50), 0);
}

#[test]
fn invalid_layouts_are_refused() {
    let mut builder = FunctionBuilder::new(&IDS);
    let memory = Bar::Memory32 { size: 0x1000 };
    let mut bar = |index, bar| builder.bar(index, bar).map(|_| ()).unwrap_err();
    assert!(matches!(bar(6, memory), PciLayoutError::NoSuchBar(6)));
    assert!(matches!(bar(5, MEMORY64), PciLayoutError::NoSuchBar(5)));
    assert!(matches!(
        bar(usize::MAX, MEMORY64),
        PciLayoutError::NoSuchBar(usize::MAX)
    ));
    assert!(matches!(
        bar(0, Bar::Io { size: 6 }),
        PciLayoutError::BarSize { index: 0, size: 6 }
    ));
    builder.bar(2, MEMORY64).unwrap();
    for (index, kind) in [(1, MEMORY64), (2, memory), (3, memory), (3, MEMORY64)] {
        let error = builder.bar(index, kind).err().unwrap();
        assert!(matches!(error, PciLayoutError::BarTaken(at) if at == index));
    }
    builder.bar(4, MEMORY64).unwrap();

    for offset in [0x00, 0x3c, 0x42, 0x100, 0xfffc] {
        let error = builder.register(offset, 0, 0).err().unwrap();
        assert!(matches!(error, PciLayoutError::NoRoomForRegister(at) if at == offset));
    }
    builder.register(0x80, 0, 0).unwrap();
    assert!(builder.register(0x80, 0, 0).is_err());
    assert_eq!(builder.capability(9, &[0; 0x7a], &[]).unwrap(), 0x84);
    let error = builder.capability(9, &[0; 0x3f], &[]).unwrap_err();
    assert!(matches!(
        error,
        PciLayoutError::NoRoomForCapability { id: 9, len: 0x41 }
    ));
    assert_eq!(builder.capability(9, &[0; 0x3e], &[]).unwrap(), 0x40);
}

#[test]
fn states_of_other_functions_are_refused() {
    let mut function = function(&Recorder::default());
    set(&mut function, 0x10, 0xc000_0000);
    set(&mut function, 0x04, 2);
    let before = function.save();

    let mut builder = FunctionBuilder::new(&HardwareIds {
        device: 0x1041,
        ..IDS
    });
    builder.bar(0, Bar::Memory32 { size: 0x100 }).unwrap();
    let other = builder.build(AddressDecoder::detached()).save();
    let error = function.restore(&other).unwrap_err();
    assert!(matches!(&error, RestoreError::Invalid(text)
        if text.contains("register 0x00 is 0x10411af4, and that of this device is 0x10421af4")));

    // The same function without MSI-X.
    let mut builder = FunctionBuilder::new(&IDS);
    builder.bar(0, Bar::Memory32 { size: 0x100 }).unwrap();
    let mut other = builder.build(AddressDecoder::detached());
    let state = other.save();
    other.restore(&before).unwrap_err();
    assert_eq!(other.save(), state);
    assert_eq!(function.save(), before);
    assert_eq!(function.memory_base(0), Some(0xc000_0000));
    function.reset();
    function.restore(&before).unwrap();
    assert_eq!(function.memory_base(0), Some(0xc000_0000));
}

proptest! {
    /// Writes change the writable bits they select, and those only.
    #[test]
    fn registers_remember_what_they_can(
        writes in prop::collection::vec((0_u16..80, any::<u32>(), any::<u32>()), 0..50),
    ) {
        let recorder = Recorder::default();
        let mut function = function(&recorder);
        let initial: Vec<_> = (0..64).map(|i| function.read_config(i * 4)).collect();
        let writable: Vec<_> = (0..64)
            .map(|i| {
                set(&mut function, i * 4, u32::MAX);
                let ones = function.read_config(i * 4);
                set(&mut function, i * 4, 0);
                ones & !function.read_config(i * 4)
            })
            .collect();
        function.reset();
        let mut model = initial.clone();
        for (register, value, mask) in writes {
            function.write_config(register * 4, value, mask);
            let last = recorder.ranges.lock().last().cloned();
            prop_assert_eq!(last.unwrap_or_default(), function.decoded_ranges());
            if let Some(stored) = model.get_mut(usize::from(register)) {
                let mask = mask & writable[usize::from(register)];
                *stored = *stored & !mask | value & mask;
            }
            for (index, expected) in (0..).zip(&model) {
                prop_assert_eq!(function.read_config(index * 4), *expected);
            }
        }
        prop_assert_eq!(writable[0], 0);
        prop_assert_eq!(writable[1], 0x547);
        prop_assert_eq!(writable[15], 0xff);
    }
}
