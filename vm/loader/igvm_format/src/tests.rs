use crate::test_files::*;
use crate::*;
use proptest::prelude::*;

/// Writes and reads a file.
fn read_back<'a>(file: &IgvmFile<'_>, bytes: &'a mut Vec<u8>) -> IgvmFile<'a> {
    *bytes = file.write().unwrap();
    IgvmFile::parse(bytes).unwrap()
}

#[test]
fn every_record_is_read_as_it_was_written() {
    let content = Content::new();
    let file = content.everything();
    let mut bytes = Vec::new();
    let read = read_back(&file, &mut bytes);
    assert_eq!(without_offsets(&read), file);
    // The same content is stored once, and the same file has the same bytes.
    assert_eq!(file.write().unwrap(), bytes);
    let pages = bytes.windows(4096).filter(|window| *window == content.page);
    assert_eq!(pages.count(), 1);
}

#[test]
fn headers_have_the_documented_bytes() {
    let content = Content::new();
    let v1 = content.small(Revision::V1).write().unwrap();
    assert_eq!(v1[..8], *b"IGVM\x01\0\0\0");
    assert_eq!(v1[8..16], [24, 0, 0, 0, 88, 0, 0, 0]);
    // SUPPORTED_PLATFORM, of NATIVE, version 1.
    assert_eq!(
        v1[24..40],
        [1, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0]
    );
    // VP_CONTEXT has 20 bytes and 4 of padding; its data is the first.
    assert_eq!(v1[48..56], [0x04, 0x03, 0, 0, 20, 0, 0, 0]);
    assert_eq!(v1[68..72], [112, 0, 0, 0]);
    assert_eq!(v1[80..88], [0x02, 0x03, 0, 0, 24, 0, 0, 0]);
    assert_eq!(v1.len(), 112 + 2 * 4096);
    let v2 = content.small(Revision::V2(Architecture::X64));
    let v2 = v2.write().unwrap();
    assert_eq!(v2[4..12], [2, 0, 0, 0, 32, 0, 0, 0]);
    assert_eq!(v2[24..32], [0, 0, 0, 0, 0, 16, 0, 0]);
    // Computed by Python's zlib over the header with a zero checksum, and the records.
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes[20..24].try_into().unwrap());
    assert_eq!(word(&v1), header::checksum(&v1[..24], &v1[24..112]));
}

/// The error for a file with these bytes changed, and the checksum right.
fn refused(file: &[u8], offset: usize, bytes: &[u8]) -> String {
    let mut file = file.to_vec();
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
    // The total size is one of the fields that are changed.
    let mended = match offset {
        16 => file,
        _ => with_valid_header(&file),
    };
    let error = IgvmFile::parse(&mended).map(|_| ()).unwrap_err();
    error.to_string()
}

