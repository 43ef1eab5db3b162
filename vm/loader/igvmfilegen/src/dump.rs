//! Any IGVM file, in words or as JSON.

use igvm_format::At;
use igvm_format::Directive;
use igvm_format::IgvmError;
use igvm_format::IgvmFile;
use igvm_format::Initialization;
use igvm_format::PageDataRecord;
use igvm_format::VpContextData;
use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use sha2::Sha256;
use std::fmt::Write;

/// Checks what parsing does not: that on no platform two records fill the same memory.
pub fn verify(file: &IgvmFile<'_>) -> Result<(), IgvmError> {
    let mut platforms = file.platforms.iter();
    platforms.try_for_each(|at| file.check_overlaps(at.record.mask))
}

/// A record in words: its name, and its fields.
struct Described {
    offset: u64,
    name: &'static str,
    fields: Vec<(&'static str, Value)>,
}

/// The file in words, a line for each record. Pages that follow each other in memory have one line.
pub fn dump_text(file: &IgvmFile<'_>, bytes: &[u8]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "IGVM file of {} bytes, {:?}, sha256 {}",
        bytes.len(),
        file.revision,
        sha256(bytes)
    );
    for record in describe(file) {
        let _ = write!(text, "{:#010x} {}", record.offset, record.name);
        for (name, value) in record.fields {
            let _ = match value {
                Value::String(value) => write!(text, " {name}={value}"),
                value => write!(text, " {name}={value}"),
            };
        }
        text.push('\n');
    }
    text
}

