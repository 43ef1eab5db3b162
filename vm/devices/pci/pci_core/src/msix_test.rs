use crate::Bar;
use crate::FunctionBuilder;
use crate::HardwareIds;
use crate::Location;
use crate::MsiRecorder;
use crate::MsixLayout;
use crate::PciFunction;
use crate::PciLayoutError;
use chipset_device::AddressDecoder;
use chipset_device::IoError;
use chipset_device::MsiMessage;

const LAYOUT: MsixLayout = MsixLayout {
    bar: 0,
    vectors: 67,
    table_offset: 0x1000,
    pending_offset: 0x800,
};
const BASE: u64 = 0xc000_0000;
const TABLE: u64 = BASE + 0x1000;
const PENDING: u64 = BASE + 0x800;

const COMMAND: u16 = 0x04;
const CONTROL: u16 = 0x40;
const ENABLE: u32 = 1 << 31;
const FUNCTION_MASK: u32 = 1 << 30;
/// Memory and bus mastering.
const ON: u32 = 6;

fn builder() -> FunctionBuilder {
    let mut builder = FunctionBuilder::new(&HardwareIds::default());
    builder.bar(0, Bar::Memory32 { size: 0x2000 }).unwrap();
    builder
}

fn function(messages: &MsiRecorder) -> PciFunction {
    let mut builder = builder();
    builder.msix(LAYOUT, messages).unwrap();
    let mut function = builder.build(AddressDecoder::detached());
    set(&mut function, 0x10, BASE as u32);
    set(&mut function, COMMAND, ON);
    function
}

fn set(function: &mut PciFunction, offset: u16, value: u32) {
    function.write_config(offset, value, u32::MAX);
}

fn write(function: &mut PciFunction, gpa: u64, data: &[u8]) -> Result<(), IoError> {
    let Some(Location::Msix(register)) = function.locate_memory(gpa) else {
        panic!("{gpa:#x} is not MSI-X");
    };
    function.write_msix(register, data)
}

fn read<const N: usize>(function: &PciFunction, gpa: u64) -> Result<[u8; N], IoError> {
    let Some(Location::Msix(register)) = function.locate_memory(gpa) else {
        panic!("{gpa:#x} is not MSI-X");
    };
    let mut data = [0; N];
    function.read_msix(register, &mut data)?;
    Ok(data)
}

fn pending(function: &PciFunction) -> [u64; 2] {
    [0, 8].map(|at| u64::from_le_bytes(read(function, PENDING + at).unwrap()))
}

/// Gives a vector the message that carries its number, unmasked.
fn unmask(function: &mut PciFunction, vector: u16) -> MsiMessage {
    let message = message(vector);
    let entry = TABLE + u64::from(vector) * 16;
    write(function, entry, &message.address.to_le_bytes()).unwrap();
    write(function, entry + 8, &message.data.to_le_bytes()).unwrap();
    write(function, entry + 12, &[0; 4]).unwrap();
    message
}

fn mask(function: &mut PciFunction, vector: u16) {
    let entry = TABLE + u64::from(vector) * 16;
    write(function, entry + 12, &[1, 0, 0, 0]).unwrap();
}

fn message(vector: u16) -> MsiMessage {
    MsiMessage {
        address: 0x1_fee0_1000,
        data: 0x4000 + u32::from(vector),
    }
}

fn signal(function: &PciFunction, vector: u16) {
    function.msix_vector(vector).unwrap().signal();
}

#[test]
fn the_capability_has_the_layout() {
    let messages = MsiRecorder::new();
    let mut function = function(&messages);
    assert_eq!(function.read_config(0x34), u32::from(CONTROL));
    assert_eq!(function.read_config(CONTROL), 0x0042_0011);
    assert_eq!(function.read_config(CONTROL + 4), 0x1000);
    assert_eq!(function.read_config(CONTROL + 8), 0x0800);
    set(&mut function, CONTROL, u32::MAX);
    assert_eq!(function.read_config(CONTROL), 0xc042_0011);
    assert!(function.msix_enabled());
    assert_eq!(function.msix_vectors(), 67);
    assert!(function.msix_vector(66).is_some());
    assert!(function.msix_vector(67).is_none());
}

