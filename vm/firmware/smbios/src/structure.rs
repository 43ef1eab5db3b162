//! One structure: its formatted area, and the texts after it (DSP0134, 6.1).

use crate::description::MAX_TEXT_LEN;
use crate::error::SmbiosError;

pub(crate) struct Structure {
    bytes: Vec<u8>,
    texts: Vec<String>,
}

impl Structure {
    pub(crate) fn new(kind: u8, handle: u16) -> Self {
        let mut structure = Self {
            // The length follows when it is known.
            bytes: vec![kind, 0],
            texts: Vec::new(),
        };
        structure.word(handle);
        structure
    }

    pub(crate) fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn word(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn dword(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn qword(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, values: &[u8]) {
        self.bytes.extend_from_slice(values);
    }

    /// A reference to a text, which is `field` of the description.
    pub(crate) fn text(&mut self, field: &'static str, text: &str) -> Result<(), SmbiosError> {
        if text.is_empty() {
            self.byte(0);
            return Ok(());
        }
        let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if text.len() > MAX_TEXT_LEN || !printable {
            let text = text.to_owned();
            return Err(SmbiosError::Text { field, text });
        }
        self.texts.push(text.to_owned());
        self.byte(self.texts.len() as u8);
        Ok(())
    }

    /// Appends the structure to `tables`.
    pub(crate) fn finish(mut self, tables: &mut Vec<u8>) {
        self.bytes[1] = self.bytes.len() as u8;
        tables.append(&mut self.bytes);
        for text in &self.texts {
            tables.extend_from_slice(text.as_bytes());
            tables.push(0);
        }
        if self.texts.is_empty() {
            tables.push(0);
        }
        tables.push(0);
    }
}