#[test]
fn each_rule_has_an_error_with_its_place() {
    let content = Content::new();
    let file = content.small(Revision::V2(Architecture::X64));
    let file = file.write().unwrap();
    let (platform, context, page) = (32, 56, 88);
    for (offset, bytes, expected) in [
        (
            0,
            &b"MVGI"[..],
            "fixed header at offset 0x0: the file does not begin with \"IGVM\"",
        ),
        (
            4,
            &[3],
            "fixed header at offset 0x0: the version is 0x3: 1 and 2 are supported",
        ),
        (
            24,
            &[2],
            "fixed header at offset 0x0: the architecture is 0x2: 0 is x64 and 1 is AArch64",
        ),
        (
            29,
            &[0x20],
            "the page size is 0x2000: only 4096 is supported",
        ),
        (8, &[28], "the variable headers' offset is 0x1c"),
        (12, &[0xff; 4], "the variable headers' size is 0xffffffff"),
        (16, &[0], "it states a file of"),
        (
            platform,
            &[9],
            "record at offset 0x20: type 0x9 is unknown and not optional",
        ),
        (
            platform + 4,
            &[8],
            "SUPPORTED_PLATFORM at offset 0x20: its length is 8 bytes, not 16",
        ),
        (
            platform + 8,
            &[3],
            "the mask is 0x3: exactly one bit is needed",
        ),
        (
            platform + 12,
            &[1],
            "the highest VTL is 0x1: 0 and 2 are allowed",
        ),
        (
            platform + 13,
            &[7],
            "the platform type is 0x7: 0 to 6 are known",
        ),
        (platform + 13, &[6], "it does not exist on the platform CCA"),
        (
            platform + 14,
            &[2],
            "the platform version is 0x2: 1 is known",
        ),
        (
            platform + 16,
            &[1],
            "the shared GPA boundary is 0x1: this platform has no shared memory",
        ),
        (
            platform,
            &[0x05, 0x03],
            "REQUIRED_MEMORY at offset 0x20: its length is 16 bytes, not 24",
        ),
        (
            context + 8,
            &[1],
            "VP_CONTEXT at offset 0x38: the address is 0x1: only a VMSA has one",
        ),
        (
            context + 16,
            &[2],
            "VP_CONTEXT at offset 0x38: the mask is 0x2",
        ),
        (
            context + 16,
            &[0],
            "VP_CONTEXT at offset 0x38: the mask is 0x0",
        ),
        (
            context + 20,
            &[0],
            "VP_CONTEXT at offset 0x38: its data, 4096 bytes at offset 0x0, is not",
        ),
        (
            context + 20,
            &[0xff; 4],
            "its data, 4096 bytes at offset 0xffffffff, is not within",
        ),
        (
            context + 26,
            &[1],
            "VP_CONTEXT at offset 0x38: the reserved field is not zero",
        ),
        (
            context + 29,
            &[1],
            "VP_CONTEXT at offset 0x38: the padding is not zero",
        ),
        (
            page,
            &[0x06],
            "record at offset 0x58: type 0x306 is unknown and not optional",
        ),
        (
            page + 8,
            &[1],
            "PAGE_DATA at offset 0x58: the address is 0x100001",
        ),
        (
            page + 8,
            &[0, 0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            "pass the end of the address space",
        ),
        (
            page + 20,
            &[1, 0, 0, 0],
            "PAGE_DATA at offset 0x58: its data, 4096 bytes at offset 0x",
        ),
        (
            page + 24,
            &[1],
            "PAGE_DATA at offset 0x58: the address is 0x100000: a multiple of 2 MiB",
        ),
        (
            page + 24,
            &[8],
            "PAGE_DATA at offset 0x58: the flags is 0x8: bits 0 to 2 are known",
        ),
        (
            page + 28,
            &[4],
            "PAGE_DATA at offset 0x58: the data type is 0x4: 0 to 3 are known",
        ),
        (
            page + 30,
            &[1],
            "PAGE_DATA at offset 0x58: the reserved field is not zero",
        ),
        (
            page,
            &[0x01, 0x01],
            "GUEST_POLICY at offset 0x58: it comes after records of the directive section",
        ),
        (
            file.len() - 4096 - 1,
            &[1],
            "VP_CONTEXT at offset 0x38: a reserved part of the context is not zero",
        ),
    ] {
        let error = refused(&file, offset, bytes);
        assert!(error.contains(expected), "{offset:#x}: {error}");
    }
    let mut wrong = file.clone();
    wrong[page + 8] = 0x10;
    let error = IgvmFile::parse(&wrong).unwrap_err();
    assert!(matches!(error.problem, Problem::Checksum { .. }), "{error}");
}

/// A file with one platform and these directives.
fn with_directives(directives: &[Directive<'_>]) -> Result<(), String> {
    let content = Content::new();
    let mut file = content.small(Revision::V2(Architecture::X64));
    let directives = directives.iter().map(|directive| At::from(*directive));
    file.directives.extend(directives);
    let bytes = file.write().map_err(|error| match error {
        WriteError::Malformed(error) => error.to_string(),
        other => other.to_string(),
    })?;
    let file = IgvmFile::parse(&bytes).unwrap();
    file.check_overlaps(1).map_err(|error| error.to_string())
}

#[test]
fn areas_are_declared_filled_and_inserted_in_this_order() {
    let area = |index, size| {
        Directive::ParameterArea(ParameterAreaRecord {
            index,
            size,
            initial: &[],
        })
    };
    let line = |area, byte_offset| {
        Directive::Parameter(ParameterRecord {
            kind: ParameterKind::CommandLine,
            area,
            byte_offset,
        })
    };
    let insert = |area, gpa| Directive::ParameterInsert(ParameterInsert { gpa, mask: 1, area });
    let refused = |directives: &[Directive<'_>]| with_directives(directives).unwrap_err();
    with_directives(&[area(0, 4096), line(0, 4095), insert(0, 0x2000)]).unwrap();
    with_directives(&[area(0, 4096)]).unwrap();
    for (directives, expected) in [
        (
            &[line(0, 0)][..],
            "COMMAND_LINE at offset 0x78: parameter area 0 is not declared",
        ),
        (&[insert(0, 0)], "parameter area 0 is not declared"),
        (
            &[area(0, 4096), area(0, 4096)],
            "parameter area 0 is declared already",
        ),
        (
            &[area(0, 4096), insert(0, 0), line(0, 0)],
            "parameter area 0 was inserted already",
        ),
        (
            &[area(0, 4096), insert(0, 0), insert(0, 0x5000)],
            "parameter area 0 was inserted already",
        ),
        (
            &[area(0, 4096), line(0, 4096)],
            "the byte offset is 0x1000: it is not inside",
        ),
        (
            &[area(0, 100)],
            "the size is 0x64: a multiple of 4096 is needed",
        ),
        (&[area(0, 0)], "the size is 0x0: it must not be empty"),
        (
            &[
                area(0, 0x8000_0000_0000_0000),
                insert(0, 0x8000_0000_0000_0000),
            ],
            "pass the end of the address space",
        ),
        (
            &[area(0, 8192), insert(0, 0xf_f000)],
            "PARAMETER_INSERT at offset 0x90: 0xff000-0x101000 overlaps",
        ),
    ] {
        let error = refused(directives);
        let found = error.contains(expected);
        let other_order = error.contains("overlaps") && expected.contains("overlaps");
        assert!(found || other_order, "{expected}: {error}");
    }
}

#[test]
fn overlapping_pages_are_named() {
    let page = |gpa, large| {
        Directive::PageData(PageDataRecord {
            gpa,
            mask: 1,
            flags: PageFlags {
                large,
                ..PageFlags::default()
            },
            data_type: PageDataType::Normal,
            data: &[],
        })
    };
    assert_eq!(
        with_directives(&[page(0x10_0000, false)]).unwrap_err(),
        "PAGE_DATA at offset 0x78: 0x100000-0x101000 overlaps 0x100000-0x101000 of the PAGE_DATA at offset 0x58"
    );
    with_directives(&[page(0x10_1000, false), page(0x20_0000, true)]).unwrap();
    assert!(with_directives(&[page(0x20_0000, true), page(0x3f_f000, false)]).is_err());
}

#[test]
fn optional_records_of_unknown_types_are_skipped() {
    let content = Content::new();
    let file = content.small(Revision::V1).write().unwrap();
    let records = &file[24..112];
    let unknown = [0x50, 0x02, 0, 0x80, 3, 0, 0, 0, 1, 2, 3, 0, 0, 0, 0, 0];
    let shifted = |records: &[u8]| {
        let mut file = file.clone();
        file.splice(24..112, records.iter().copied());
        let added = records.len() - 88;
        let bump = |file: &mut Vec<u8>, at: usize| {
            let word = u32::from_le_bytes(std::array::from_fn(|n| file[at + n])) + added as u32;
            file[at..at + 4].copy_from_slice(&word.to_le_bytes());
        };
        bump(&mut file, 12);
        bump(&mut file, 16);
        // The data has moved: the context's and the page's offsets.
        bump(&mut file, 24 + 16 + 24 + 20);
        bump(&mut file, 24 + 16 + 24 + 32 + 20);
        with_valid_header(&file)
    };
    let with_unknown = shifted(&[&unknown[..], records].concat());
    let parsed = IgvmFile::parse(&with_unknown).unwrap();
    assert_eq!(
        parsed.skipped,
        [At {
            offset: 24,
            record: Skipped {
                kind: 0x250,
                len: 3
            }
        }]
    );
    assert_eq!(parsed.directives.len(), 2);
    let mut required = unknown;
    required[3] = 0;
    let error = shifted(&[&required[..], records].concat());
    let error = IgvmFile::parse(&error).unwrap_err();
    assert_eq!(error.problem, Problem::UnknownType { kind: 0x250 });
}

#[test]
fn no_truncation_and_no_flipped_byte_does_harm() {
    let content = Content::new();
    let file = content.everything().write().unwrap();
    for len in 0..file.len().min(4000) {
        assert!(IgvmFile::parse(&file[..len]).is_err());
        // The same with a header that states this length.
        if len >= 32 {
            let cut = with_valid_header(&file[..len]);
            assert!(IgvmFile::parse(&cut).is_err());
        }
    }
    let headers = 32 + u32::from_le_bytes(file[12..16].try_into().unwrap()) as usize;
    for at in 0..headers {
        for flip in [0x01, 0x80] {
            let mut changed = file.clone();
            changed[at] ^= flip;
            let found = IgvmFile::parse(&changed);
            assert!(found.is_err(), "{at:#x}");
            let changed = with_valid_header(&changed);
            if let Ok(parsed) = IgvmFile::parse(&changed) {
                for platform in &parsed.platforms {
                    let _ = parsed.check_overlaps(platform.record.mask);
                }
                // What is accepted can be written again.
                parsed.write().unwrap();
            }
        }
    }
}

proptest! {
    #[test]
    fn pages_are_read_as_they_were_written(
        pages in proptest::collection::vec((0u64..1 << 40, 0u8..4, 0usize..4097, any::<u8>()), 0..40),
        v2 in any::<bool>(),
    ) {
        let content: Vec<Vec<u8>> = pages
            .iter()
            .map(|(_, _, len, byte)| vec![*byte; *len])
            .collect();
        let revision = if v2 { Revision::V2(Architecture::X64) } else { Revision::V1 };
        let base = Content::new();
        let mut file = base.small(revision);
        for ((number, kind, ..), data) in pages.iter().zip(&content) {
            file.directives.push(At::from(Directive::PageData(PageDataRecord {
                gpa: number << 12,
                mask: 1,
                flags: PageFlags { unmeasured: number % 2 == 0, ..PageFlags::default() },
                data_type: PageDataType::ALL[usize::from(*kind)],
                data,
            })));
        }
        let mut bytes = Vec::new();
        let read = read_back(&file, &mut bytes);
        prop_assert_eq!(read.directives.len(), file.directives.len());
        for (read, written) in read.directives.iter().zip(&file.directives) {
            match (&read.record, &written.record) {
                (Directive::PageData(read), Directive::PageData(written)) => {
                    prop_assert_eq!(
                        (read.gpa, read.mask, read.flags, read.data_type),
                        (written.gpa, written.mask, written.flags, written.data_type)
                    );
                    let (data, rest) = read.data.split_at(written.data.len());
                    prop_assert_eq!(data, written.data);
                    prop_assert!(rest.iter().all(|byte| *byte == 0));
                }
                (read, written) => prop_assert_eq!(read, written),
            }
        }
    }

    #[test]
    fn changed_words_do_no_harm(
        words in proptest::collection::vec((0usize..1800, any::<u32>()), 1..6),
    ) {
        let content = Content::new();
        let mut file = content.everything().write().unwrap();
        for (at, word) in words {
            file[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        let file = with_valid_header(&file);
        if let Ok(parsed) = IgvmFile::parse(&file) {
            parsed.write().unwrap();
        }
    }
}