/// The file as JSON.
pub fn dump_json(file: &IgvmFile<'_>, bytes: &[u8]) -> Value {
    let records = describe(file).into_iter().map(|record| {
        let mut object = serde_json::Map::new();
        object.insert("offset".into(), record.offset.into());
        object.insert("record".into(), record.name.into());
        for (name, value) in record.fields {
            object.insert(name.into(), value);
        }
        Value::Object(object)
    });
    json!({
        "bytes": bytes.len(),
        "revision": format!("{:?}", file.revision),
        "sha256": sha256(bytes),
        "records": records.collect::<Vec<_>>(),
    })
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn number(value: impl Into<u64>) -> Value {
    format!("{:#x}", value.into()).into()
}

fn describe(file: &IgvmFile<'_>) -> Vec<Described> {
    let mut records = Vec::new();
    for At { offset, record } in &file.platforms {
        records.push(Described {
            offset: *offset,
            name: "SUPPORTED_PLATFORM",
            fields: vec![
                ("platform", record.platform_type.name().into()),
                ("mask", number(record.mask)),
                ("highest_vtl", record.highest_vtl.into()),
                ("shared_gpa_boundary", number(record.shared_gpa_boundary)),
            ],
        });
    }
    for At { offset, record } in &file.initializations {
        records.push(Described {
            offset: *offset,
            name: record.name(),
            fields: initialization(record),
        });
    }
    let mut directives = file.directives.iter().peekable();
    while let Some(At { offset, record }) = directives.next() {
        let fields = match record {
            Directive::PageData(first) => {
                let mut count = 1u64;
                while let Some(Directive::PageData(next)) = directives.peek().map(|at| &at.record)
                    && follows(first, count, next)
                {
                    count += 1;
                    directives.next();
                }
                pages(first, count)
            }
            other => directive(other),
        };
        records.push(Described {
            offset: *offset,
            name: record.name(),
            fields,
        });
    }
    for At { offset, record } in &file.skipped {
        records.push(Described {
            offset: *offset,
            name: "unknown optional record",
            fields: vec![("type", number(record.kind)), ("len", record.len.into())],
        });
    }
    records
}

/// Whether `next` is the page after the `count` pages from `first`, and of the same kind.
fn follows(first: &PageDataRecord<'_>, count: u64, next: &PageDataRecord<'_>) -> bool {
    let address = count
        .checked_mul(first.size())
        .and_then(|len| first.gpa.checked_add(len));
    address == Some(next.gpa)
        && (first.mask, first.flags, first.data_type) == (next.mask, next.flags, next.data_type)
        && first.data.is_empty() == next.data.is_empty()
}

fn pages(first: &PageDataRecord<'_>, count: u64) -> Vec<(&'static str, Value)> {
    let mut fields = vec![
        ("gpa", number(first.gpa)),
        (
            "end",
            number(first.gpa.saturating_add(count.saturating_mul(first.size()))),
        ),
        ("pages", count.into()),
        ("mask", number(first.mask)),
        ("type", format!("{:?}", first.data_type).into()),
        (
            "content",
            if first.data.is_empty() {
                "zero"
            } else {
                "data"
            }
            .into(),
        ),
    ];
    let flags = first.flags;
    for (name, set) in [
        ("large", flags.large),
        ("unmeasured", flags.unmeasured),
        ("shared", flags.shared),
    ] {
        if set {
            fields.push((name, true.into()));
        }
    }
    fields
}

fn initialization(header: &Initialization<'_>) -> Vec<(&'static str, Value)> {
    match header {
        Initialization::GuestPolicy(policy) => vec![
            ("mask", number(policy.mask)),
            ("policy", number(policy.policy)),
        ],
        Initialization::RelocatableRegion(region) => vec![
            ("mask", number(region.mask)),
            ("gpa", number(region.gpa)),
            ("size", number(region.size)),
            ("alignment", number(region.alignment)),
            ("minimum", number(region.minimum_gpa)),
            ("maximum", number(region.maximum_gpa)),
            ("vp", region.vp_index.into()),
            ("vtl", region.vtl.into()),
            ("is_vtl2", region.is_vtl2.into()),
            ("apply_rip_offset", region.apply_rip_offset.into()),
            ("apply_gdtr_offset", region.apply_gdtr_offset.into()),
        ],
        Initialization::PageTableRegion(region) => vec![
            ("mask", number(region.mask)),
            ("gpa", number(region.gpa)),
            ("size", number(region.size)),
            ("used", number(region.used_size)),
            ("vp", region.vp_index.into()),
            ("vtl", region.vtl.into()),
        ],
        Initialization::CorimDocument(corim) | Initialization::CorimSignature(corim) => vec![
            ("mask", number(corim.mask)),
            ("len", corim.data.len().into()),
            ("sha256", sha256(corim.data).into()),
        ],
        Initialization::CcaPolicy(policy) => vec![
            ("mask", number(policy.mask)),
            ("required_zero", number(policy.required_zero)),
            ("required_one", number(policy.required_one)),
            ("hash_algorithm", policy.hash_algorithm.into()),
            ("lfa_policy", policy.lfa_policy.into()),
        ],
        Initialization::VersionString(text) => {
            vec![("version", text.escape_debug().to_string().into())]
        }
    }
}

fn directive(directive: &Directive<'_>) -> Vec<(&'static str, Value)> {
    let mut fields = Vec::new();
    if let Some(mask) = directive.mask() {
        fields.push(("mask", number(mask)));
    }
    match directive {
        Directive::PageData(page) => fields.extend(pages(page, 1)),
        Directive::ParameterArea(area) => fields.extend([
            ("area", area.index.into()),
            ("size", number(area.size)),
            ("initial", area.initial.len().into()),
        ]),
        Directive::Parameter(parameter) => fields.extend([
            ("area", parameter.area.into()),
            ("byte_offset", number(parameter.byte_offset)),
        ]),
        Directive::ParameterInsert(insert) => {
            fields.extend([("gpa", number(insert.gpa)), ("area", insert.area.into())]);
        }
        Directive::VpContext(context) => {
            fields.extend([
                ("vp", context.vp_index.into()),
                ("gpa", number(context.gpa)),
            ]);
            fields.extend(registers(&context.data));
        }
        Directive::RequiredMemory(memory) => fields.extend([
            ("gpa", number(memory.gpa)),
            ("size", number(memory.size)),
            ("vtl2_protectable", memory.vtl2_protectable.into()),
        ]),
        Directive::ErrorRange(range) => {
            fields.extend([("gpa", number(range.gpa)), ("size", number(range.size))]);
        }
        Directive::SnpIdBlock(block) => fields.extend([
            ("guest_svn", block.guest_svn.into()),
            ("launch_digest", hex(block.launch_digest).into()),
        ]),
        Directive::VbsMeasurement(measurement) => fields.extend([
            ("security_version", measurement.security_version.into()),
            ("digest", hex(measurement.digest).into()),
        ]),
    }
    fields
}

/// The registers of a context. Of a VMSA and a REC, which hold far more, only the digest.
fn registers(data: &VpContextData<'_>) -> Vec<(&'static str, Value)> {
    match data {
        VpContextData::Native(c) => {
            let registers = [
                ("rax", c.rax),
                ("rcx", c.rcx),
                ("rdx", c.rdx),
                ("rbx", c.rbx),
                ("rsp", c.rsp),
                ("rbp", c.rbp),
                ("rsi", c.rsi),
                ("rdi", c.rdi),
                ("r8", c.r8),
                ("r9", c.r9),
                ("r10", c.r10),
                ("r11", c.r11),
                ("r12", c.r12),
                ("r13", c.r13),
                ("r14", c.r14),
                ("r15", c.r15),
                ("rip", c.rip),
                ("rflags", c.rflags),
                ("cr0", c.cr0),
                ("cr3", c.cr3),
                ("cr4", c.cr4),
                ("efer", c.efer),
                ("gs_base", c.gs_base),
            ];
            let mut fields: Vec<_> = registers
                .iter()
                .map(|(name, value)| (*name, number(value.get())))
                .collect();
            fields.extend([
                (
                    "gdtr",
                    format!("{:#x}/{:#x}", c.gdtr_base, c.gdtr_limit).into(),
                ),
                (
                    "idtr",
                    format!("{:#x}/{:#x}", c.idtr_base, c.idtr_limit).into(),
                ),
                (
                    "code",
                    format!(
                        "{:#x}:{:#x}/{:#x},{:#x}",
                        c.code_selector, c.code_base, c.code_limit, c.code_attributes
                    )
                    .into(),
                ),
                (
                    "data",
                    format!(
                        "{:#x}:{:#x}/{:#x},{:#x}",
                        c.data_selector, c.data_base, c.data_limit, c.data_attributes
                    )
                    .into(),
                ),
            ]);
            fields
        }
        VpContextData::Vsm(list) => {
            let registers = list.iter().map(|register| {
                let value = match loader::igvm::register_from_vsm(register) {
                    Some(register) => format!("{register:x?}"),
                    None => format!("{:#010x}: {}", register.name, hex(&register.value)),
                };
                Value::from(value)
            });
            vec![
                ("vtl", list.first().map_or(0, |first| first.vtl).into()),
                ("registers", Value::Array(registers.collect())),
            ]
        }
        VpContextData::Vmsa(bytes) => vec![("vmsa_sha256", sha256(bytes).into())],
        VpContextData::Rec(bytes) => vec![("rec_sha256", sha256(bytes).into())],
    }
}
