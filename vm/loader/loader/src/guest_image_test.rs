use super::*;
use crate::linux::EntryProtocol;
use crate::linux::constructed::Elf;
use crate::linux::constructed::bzimage;
use crate::ovmf;
use crate::test_support::*;
use std::sync::Arc;

/// Records what a payload imports, as a generator of image files does.
#[derive(Default)]
struct Recording {
    required: Vec<MemoryRange>,
    /// Pages with their whole content.
    pages: Vec<(PageKind, MemoryRange, Vec<u8>)>,
    registers: VpRegisters,
}

impl ImageLoad for Recording {
    fn require_memory(
        &mut self,
        _what: &'static str,
        range: MemoryRange,
    ) -> Result<(), ImportError> {
        assert!(self.pages.is_empty(), "required after an import");
        self.required.push(range);
        Ok(())
    }

    fn import_pages(&mut self, pages: &PageImport) -> Result<(), ImportError> {
        let bytes = pages.read()?;
        assert_eq!(bytes.len() as u64, pages.range.len());
        self.pages.push((pages.kind, pages.range, bytes));
        Ok(())
    }

    fn create_parameter_area(&mut self, area: ParameterArea) -> Result<(), ImportError> {
        let zero = vec![0; area.range.len() as usize];
        self.pages.push((PageKind::Ram, area.range, zero));
        Ok(())
    }

    fn import_parameter(
        &mut self,
        area: ParameterArea,
        offset: u64,
        parameter: Parameter<'_>,
    ) -> Result<(), ImportError> {
        let Parameter::CommandLine(line) = parameter else {
            panic!("{parameter:?}");
        };
        let mut areas = self.pages.iter_mut();
        let (_, _, bytes) = areas.find(|(_, range, _)| *range == area.range).unwrap();
        bytes[offset as usize..][..line.len()].copy_from_slice(line.as_bytes());
        Ok(())
    }

    fn import_register(&mut self, vp: u32, register: VpRegister) -> Result<(), ImportError> {
        self.registers.entry(vp).or_default().push(register);
        Ok(())
    }
}

fn range(start: u64, end: u64) -> MemoryRange {
    MemoryRange { start, end }
}

fn pages(what: &'static str, range: MemoryRange, content: Vec<(u64, &[u8])>) -> PageImport {
    PageImport {
        what,
        range,
        kind: PageKind::Ram,
        content: content
            .into_iter()
            .map(|(offset, bytes)| Piece {
                offset,
                data: PageData::Bytes(bytes.into()),
            })
            .collect(),
    }
}

#[test]
fn guest_memory_and_a_recording_of_the_same_linux_boot_are_equal() {
    let odd = Elf {
        segments: vec![
            (0x100_0010, vec![1; 0x1234], 0x1300),
            (0x100_1320, vec![2; 0x800], 0x2_0000),
        ],
        entry: 0x100_0010,
        notes: None,
    };
    let vmlinux = Elf::vmlinux().bytes();
    for (kernel, protocol) in [
        (bzimage(0x2000), EntryProtocol::Auto),
        (vmlinux.clone(), EntryProtocol::Linux64),
        (vmlinux, EntryProtocol::Pvh),
        (odd.bytes(), EntryProtocol::Auto),
    ] {
        let boot = Boot {
            initrd: Some(vec![0xab; 5000]),
            protocol,
            ..Boot::of(kernel)
        };
        let plan = boot.plan().unwrap();
        let memory = boot.memory();
        let mut expected = vec![0x5a; boot.ram as usize];
        memory.write_slice(&expected, GuestAddress(0)).unwrap();

        let mut image = GuestImage::new(&memory);
        plan.load(&mut image).unwrap();
        let mut recording = Recording::default();
        plan.load(&mut recording).unwrap();

        let mut imported = Vec::new();
        for (kind, range, bytes) in recording.pages {
            assert_eq!(kind, PageKind::Ram);
            expected[range.start as usize..range.end as usize].copy_from_slice(&bytes);
            imported.push(range);
        }
        assert_eq!(recording.required, imported);
        assert!(bytes(&memory, 0, boot.ram as usize) == expected);
        assert!(image.roms().is_empty());
        assert_eq!(image.into_registers(), recording.registers);
    }
}

