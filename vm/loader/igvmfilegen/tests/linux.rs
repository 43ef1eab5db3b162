//! A Linux kernel that was packed and loaded is what a direct boot loads.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use acpi_spec::AcpiPlatform;
use acpi_spec::Processor;
use acpi_spec::TableSet;
use guest_memory::GuestMemory;
use guest_memory::MemoryLayout;
use guest_memory::MemoryRange;
use igvmfilegen::Manifest;
use igvmfilegen::Resources;
use igvmfilegen::generate;
use loader::GuestImage;
use loader::ImageFile;
use loader::VpRegister;
use loader::VpRegisters;
use loader::igvm::IgvmImage;
use loader::igvm::IgvmLoadError;
use loader::igvm::IgvmMachine;
use loader::igvm::IgvmPlan;
use loader::linux::EntryProtocol;
use loader::linux::LinuxHost;
use loader::linux::LinuxImage;
use loader::linux::LinuxPlan;
use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use vm_memory::Bytes;
use vm_memory::GuestAddress;

const RAM: u64 = 64 << 20;
const BITS: u8 = 40;
const LINE: &str = "console=ttyS0 quiet";

/// A vmlinux with a segment that has a BSS, and an initrd, in a directory.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("vmlinux"), vmlinux()).unwrap();
        let initrd: Vec<u8> = (0..9000u32).map(|n| (n * 3) as u8).collect();
        std::fs::write(dir.path().join("initrd"), initrd).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn image(&self, name: &str) -> ImageFile {
        ImageFile::open(&self.path(name)).unwrap()
    }

    fn resources(&self) -> Resources {
        let resources = serde_json::json!({"resources": {
            "linux_kernel": self.path("vmlinux"),
            "linux_initrd": self.path("initrd"),
        }});
        serde_json::from_value(resources).unwrap()
    }

    /// An IGVM file with this image, loaded.
    fn packed(&self, linux: &serde_json::Value) -> Vec<u8> {
        let manifest = manifest(linux);
        generate(&manifest, &self.resources()).unwrap().file
    }
}

fn manifest(linux: &serde_json::Value) -> Manifest {
    let manifest = serde_json::json!({
        "guest_arch": "x64",
        "guest_configs": [{
            "guest_svn": 1,
            "max_vtl": 0,
            "isolation_type": "native",
            "image": {"linux": linux},
        }],
    });
    serde_json::from_value(manifest).unwrap()
}

/// An ELF file for x86-64 with one segment: 20,000 bytes at 16 MiB, and 100,000 bytes of memory.
fn vmlinux() -> Vec<u8> {
    let mut image = vec![0; 64 + 56];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &2u16.to_le_bytes());
    put(18, &62u16.to_le_bytes());
    put(20, &1u32.to_le_bytes());
    put(24, &0x100_0000u64.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(52, &64u16.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &1u16.to_le_bytes());
    put(64, &1u32.to_le_bytes());
    put(72, &120u64.to_le_bytes());
    put(80, &0x100_0000u64.to_le_bytes());
    put(88, &0x100_0000u64.to_le_bytes());
    put(96, &20_000u64.to_le_bytes());
    put(104, &100_000u64.to_le_bytes());
    put(112, &0x1000u64.to_le_bytes());
    image.extend((0..20_000u32).map(|n| (n * 7 + n / 256) as u8));
    image
}

fn layout(ram: u64) -> MemoryLayout {
    MemoryLayout::new(ram, 0xb000_0000, BITS).unwrap()
}

fn tables() -> TableSet {
    let processor = Processor { uid: 1, apic_id: 0 };
    TableSet::new(&AcpiPlatform::bare(vec![processor])).unwrap()
}

fn host(ram: u64) -> LinuxHost {
    LinuxHost::new(&layout(ram), BITS, &tables()).unwrap()
}

/// Memory that is not zero anywhere.
fn memory(ram: u64) -> GuestMemory {
    let memory = GuestMemory::anonymous(layout(ram)).unwrap();
    let content = vec![0x5a; ram as usize];
    memory.map().write_slice(&content, GuestAddress(0)).unwrap();
    memory
}

fn content(memory: &GuestMemory) -> Vec<u8> {
    let mut content = vec![0; memory.layout().ram_size() as usize];
    let map = memory.map();
    map.read_slice(&mut content, GuestAddress(0)).unwrap();
    content
}

fn plan(file: &[u8], ram: u64, line: Option<&str>) -> Result<IgvmPlan, IgvmLoadError> {
    let image = IgvmImage::new(Path::new("guest.igvm"), file.into());
    IgvmPlan::new(
        &image,
        &IgvmMachine {
            layout: &layout(ram),
            rom: None,
            vp_count: 1,
            command_line: line,
            acpi: tables().tables(),
            low_mmio: MemoryRange {
                start: 0xc000_0000,
                end: 0xfc00_0000,
            },
            high_mmio: None,
        },
    )
}

/// Memory and registers after `file` was loaded.
fn loaded(file: &[u8], line: Option<&str>) -> (Vec<u8>, VpRegisters) {
    let memory = memory(RAM);
    let mut image = GuestImage::new(memory.map());
    plan(file, RAM, line).unwrap().load(&mut image).unwrap();
    host(RAM).load(&mut image).unwrap();
    let registers = image.into_registers();
    (content(&memory), registers)
}

/// The same after a direct boot.
fn direct(files: &Files) -> (Vec<u8>, VpRegisters) {
    let plan = LinuxPlan::new(
        &layout(RAM),
        LinuxImage {
            kernel: files.image("vmlinux"),
            initrd: Some(files.image("initrd")),
            cmdline: LINE,
            host: Some(host(RAM)),
            protocol: EntryProtocol::Auto,
        },
    );
    let memory = memory(RAM);
    let mut image = GuestImage::new(memory.map());
    plan.unwrap().load(&mut image).unwrap();
    let registers = image.into_registers();
    (content(&memory), registers)
}

