use super::*;
use crate::FwCfgBuilder;
use crate::FwCfgError;
use crate::ItemContent;
use crate::e820_ram_entry;
use crate::selector;
use guest_memory::MemoryLayout;
use parking_lot::Mutex;
use proptest::prelude::*;
use std::io::Write as _;
use std::sync::Arc;
use vm_memory::Bytes as _;

const RAM: u64 = guest_memory::MIN_RAM;
const DESCRIPTOR: u64 = 0x2000;
const BUFFER: u64 = 0x10_0000;

const ERROR: u32 = 1;
const READ: u32 = 2;
const SKIP: u32 = 4;
const SELECT: u32 = 8;
const WRITE: u32 = 16;

struct Guest {
    device: FwCfg,
    memory: GuestMemory,
}

impl Guest {
    fn new(builder: FwCfgBuilder) -> Self {
        let layout = MemoryLayout::new(RAM, 3 << 30, 40).unwrap();
        let memory = GuestMemory::anonymous(layout).unwrap();
        Self {
            device: builder.build(memory.clone()).unwrap(),
            memory,
        }
    }

    fn select(&mut self, number: u16) {
        self.device
            .write_port(0x510, &number.to_le_bytes())
            .unwrap();
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        for byte in bytes.chunks_mut(1) {
            self.device.read_port(0x511, byte).unwrap();
        }
        bytes
    }

    fn item(&mut self, number: u16, count: usize) -> Vec<u8> {
        self.select(number);
        self.bytes(count)
    }

    fn find(&mut self, name: &str) -> (u16, u32) {
        let count = self.item(selector::DIRECTORY, 4).try_into().unwrap();
        for _ in 0..u32::from_be_bytes(count) {
            let entry = self.bytes(64);
            if entry[8..].starts_with(format!("{name}\0").as_bytes()) {
                let size = entry[..4].try_into().unwrap();
                let number = entry[4..6].try_into().unwrap();
                return (u16::from_be_bytes(number), u32::from_be_bytes(size));
            }
        }
        panic!("no {name}");
    }

    /// Returns the control word after the transfer.
    fn dma_at(&mut self, at: u64, control: u32, len: u32, buffer: u64) -> u32 {
        let words = [control, len, (buffer >> 32) as u32, buffer as u32];
        for (i, word) in words.into_iter().enumerate() {
            self.memory
                .map()
                .write_slice(&word.to_be_bytes(), GuestAddress(at + 4 * i as u64))
                .unwrap();
        }
        let high = (at >> 32) as u32;
        self.device.write_port(0x514, &high.to_be_bytes()).unwrap();
        let low = at as u32;
        self.device.write_port(0x518, &low.to_be_bytes()).unwrap();
        let mut control = [0; 4];
        self.memory
            .map()
            .read_slice(&mut control, GuestAddress(at))
            .unwrap();
        u32::from_be_bytes(control)
    }

    fn dma(&mut self, control: u32, len: u32) -> u32 {
        self.dma_at(DESCRIPTOR, control, len, BUFFER)
    }

    fn buffer(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .map()
            .read_slice(&mut bytes, GuestAddress(BUFFER))
            .unwrap();
        bytes
    }

    fn fill(&self, byte: u8, len: usize) {
        self.memory
            .map()
            .write_slice(&vec![byte; len], GuestAddress(BUFFER))
            .unwrap();
    }
}

fn select_of(number: u16) -> u32 {
    u32::from(number) << 16 | SELECT
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}

fn file(bytes: &[u8]) -> ItemContent {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    ItemContent::file(file).unwrap()
}

