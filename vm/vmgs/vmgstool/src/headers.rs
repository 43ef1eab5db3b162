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

fn rows(header: &Header) -> Vec<(&'static str, String)> {
    let version = header.version.get().to_le_bytes();
    let mut rows = vec![
        (
            "Signature",
            format!("{:#018x}", u64::from_le_bytes(header.signature)),
        ),
        ("Version", format!("{}.{}", version[2], version[0])),
        ("Checksum", format!("{:x}", header.checksum)),
        ("Sequence", header.sequence.to_string()),
        ("HeaderSize", header.header_size.to_string()),
        (
            "FileTableOffset",
            format!("{:#010x}", header.file_table_offset),
        ),
        ("FileTableSize", header.file_table_size.to_string()),
        (
            "EncryptionAlgorithm",
            format!("{:#06x}", header.encryption_algorithm),
        ),
        ("Markers", format!("{:#06x}", header.markers)),
    ];
    for (title, record) in ["MetadataKey1", "MetadataKey2"]
        .into_iter()
        .zip(&header.metadata_keys)
    {
        rows.push((title, String::new()));
        rows.extend(record_rows(record));
    }
    rows.push(("Reserved", format!("0x{:#x}", header.reserved)));
    // Scripts expect the doubled prefix.
    if let Some(row) = rows
        .iter_mut()
        .rev()
        .filter(|row| row.0 == "Reserved")
        .nth(1)
    {
        row.1.insert_str(0, "0x");
    }
    rows
}

fn record_rows(record: &MetadataKeyRecord) -> [(&'static str, String); 4] {
    [
        ("Nonce", prefixed(&record.nonce)),
        ("Reserved", format!("{:#x}", record.reserved)),
        ("AuthenticationTag", prefixed(&record.tag)),
        ("EncryptionKey", prefixed(&record.encrypted_key)),
    ]
}

/// Both headers side by side, and which is active.
pub(crate) fn text(scan: &HeaderScan) -> String {
    let mut text = String::from("FILE HEADERS\n");
    let _ = writeln!(text, "{:23} {:>70} {:>70}", "Field", "Header 1", "Header 2");
    let _ = writeln!(
        text,
        "{} {} {}",
        "-".repeat(23),
        "-".repeat(70),
        "-".repeat(70)
    );
    let [first, second] = scan.headers.each_ref().map(rows);
    for ((field, a), (_, b)) in first.into_iter().zip(second) {
        let _ = writeln!(text, "{field:23} {a:>70} {b:>70}");
    }
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
        Err(error) => writeln!(text, "Unable to determine the active header: {error}"),
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