#[test]
fn the_table_supports_32_and_64_bit_accesses() {
    let mut function = function(&MsiRecorder::new());
    let last = TABLE + 66 * 16;
    assert_eq!(
        read(&function, last + 8),
        Ok([0, 0, 0, 0, 1, 0, 0, 0]),
        "masked at reset"
    );
    write(&mut function, last, &[0xff; 8]).unwrap();
    write(&mut function, last + 8, &[0xff; 8]).unwrap();
    assert_eq!(
        read(&function, last),
        Ok([0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
    );
    assert_eq!(
        read(&function, last + 8),
        Ok([0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0])
    );
    write(&mut function, last + 4, &[1, 2, 3, 4]).unwrap();
    assert_eq!(read(&function, last + 4), Ok([1, 2, 3, 4]));
    let size = Err(IoError::InvalidAccessSize);
    assert_eq!(write(&mut function, last, &[0]), size);
    assert_eq!(write(&mut function, last + 2, &[0; 4]), size);
    assert_eq!(write(&mut function, last + 4, &[0; 8]), size);
    assert_eq!(
        read::<2>(&function, last).unwrap_err(),
        IoError::InvalidAccessSize
    );
    assert_eq!(
        read::<8>(&function, PENDING + 4).unwrap_err(),
        IoError::InvalidAccessSize
    );
    write(&mut function, PENDING, &[0xff; 8]).unwrap();
    assert_eq!(pending(&function), [0, 0]);
}

#[test]
fn a_vector_delivers_unless_masked() {
    let messages = MsiRecorder::new();
    let mut function = function(&messages);
    set(&mut function, CONTROL, ENABLE);
    let first = unmask(&mut function, 0);
    let last = unmask(&mut function, 66);
    signal(&function, 66);
    signal(&function, 0);
    assert_eq!(messages.take(), [first, last]);
    assert_eq!(pending(&function), [0, 0]);

    // Another message, while unmasked.
    write(&mut function, TABLE + 8, &[5, 0, 0, 0]).unwrap();
    signal(&function, 0);
    assert_eq!(messages.take(), [MsiMessage { data: 5, ..first }]);

    type Switch = fn(&mut PciFunction);
    let switches: [(Switch, Switch); 4] = [
        (
            |f| mask(f, 66),
            |f| {
                unmask(f, 66);
            },
        ),
        (
            |f| set(f, CONTROL, ENABLE | FUNCTION_MASK),
            |f| set(f, CONTROL, ENABLE),
        ),
        (|f| set(f, CONTROL, 0), |f| set(f, CONTROL, ENABLE)),
        (|f| set(f, COMMAND, 2), |f| set(f, COMMAND, ON)),
    ];
    for (off, on) in switches {
        off(&mut function);
        signal(&function, 66);
        signal(&function, 66);
        assert_eq!(messages.take(), []);
        assert_eq!(pending(&function), [0, 1 << 2]);
        assert_eq!(function.inspect()["msix"]["pending"][0], 66);
        on(&mut function);
        assert_eq!(messages.take(), [last]);
        assert_eq!(pending(&function), [0, 0]);
    }
}

#[test]
fn a_reset_discards_pending_interrupts() {
    let messages = MsiRecorder::new();
    let mut function = function(&messages);
    set(&mut function, CONTROL, ENABLE);
    unmask(&mut function, 1);
    signal(&function, 2);
    let vector = function.msix_vector(1).unwrap();
    function.reset();
    set(&mut function, 0x10, BASE as u32);
    set(&mut function, COMMAND, ON);
    assert_eq!(pending(&function), [0, 0]);
    assert_eq!(read(&function, TABLE + 28), Ok([1, 0, 0, 0]));
    set(&mut function, CONTROL, ENABLE);
    vector.signal();
    assert_eq!(pending(&function), [2, 0]);
    let message = unmask(&mut function, 1);
    assert_eq!(messages.take(), [message]);
}

#[test]
fn vectors_are_restored_pending_and_enabled() {
    let messages = MsiRecorder::new();
    let mut original = function(&messages);
    set(&mut original, CONTROL, ENABLE);
    unmask(&mut original, 3);
    signal(&original, 65);
    let state = original.save();

    let messages = MsiRecorder::new();
    let mut other = function(&messages);
    signal(&other, 4);
    other.restore(&state).unwrap();
    assert_eq!(other.save(), state);
    assert_eq!(pending(&other), [0, 2]);
    signal(&other, 3);
    let late = unmask(&mut other, 65);
    assert_eq!(messages.take(), [late, message(3)]);
}

#[test]
fn a_failed_route_change_is_retried() {
    let messages = MsiRecorder::new();
    let mut function = function(&messages);
    messages.break_down();
    let error = builder().msix(LAYOUT, &messages).map(|_| ()).unwrap_err();
    assert!(matches!(
        error,
        PciLayoutError::MsixVector { vector: 0, .. }
    ));
    unmask(&mut function, 0);
    set(&mut function, CONTROL, ENABLE);
    signal(&function, 0);
    assert_eq!(pending(&function), [1, 0]);
    messages.mend();
    set(&mut function, CONTROL, 0);
    set(&mut function, CONTROL, ENABLE);
    assert_eq!(messages.take(), [message(0)]);
}

#[test]
fn invalid_layouts_are_refused() {
    let messages = MsiRecorder::new();
    let refused = |layout: MsixLayout| {
        let mut builder = builder();
        builder.bar(1, Bar::Io { size: 256 }).unwrap();
        let error = builder.msix(layout, &messages).map(|_| ()).unwrap_err();
        assert!(matches!(error, PciLayoutError::MsixLayout(_)), "{error}");
    };
    for vectors in [0, 257, 2049, u16::MAX] {
        refused(MsixLayout { vectors, ..LAYOUT });
    }
    for bar in [1, 2, 6, usize::MAX] {
        refused(MsixLayout {
            bar,
            vectors: 1,
            table_offset: 0,
            pending_offset: 16,
        });
    }
    for table_offset in [0x7f8, 0x804, 0x1004, u32::MAX - 7] {
        refused(MsixLayout {
            table_offset,
            ..LAYOUT
        });
    }
    for pending_offset in [0x1000, 0x1000 + 67 * 16 - 8, 0x2000, 0x1ff8, 0x801] {
        refused(MsixLayout {
            pending_offset,
            ..LAYOUT
        });
    }
    let mut builder = builder();
    builder.msix(LAYOUT, &messages).unwrap();
    let twice = builder.msix(LAYOUT, &messages).map(|_| ()).unwrap_err();
    assert!(matches!(twice, PciLayoutError::MsixTwice));
}