#[test]
fn firmware_finds_the_device_and_its_items() {
    let builder = FwCfgBuilder::default()
        .boot_cpu_count(3)
        .unwrap()
        .add_file("etc/e820", e820_ram_entry(0x1000, 0xb000_0000).to_vec())
        .unwrap()
        .add_file("opt/z", b"last".to_vec())
        .unwrap()
        .add_file("bootorder", b"first".to_vec())
        .unwrap();
    let mut guest = Guest::new(builder);
    assert_eq!(guest.item(selector::SIGNATURE, 6), b"QEMU\0\0");
    assert_eq!(guest.item(selector::FEATURES, 4), [3, 0, 0, 0]);
    assert_eq!(guest.item(selector::BOOT_CPU_COUNT, 2), [3, 0]);
    assert_eq!(guest.item(0x1f, 3), [0; 3]);
    // The write bit of the selector is ignored.
    assert_eq!(guest.item(0x4000, 4), b"QEMU");

    assert_eq!(guest.find("bootorder"), (0x20, 5));
    assert_eq!(guest.find("etc/e820"), (0x21, 20));
    assert_eq!(guest.find("opt/z"), (0x22, 4));
    let mut e820 = Vec::new();
    e820.extend(0x1000_u64.to_le_bytes());
    e820.extend(0xb000_0000_u64.to_le_bytes());
    e820.extend(1_u32.to_le_bytes());
    assert_eq!(guest.item(0x21, 20), e820);

    let mut signature = [0; 4];
    guest.device.read_port(0x514, &mut signature).unwrap();
    assert_eq!(&signature, b"QEMU");
    guest.device.read_port(0x518, &mut signature).unwrap();
    assert_eq!(&signature, b" CFG");
}

#[test]
fn wide_reads_of_the_data_port_return_consecutive_bytes() {
    let builder = FwCfgBuilder::default().add_file("f", pattern(10)).unwrap();
    let mut guest = Guest::new(builder);
    guest.select(0x20);
    let mut four = [0; 4];
    guest.device.read_port(0x511, &mut four).unwrap();
    assert_eq!(four, *pattern(4));
    let mut two = [0; 2];
    guest.device.read_port(0x511, &mut two).unwrap();
    assert_eq!(two, pattern(10)[4..6]);
    guest.device.read_port(0x511, &mut four).unwrap();
    assert_eq!(four, pattern(10)[6..]);
    guest.device.read_port(0x511, &mut four).unwrap();
    assert_eq!(four, [0; 4]);
}

#[test]
fn a_kernel_and_an_initrd_are_items() {
    let mut kernel = pattern(9_000);
    kernel[..2].copy_from_slice(b"MZ");
    kernel[0x1f1] = 3;
    kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    let initrd = pattern(600_000);
    let builder = FwCfgBuilder::default()
        .kernel(&file(&kernel), "quiet")
        .and_then(|builder| builder.initrd(file(&initrd)))
        .unwrap();
    let mut guest = Guest::new(builder);
    assert_eq!(guest.item(selector::SETUP_SIZE, 4), 2048_u32.to_le_bytes());
    assert_eq!(guest.item(selector::SETUP_DATA, 2048), kernel[..2048]);
    assert_eq!(guest.item(selector::KERNEL_SIZE, 4), 6952_u32.to_le_bytes());
    // Byte by byte, and past the end.
    let mut expected = kernel[2048..].to_vec();
    expected.extend([0; 5]);
    assert_eq!(guest.item(selector::KERNEL_DATA, 6957), expected);
    assert_eq!(
        guest.item(selector::COMMAND_LINE_SIZE, 4),
        6_u32.to_le_bytes()
    );
    assert_eq!(guest.item(selector::COMMAND_LINE_DATA, 6), b"quiet\0");
    assert_eq!(
        guest.item(selector::INITRD_SIZE, 4),
        600_000_u32.to_le_bytes()
    );
    assert_eq!(
        guest.dma(select_of(selector::INITRD_DATA) | READ, 600_000),
        0
    );
    assert!(guest.buffer(600_000) == initrd);
}