#[test]
fn guest_memory_and_a_recording_of_the_same_ovmf_image_are_equal() {
    let code: Arc<[u8]> = (0..0x2_0000).map(|i| (i * 3) as u8).collect();
    let memory = Boot::of(Vec::new()).memory();
    let mut image = GuestImage::new(&memory);
    let rom = ovmf::load(&mut image, &code).unwrap();
    assert_eq!(rom, range(0xfffe_0000, 0x1_0000_0000));
    let mut recording = Recording::default();
    ovmf::load(&mut recording, &code).unwrap();

    let [(PageKind::Rom, recorded, bytes)] = &recording.pages[..] else {
        panic!("{} imports", recording.pages.len());
    };
    assert_eq!((*recorded, &bytes[..]), (rom, &code[..]));
    let [found] = image.roms() else {
        panic!("{} ROMs", image.roms().len());
    };
    assert_eq!((found.range, found.read().unwrap()), (rom, code.to_vec()));
    assert!(recording.registers.is_empty());
    assert!(image.into_registers().is_empty());

    let partial: Arc<[u8]> = vec![0; 0x1234].into();
    assert!(matches!(
        ovmf::load(&mut GuestImage::new(&memory), &partial),
        Err(ImportError::Content { .. })
    ));
}

#[test]
fn overlapping_imports_are_refused_and_name_both() {
    let memory = Boot::of(Vec::new()).memory();
    let mut image = GuestImage::new(&memory);
    let first = pages("first", range(0x2000, 0x4000), vec![(0, &[1; 0x2000])]);
    image.import_pages(&first).unwrap();
    for (start, end) in [
        (0x1000, 0x3000),
        (0x2000, 0x4000),
        (0x3000, 0x5000),
        (0x1000, 0x5000),
    ] {
        let area = ParameterArea {
            what: "second",
            range: range(start, end),
        };
        let error = image.create_parameter_area(area).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("second at {start:#x}-{end:#x} overlaps first at 0x2000-0x4000")
        );
    }
    assert_eq!(bytes(&memory, 0x2000, 0x2000), [1; 0x2000]);
    for (start, end) in [(0x1000, 0x2000), (0x4000, 0x5000)] {
        let beside = pages("beside", range(start, end), Vec::new());
        image.import_pages(&beside).unwrap();
    }
}

#[test]
fn content_outside_its_pages_is_refused() {
    let memory = Boot::of(Vec::new()).memory();
    let whole = range(0x2000, 0x3000);
    for pages in [
        pages("too long", whole, vec![(0, &[1; 0x1001])]),
        pages("too far", whole, vec![(u64::MAX, &[1; 2])]),
        pages("not ascending", whole, vec![(8, &[1]), (0, &[1])]),
        pages("overlapping", whole, vec![(0, &[1; 8]), (7, &[1])]),
        pages("empty", range(0x2000, 0x2000), Vec::new()),
        pages("unaligned", range(0x2000, 0x2800), Vec::new()),
    ] {
        let error = GuestImage::new(&memory).import_pages(&pages).unwrap_err();
        assert!(matches!(error, ImportError::Content { .. }), "{error}");
        assert!(pages.read().is_err());
    }
    let area = ParameterArea {
        what: "the area",
        range: whole,
    };
    let mut image = GuestImage::new(&memory);
    image.create_parameter_area(area).unwrap();
    let line = Parameter::CommandLine("a line");
    image.import_parameter(area, 0xff9, line).unwrap();
    assert_eq!(bytes(&memory, 0x2ff9, 7), b"a line\0");
    for offset in [0xffa, u64::MAX] {
        assert!(matches!(
            image.import_parameter(area, offset, line),
            Err(ImportError::Content { .. })
        ));
    }
}

#[test]
fn memory_is_required_to_the_last_byte() {
    let boot = Boot::of(Vec::new());
    let memory = boot.memory();
    let mut image = GuestImage::new(&memory);
    let all = range(0x1000, boot.ram);
    assert!(image.require_memory("all", all).is_ok());
    let beyond = range(0x1000, boot.ram + 1);
    assert!(matches!(
        image.require_memory("too much", beyond),
        Err(ImportError::NoRam {
            what: "too much",
            ..
        })
    ));
}
