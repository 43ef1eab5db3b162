//! Printing the headers.

use data_encoding::HEXLOWER;
use serde_json::json;
use std::fmt::Write as _;
use vmgs::HeaderScan;
use vmgs_format::Header;
use vmgs_format::MetadataKeyRecord;
use vmgs_format::Version;

fn prefixed(bytes: &[u8]) -> String {
    format!("0x{}", HEXLOWER.encode(bytes))
}

/// The fields of a header with their names, as scripts parse them; a group has no value.
fn rows(header: &Header) -> Vec<(&'static str, Option<String>)> {
    let version = header.version.get().to_le_bytes();
    let [first, second] = &header.metadata_keys;
    let mut rows = vec![
        (
            "Signature:",
            Some(format!("{:#018x}", u64::from_le_bytes(header.signature))),
        ),
        ("Version:", Some(format!("{}.{}", version[2], version[0]))),
        ("Checksum:", Some(format!("{:x}", header.checksum))),
        ("Sequence:", Some(header.sequence.to_string())),
        ("HeaderSize:", Some(header.header_size.to_string())),
        (
            "FileTableOffset:",
            Some(format!("{:#010x}", header.file_table_offset)),
        ),
        ("FileTableSize:", Some(header.file_table_size.to_string())),
        (
            "EncryptionAlgorithm:",
            Some(format!("{:#06x}", header.encryption_algorithm)),
        ),
        ("Markers:", Some(format!("{:#06x}", header.markers))),
        ("MetadataKey1:", None),
    ];
    rows.extend(record_rows(first, ""));
    rows.push(("MetadataKey2:", None));
    // Scripts expect the doubled prefix here and in the last row.
    rows.extend(record_rows(second, "0x"));
    rows.push(("Reserved:", Some(format!("0x{:#010x}", header.reserved))));
    rows
}

fn record_rows(record: &MetadataKeyRecord, prefix: &str) -> [(&'static str, Option<String>); 4] {
    [
        ("    Nonce:", Some(prefixed(&record.nonce))),
        (
            "    Reserved:",
            Some(format!("{prefix}{:#010x}", record.reserved)),
        ),
        ("    AuthenticationTag:", Some(prefixed(&record.tag))),
        ("    EncryptionKey:", Some(prefixed(&record.encrypted_key))),
    ]
}

/// Both headers side by side, and which is active.
pub(crate) fn text(scan: &HeaderScan) -> String {
    let mut text = String::from("FILE HEADERS\n");
    let _ = writeln!(text, "{:23} {:^70} {:^70}", "Field", "Header 1", "Header 2");
    let rule = format!("{} {} {}\n", "-".repeat(23), "-".repeat(70), "-".repeat(70));
    text.push_str(&rule);
    let [first, second] = scan.headers.each_ref().map(rows);
    for ((field, a), (_, b)) in first.into_iter().zip(second) {
        let _ = match (a, b) {
            (Some(a), Some(b)) => writeln!(text, "{field:23} {a:>70} {b:>70}"),
            _ => writeln!(text, "{field:23}"),
        };
    }
    text.push_str(&rule);
    text.push('\n');
    for (i, validity) in scan.validity.iter().enumerate() {
        let _ = match validity {
            Ok(()) => writeln!(text, "Verifying header {}... [VALID]", i + 1),
            Err(error) => writeln!(
                text,
                "Verifying header {}... [INVALID] Error: {error}",
                i + 1
            ),
        };
    }
    let _ = match scan.active() {
        Ok(active) => writeln!(text, "Active header is {}", active + 1),
        Err(error) => writeln!(text, "Unable to determine active header: {error}"),
    };
    text
}

/// Both headers and which is active, in JSON.
pub(crate) fn as_json(scan: &HeaderScan) -> serde_json::Value {
    let headers: Vec<_> = scan
        .headers
        .iter()
        .zip(&scan.validity)
        .map(|(header, validity)| {
            json!({
                "signature": String::from_utf8_lossy(&header.signature),
                "version": Version(header.version.get()).to_string(),
                "checksum": header.checksum.get(),
                "sequence": header.sequence.get(),
                "header_size": header.header_size.get(),
                "file_table_offset": header.file_table_offset.get(),
                "file_table_size": header.file_table_size.get(),
                "encryption_algorithm": header.encryption_algorithm.get(),
                "markers": header.markers.get(),
                "metadata_keys": header.metadata_keys.iter().map(|record| json!({
                    "occupied": record.is_occupied(),
                    "nonce": HEXLOWER.encode(&record.nonce),
                    "authentication_tag": HEXLOWER.encode(&record.tag),
                    "encrypted_key": HEXLOWER.encode(&record.encrypted_key),
                })).collect::<Vec<_>>(),
                "valid": validity.is_ok(),
                "error": validity.err().map(|error| error.to_string()),
            })
        })
        .collect();
    let active = scan.active();
    json!({
        "headers": headers,
        "active_header": active.as_ref().ok().map(|slot| slot + 1),
        "error": active.err().map(|error| error.to_string()),
    })
}