#[test]
fn dma_selects_skips_and_reads_zeros_past_the_end() {
    for content in [ItemContent::from(pattern(100)), file(&pattern(100))] {
        let builder = FwCfgBuilder::default().add_file("f", content).unwrap();
        let mut guest = Guest::new(builder);
        assert_eq!(guest.dma(select_of(0x20), 77), 0);
        assert_eq!(guest.bytes(2), pattern(100)[..2]);
        assert_eq!(guest.dma(SKIP, 8), 0);
        guest.fill(0xaa, 200);
        assert_eq!(guest.dma(READ, 20), 0);
        assert_eq!(guest.buffer(20), pattern(100)[10..30]);
        assert_eq!(guest.buffer(21)[20], 0xaa);
        assert_eq!(guest.dma(READ, 80), 0);
        assert_eq!(guest.buffer(70), pattern(100)[30..]);
        assert_eq!(guest.buffer(80)[70..], [0; 10]);
        // Skipping any length is fast.
        assert_eq!(guest.dma(SKIP, u32::MAX), 0);
        assert_eq!(guest.dma(READ, 4), 0);
        assert_eq!(guest.buffer(4), [0; 4]);
    }
}

#[test]
fn invalid_requests_set_the_error_bit() {
    let builder = FwCfgBuilder::default().add_file("f", pattern(100)).unwrap();
    let mut guest = Guest::new(builder);
    guest.fill(0xaa, 100);
    for (control, len, buffer) in [
        // After the end of RAM, across it, and past the end of the address space.
        (READ, 10, RAM),
        (READ, 100, RAM - 50),
        (READ, 100, u64::MAX - 50),
        // Gigabytes of zeros.
        (READ, u32::MAX, BUFFER),
        // Not writable.
        (WRITE, 4, BUFFER),
    ] {
        let control = guest.dma_at(DESCRIPTOR, select_of(0x20) | control, len, buffer);
        assert_eq!(control, ERROR, "{len} {buffer:#x}");
    }
    assert_eq!(guest.buffer(100), [0xaa; 100]);
    // A descriptor outside of RAM.
    guest.device.write_port(0x514, &[0xff; 4]).unwrap();
    guest.device.write_port(0x518, &[0xff; 4]).unwrap();
    assert_eq!(guest.item(0x20, 4), pattern(4));
    assert!(guest.device.inspect()["failed_requests"].as_u64().unwrap() >= 6);
}

#[test]
fn accesses_of_the_wrong_size_are_refused() {
    let mut guest = Guest::new(FwCfgBuilder::default());
    let device = &mut guest.device;
    for (port, data) in [
        (0x510, &[1][..]),
        (0x510, &[1; 4]),
        (0x514, &[1]),
        (0x516, &[1; 2]),
        (0x51a, &[1; 4]),
    ] {
        assert_eq!(
            device.write_port(port, data),
            Err(IoError::InvalidAccessSize)
        );
    }
    assert_eq!(
        device.read_port(0x510, &mut [0; 2]),
        Err(IoError::InvalidRegister)
    );
    assert_eq!(
        device.read_port(0x51a, &mut [0; 4]),
        Err(IoError::InvalidAccessSize)
    );
    assert_eq!(device.write_port(0x511, &[1]), Ok(()));
}

fn with_address(seen: &Arc<Mutex<Vec<Vec<u8>>>>) -> Guest {
    let seen = seen.clone();
    Guest::new(
        FwCfgBuilder::default()
            .add_writable_file("etc/address", vec![0; 8], move |bytes| {
                seen.lock().push(bytes.to_vec());
            })
            .unwrap(),
    )
}

#[test]
fn a_reset_undoes_writes_of_the_guest() {
    let seen = Arc::default();
    let mut guest = with_address(&seen);
    guest.fill(0x5a, 8);
    assert_eq!(guest.dma(select_of(0x20) | SKIP, 2), 0);
    assert_eq!(guest.dma(WRITE, 4), 0);
    let written = vec![0, 0, 0x5a, 0x5a, 0x5a, 0x5a, 0, 0];
    assert_eq!(seen.lock()[..], *std::slice::from_ref(&written));
    assert_eq!(guest.item(0x20, 8), written);
    // Writes that do not fit change nothing.
    assert_eq!(guest.dma(select_of(0x20) | WRITE, 9), ERROR);
    assert_eq!(guest.dma(select_of(0x20) | SKIP, 7), 0);
    assert_eq!(guest.dma(WRITE, 2), ERROR);
    assert_eq!(
        guest.dma_at(DESCRIPTOR, select_of(0x20) | WRITE, 8, RAM - 4),
        ERROR
    );
    assert_eq!(guest.item(0x20, 8), written);

    let state = guest.device.save().unwrap();
    guest.device.reset();
    assert_eq!(seen.lock().pop().unwrap(), [0; 8]);
    assert_eq!(guest.item(0x20, 8), [0; 8]);

    // A restore reports the address.
    let seen = Arc::default();
    let mut other = with_address(&seen);
    other.device.restore(&state).unwrap();
    assert_eq!(*seen.lock(), [written]);

    let mut none = Guest::new(FwCfgBuilder::default());
    let error = none.device.restore(&state).unwrap_err();
    assert!(error.to_string().contains("etc/address"), "{error}");
}

