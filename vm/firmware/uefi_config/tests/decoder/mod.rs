//! Reads a blob by the rules that the firmware has for it, and fails at what the firmware stops at.

use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) image_pages: u32,
    /// Base, length and flags.
    pub(crate) memory: Vec<(u64, u64, u32)>,
    pub(crate) entropy: Vec<u8>,
    pub(crate) guid: Vec<u8>,
    pub(crate) flags: u64,
    pub(crate) processors: Vec<u32>,
    /// First page and number of pages.
    pub(crate) gaps: Vec<(u64, u64)>,
    pub(crate) strings: BTreeMap<u32, String>,
    pub(crate) processor: Option<Vec<u8>>,
    pub(crate) tables: Vec<Vec<u8>>,
    pub(crate) nvdimms: Option<u16>,
    pub(crate) vpci_instance: Option<Vec<u8>>,
    pub(crate) gic: Option<(u64, u64)>,
    /// Segment, buses, UID, and the start and length of each window.
    pub(crate) apertures: Vec<(u16, [u8; 2], u32, [u64; 4])>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(
        bytes[at..at + 2]
            .try_into()
            .expect("a slice of this length"),
    )
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(
        bytes[at..at + 4]
            .try_into()
            .expect("a slice of this length"),
    )
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(
        bytes[at..at + 8]
            .try_into()
            .expect("a slice of this length"),
    )
}

impl Decoded {
    pub(crate) fn read(blob: &[u8]) -> Self {
        let mut decoded = Self::default();
        let mut seen = Vec::new();
        let (mut at, mut count) = (0, 0);
        while at < blob.len() {
            let (kind, len) = (u32_at(blob, at), u32_at(blob, at + 4) as usize);
            assert!(
                len > 8 && len.is_multiple_of(8),
                "{kind:#x} has {len} bytes"
            );
            let payload = &blob[at + 8..at + len];
            if let Some(fixed) = fixed_len(kind) {
                assert_eq!(len, fixed, "{kind:#x}");
            }
            if at == 0 {
                assert_eq!(kind, 0);
                assert_eq!(u32_at(payload, 4) as usize, blob.len());
            }
            decoded.take(kind, payload);
            seen.push(kind);
            count += 1;
            at += len;
        }
        assert_eq!(u32_at(blob, 8), count);
        assert!(count > 1);
        for required in [0x01, 0x03, 0x04, 0x05, 0x12, 0x13, 0x14] {
            assert!(seen.contains(&required), "{required:#x} is missing");
        }
        decoded
    }

    fn take(&mut self, kind: u32, payload: &[u8]) {
        match kind {
            0x00 => {}
            0x01 => {
                assert_eq!(
                    u32_at(payload, 4),
                    0,
                    "memory-map entries are the long ones"
                );
                self.image_pages = u32_at(payload, 0);
            }
            0x03 => {
                assert_eq!(payload.len() % 24, 0);
                let entries = payload.chunks(24);
                self.memory = entries
                    .map(|e| {
                        assert_eq!(u32_at(e, 20), 0);
                        (u64_at(e, 0), u64_at(e, 8), u32_at(e, 16))
                    })
                    .collect();
            }
            0x04 => self.entropy = payload.to_vec(),
            0x05 => self.guid = payload.to_vec(),
            0x0b => self.processor = Some(payload.to_vec()),
            0x12 => self.flags = u64_at(payload, 0),
            0x13 => self.processors = (0..4).map(|n| u32_at(payload, 4 * n)).collect(),
            0x14 => {
                self.gaps = (0..2)
                    .map(|n| (u64_at(payload, 16 * n), u64_at(payload, 16 * n + 8)))
                    .collect();
            }
            0x16 => {
                let len = u32_at(payload, 4) as usize;
                assert!(payload[len..].len() < 8 && payload[len..].iter().all(|b| *b == 0));
                self.tables.push(payload[..len].to_vec());
            }
            0x17 => {
                assert_eq!(payload[2..], [0; 6]);
                self.nvdimms = Some(u16_at(payload, 0));
            }
            0x19 => self.vpci_instance = Some(payload.to_vec()),
            0x23 => self.gic = Some((u64_at(payload, 0), u64_at(payload, 8))),
            0x28 => {
                assert!(!payload.is_empty() && payload.len().is_multiple_of(40));
                self.apertures = payload
                    .chunks(40)
                    .map(|a| {
                        let windows = std::array::from_fn(|n| u64_at(a, 8 + 8 * n));
                        (u16_at(a, 0), [a[2], a[3]], u32_at(a, 4), windows)
                    })
                    .collect();
            }
            0x06..=0x0a | 0x0c..=0x11 | 0x1a..=0x1f => {
                let end = payload.iter().position(|byte| *byte == 0);
                let text = &payload[..end.expect("a string ends with NUL")];
                let text = String::from_utf8(text.to_vec()).expect("a string is ASCII");
                assert!(self.strings.insert(kind, text).is_none());
            }
            kind => panic!("type {kind:#x}"),
        }
    }
}

/// The length of the structures that have only one.
fn fixed_len(kind: u32) -> Option<usize> {
    Some(match kind {
        0x00 | 0x01 | 0x12 | 0x17 => 16,
        0x04 => 72,
        0x05 | 0x13 | 0x19 | 0x23 => 24,
        0x0b => 32,
        0x14 => 40,
        _ => return None,
    })
}