/// Registers by name. Those that are not set have their values after reset, which of these are zero.
fn by_name(registers: &VpRegisters) -> BTreeMap<String, VpRegister> {
    let zero = |register: &VpRegister| {
        let text = format!("{register:?}");
        text.starts_with('R') && text.ends_with("(0)")
    };
    let set = registers[&0].iter().filter(|register| !zero(register));
    let named = set.map(|register| (format!("{register:?}"), *register));
    named.collect()
}

#[test]
fn a_packed_kernel_is_loaded_as_a_direct_boot_loads_it() {
    let files = Files::new();
    let (memory, registers) = direct(&files);
    let in_file = serde_json::json!({
        "use_initrd": true, "memory_size": RAM, "command_line": LINE,
    });
    let from_host = serde_json::json!({"use_initrd": true, "memory_size": RAM});
    for (linux, line) in [(in_file, None), (from_host, Some(LINE))] {
        let (packed_memory, packed_registers) = loaded(&files.packed(&linux), line);
        let differs = memory.iter().zip(&packed_memory).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{linux}");
        assert_eq!(by_name(&packed_registers), by_name(&registers));
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let files = Files::new();
    let linux = serde_json::json!({"use_initrd": true, "memory_size": RAM});
    let first = files.packed(&linux);
    assert!(first == files.packed(&linux));
    // Each page that is not zero once, and a header for each.
    assert!(first.len() < 20_000 + 9000 + 200 * 4096, "{}", first.len());
}

#[test]
fn a_file_needs_the_ram_that_its_kernel_is_told_of() {
    let files = Files::new();
    let file = files.packed(&serde_json::json!({"use_initrd": false, "memory_size": RAM}));
    assert!(plan(&file, 2 * RAM, None).is_ok());
    let error = plan(&file, RAM / 2, None).unwrap_err().to_string();
    let expected = "REQUIRED_MEMORY at offset";
    assert!(error.contains(expected), "{error}");
    assert!(error.contains("is for 0x0-0x4000000, but this guest has RAM at 0x0-0x2000000"));
}

#[test]
fn a_command_line_needs_a_parameter() {
    let files = Files::new();
    let linux = serde_json::json!({
        "use_initrd": false, "memory_size": RAM, "command_line": LINE,
    });
    let error = plan(&files.packed(&linux), RAM, Some("x")).unwrap_err();
    assert!(
        error.to_string().contains("takes no command line"),
        "{error}"
    );
    let linux = serde_json::json!({"use_initrd": false, "memory_size": RAM});
    let file = files.packed(&linux);
    let error = plan(&file, RAM, Some("a\0b")).unwrap_err();
    assert!(error.to_string().contains("NUL at byte 1"), "{error}");
    let long = "x".repeat(4096);
    let error = plan(&file, RAM, Some(&long)).unwrap_err().to_string();
    let expected = "has 4097 bytes here, but from byte 0 of parameter area 0 there are 4096";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn wrong_manifests_and_resources_are_refused() {
    let files = Files::new();
    let generated = |linux, resources: &Resources| {
        let generated = generate(&manifest(&linux), resources);
        generated.err().map(|error| error.to_string())
    };
    let linux = serde_json::json!({"use_initrd": true, "memory_size": RAM});
    let missing = generated(linux, &Resources::default()).unwrap();
    assert!(missing.contains("linux_kernel, linux_initrd"), "{missing}");
    let large = serde_json::json!({"use_initrd": true, "memory_size": 3u64 << 30});
    let large = generated(large, &files.resources()).unwrap();
    assert!(large.contains("guest config 0: memory_size"), "{large}");

    let path = files.path("manifest.json");
    let typo = "{\n  \"guest_arch\": \"x64\",\n  \"guest_config\": []\n}";
    std::fs::write(&path, typo).unwrap();
    let error = Manifest::read(&path).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains("guest_config") && source.contains("line 3"),
        "{source}"
    );
    std::fs::write(&path, r#"{"resources": {"linux_kernel": "vmlinuz"}}"#).unwrap();
    let error = Resources::read(&path).unwrap_err().to_string();
    assert!(error.contains("must be absolute"), "{error}");
}

#[test]
fn the_manifests_are_valid() {
    for text in [
        include_str!("../../manifests/linux-x64.json"),
        include_str!("../../manifests/ovmf-x64.json"),
    ] {
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        assert!(!manifest.needs().is_empty());
    }
}

#[test]
fn a_dump_names_what_is_in_the_file() {
    let files = Files::new();
    let file = files.packed(&serde_json::json!({"use_initrd": true, "memory_size": RAM}));
    let parsed = igvm_format::IgvmFile::parse(&file).unwrap();
    igvmfilegen::verify(&parsed).unwrap();
    let text = igvmfilegen::dump_text(&parsed, &file);
    for expected in [
        "SUPPORTED_PLATFORM platform=NATIVE mask=0x1",
        "COMMAND_LINE area=0 byte_offset=0x0",
        "REQUIRED_MEMORY mask=0x1 gpa=0x0 size=0x4000000",
        "rip=0x1000000",
        "PARAMETER_INSERT mask=0x1 gpa=0x3000 area=0",
        "PAGE_DATA gpa=0x1000000 end=0x1005000 pages=5",
    ] {
        assert!(text.contains(expected), "{expected} not in:\n{text}");
    }
    let json = igvmfilegen::dump_json(&parsed, &file);
    assert_eq!(json["records"][0]["platform"], "NATIVE");
}