#[test]
fn a_restored_device_continues_a_read() {
    let builder = || {
        FwCfgBuilder::default()
            .add_file("f", file(&pattern(10_000)))
            .unwrap()
    };
    let mut guest = Guest::new(builder());
    guest.item(0x20, 5_000);
    guest.device.write_port(0x514, &[0, 0, 0, 9]).unwrap();
    let state = guest.device.save().unwrap();
    let mut other = Guest::new(builder());
    other.device.restore(&state).unwrap();
    assert_eq!(other.bytes(100), pattern(10_000)[5_000..5_100]);
    assert_eq!(other.device.regs.dma_high, 9);
}

/// A device with a file that counts how often it was made, and is not made the fourth time.
fn with_made_file() -> Guest {
    let mut count = 0;
    let builder =
        FwCfgBuilder::default().add_made_file("etc/made", b"initial!".to_vec(), move || {
            count += 1;
            (count < 4).then(|| format!("made {count:03}").into_bytes())
        });
    Guest::new(builder.unwrap())
}

#[test]
fn a_file_is_made_when_it_is_first_selected_after_a_reset() {
    let mut guest = with_made_file();
    let (number, size) = guest.find("etc/made");
    assert_eq!(size, 8);
    assert_eq!(guest.item(number, 8), b"made 001");
    assert_eq!(guest.dma(select_of(number) | READ, 8), 0);
    assert_eq!(guest.buffer(8), b"made 001");
    guest.device.reset();
    assert_eq!(guest.dma(select_of(number) | READ, 8), 0);
    assert_eq!(guest.buffer(8), b"made 002");

    // A restored device has what the saved one had, and makes it again after a reset.
    let made = guest.device.save().unwrap();
    let mut other = with_made_file();
    let fresh = other.device.save().unwrap();
    other.device.restore(&made).unwrap();
    assert_eq!(other.item(number, 8), b"made 002");
    other.device.restore(&fresh).unwrap();
    assert_eq!(other.item(number, 8), b"made 001");
    other.device.reset();
    assert_eq!(other.item(number, 8), b"made 002");
    Guest::new(FwCfgBuilder::default())
        .device
        .restore(&made)
        .unwrap_err();

    // A file that cannot be made stays as it is.
    for expected in [b"made 003", b"made 003"] {
        guest.device.reset();
        assert_eq!(&guest.item(number, 8), expected);
    }
}

#[test]
fn a_file_of_a_state_without_made_files_stays_as_it_is() {
    #[derive(minicbor::Encode)]
    #[cbor(map)]
    struct Older {
        #[n(1)]
        selected: u16,
        #[n(2)]
        offset: u64,
        #[n(3)]
        dma_high: u32,
        #[n(4)]
        written: BTreeMap<String, ByteVec>,
    }
    let older = SavedState::encode(&Older {
        selected: 0,
        offset: 0,
        dma_high: 0,
        written: BTreeMap::new(),
    });
    let mut guest = with_made_file();
    guest.device.restore(&older).unwrap();
    let (number, _) = guest.find("etc/made");
    assert_eq!(guest.item(number, 8), b"initial!");
    guest.device.reset();
    assert_eq!(guest.item(number, 8), b"made 001");
}

#[test]
fn a_file_of_another_length_is_not_taken() {
    let builder =
        FwCfgBuilder::default().add_made_file("etc/made", vec![7; 8], || Some(vec![1; 9]));
    let mut guest = Guest::new(builder.unwrap());
    let (number, _) = guest.find("etc/made");
    assert_eq!(guest.item(number, 9), [7, 7, 7, 7, 7, 7, 7, 7, 0]);
}

#[test]
fn invalid_items_are_refused() {
    let new = FwCfgBuilder::default;
    let message = |result: Result<FwCfgBuilder, FwCfgError>| result.err().unwrap().to_string();
    let long = "x".repeat(56);
    for name in ["", "a b", "ä", "a\0", &long] {
        let result = new().add_file(name, vec![]);
        assert!(matches!(result, Err(FwCfgError::Name { .. })), "{name}");
    }
    assert!(new().add_file(&long[1..], vec![]).is_ok());
    let twice = new().add_file("a", vec![]).unwrap().add_file("a", vec![]);
    assert_eq!(message(twice), "there are two fw_cfg files named `a`");
    let twice = new().boot_cpu_count(1).unwrap().boot_cpu_count(2);
    assert_eq!(
        message(twice),
        "there are two fw_cfg items with selector 0x5"
    );
    let large = tempfile::tempfile().unwrap();
    large.set_len(1 << 32).unwrap();
    let result = new().initrd(ItemContent::file(large).unwrap());
    assert!(matches!(
        result,
        Err(FwCfgError::TooLarge {
            len: 0x1_0000_0000,
            ..
        })
    ));
    assert!(matches!(
        new().kernel(&b"MZ".to_vec().into(), "a\0b"),
        Err(FwCfgError::CommandLine)
    ));
}

#[test]
fn inspect_lists_all_items() {
    let guest = Guest::new(
        FwCfgBuilder::default()
            .boot_cpu_count(1)
            .and_then(|builder| builder.add_file("etc/table-loader", vec![1; 128]))
            .and_then(|builder| builder.add_file("etc/acpi/rsdp", vec![2; 36]))
            .and_then(|builder| builder.add_file("large", vec![3; 70_000]))
            .unwrap(),
    );
    let shown = guest.device.inspect();
    let items: Vec<_> = shown["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
            (
                text("selector"),
                text("name"),
                item["size"].as_u64().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("0x0", "", 4),
        ("0x1", "", 4),
        ("0x5", "", 2),
        ("0x19", "", 4 + 3 * 64),
        ("0x20", "etc/acpi/rsdp", 36),
        ("0x21", "etc/table-loader", 128),
        ("0x22", "large", 70_000),
    ];
    assert_eq!(
        items,
        expected.map(|(selector, name, size)| (selector.to_owned(), name.to_owned(), size))
    );
    let digest = Sha256::digest(b"QEMU");
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(shown["items"][0]["sha256"], digest);
    assert!(shown["items"][6]["sha256"].is_null());
}

proptest! {
    /// Any mix of port reads and DMA returns the bytes of the file.
    #[test]
    fn port_reads_and_dma_agree(
        steps in proptest::collection::vec((0_u8..4, 0_u32..6_000), 1..20),
        in_file: bool,
    ) {
        let bytes = pattern(20_000);
        let content = if in_file { file(&bytes) } else { bytes.clone().into() };
        let mut guest = Guest::new(FwCfgBuilder::default().add_file("f", content).unwrap());
        guest.select(0x20);
        let mut at = 0;
        let expected = |at: usize, len: usize| -> Vec<u8> {
            (at..at + len).map(|i| bytes.get(i).copied().unwrap_or(0)).collect()
        };
        for (way, len) in steps {
            let count = len as usize;
            match way {
                0 => prop_assert_eq!(guest.bytes(count % 300), expected(at, count % 300)),
                1 => {
                    prop_assert_eq!(guest.dma(READ, len), 0);
                    prop_assert_eq!(guest.buffer(count), expected(at, count));
                }
                2 => prop_assert_eq!(guest.dma(SKIP, len), 0),
                _ => {
                    let state = guest.device.save().unwrap();
                    guest.device.restore(&state).unwrap();
                }
            }
            at += match way { 0 => count % 300, 3 => 0, _ => count };
        }
    }
}
