//! The set of variables, and its encoding in the file.

use crate::name::Name;
use std::collections::BTreeMap;
use std::ops::Bound;
use uefi_specs::EfiTime;
use uuid::Uuid;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U16;
use zerocopy::little_endian::U32;

/// Maximum length of a name in bytes, including the NUL.
pub const MAX_NAME_LEN: usize = 2048;
/// Maximum length of a variable's data in bytes.
pub const MAX_DATA_LEN: usize = 32 << 10;
/// Maximum length of the file in bytes.
pub const MAX_TOTAL_LEN: usize = 128 << 10;

/// The header of an entry, followed by the variable's name and data.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct EntryHeader {
    /// 0: a variable.
    kind: U32,
    /// Length of the entry in bytes, including this header.
    len: U32,
    attributes: U32,
    timestamp: EfiTime,
    vendor: [u8; 16],
    name_len: U16,
    data_len: U16,
}

const HEADER_LEN: usize = size_of::<EntryHeader>();

/// What to do with a variable whose name is malformed (of odd length, or without NUL). Some firmware
/// wrote such variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameQuirk {
    /// Reject the file.
    Refuse,
    /// Leave the variable out.
    Skip,
}

/// Why the file cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VariablesDecodeError {
    /// The file is longer than [`MAX_TOTAL_LEN`].
    #[error("the file has {0} bytes, more than the maximum of {MAX_TOTAL_LEN}")]
    TooLong(usize),
    /// The last entry ends after the file does.
    #[error("the entry at byte {0} is truncated")]
    Truncated(usize),
    /// The last entry is followed by too few bytes for another.
    #[error("{len} excess bytes at byte {at}")]
    Excess {
        /// Offset of the excess bytes.
        at: usize,
        /// Number of excess bytes.
        len: usize,
    },
    /// The entry is not a variable.
    #[error("the entry at byte {at} is of unknown type {kind}")]
    Kind {
        /// Offset of the entry.
        at: usize,
        /// The unknown type.
        kind: u32,
    },
    /// The entry's lengths contradict each other, or exceed their limits.
    #[error("the entry at byte {0} has invalid lengths")]
    Lengths(usize),
    /// The entry's name has an odd length, or no NUL.
    #[error("the entry at byte {0} has a malformed name")]
    Name(usize),
}

/// Why a variable cannot be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// The name has more than [`MAX_NAME_LEN`] bytes.
    #[error("the name has {0} bytes, more than the maximum of {MAX_NAME_LEN}")]
    NameTooLong(usize),
    /// The data has more than [`MAX_DATA_LEN`] bytes.
    #[error("the data has {0} bytes, more than the maximum of {MAX_DATA_LEN}")]
    DataTooLong(usize),
    /// All variables together would have more than [`MAX_TOTAL_LEN`] bytes.
    #[error("all variables would have {0} bytes, more than the maximum of {MAX_TOTAL_LEN}")]
    OutOfSpace(usize),
}

/// The identity of a variable. Variables are ordered by it in the file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VariableKey {
    /// The namespace of the name.
    pub vendor: Uuid,
    /// The name, unique for its vendor.
    pub name: Name,
}

/// The value of a variable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variable {
    /// `EFI_VARIABLE_*` bits; not interpreted here.
    pub attributes: u32,
    /// The timestamp of time-based authenticated variables; zero for others.
    pub timestamp: EfiTime,
    /// The data.
    pub data: Vec<u8>,
}

/// All variables, at most as many as fit the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variables {
    variables: BTreeMap<VariableKey, Variable>,
    /// Length of the encoded file in bytes.
    encoded_len: usize,
}

fn entry_len(key: &VariableKey, data_len: usize) -> usize {
    HEADER_LEN + key.name.as_bytes().len() + data_len
}

impl Variables {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes the file. If a variable occurs more than once, the last one counts.
    pub fn decode(bytes: &[u8], quirk: NameQuirk) -> Result<Self, VariablesDecodeError> {
        if bytes.len() > MAX_TOTAL_LEN {
            return Err(VariablesDecodeError::TooLong(bytes.len()));
        }
        let mut variables = Self::new();
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let Some((prefix, _)) = rest.split_first_chunk::<8>() else {
                return Err(VariablesDecodeError::Excess {
                    at,
                    len: rest.len(),
                });
            };
            let word = |n: usize| {
                u32::from_le_bytes([prefix[n], prefix[n + 1], prefix[n + 2], prefix[n + 3]])
            };
            let (kind, len) = (word(0), word(4) as usize);
            if len > rest.len() {
                return Err(VariablesDecodeError::Truncated(at));
            }
            if kind != 0 {
                return Err(VariablesDecodeError::Kind { at, kind });
            }
            let (header, body) = EntryHeader::read_from_prefix(&rest[..len])
                .map_err(|_| VariablesDecodeError::Lengths(at))?;
            let name_len = usize::from(header.name_len.get());
            let data_len = usize::from(header.data_len.get());
            if name_len + data_len != body.len()
                || name_len > MAX_NAME_LEN
                || data_len > MAX_DATA_LEN
            {
                return Err(VariablesDecodeError::Lengths(at));
            }
            let (name, data) = body.split_at(name_len);
            match (Name::from_bytes(name), quirk) {
                (Some(name), _) => {
                    let key = VariableKey {
                        vendor: Uuid::from_bytes_le(header.vendor),
                        name,
                    };
                    let variable = Variable {
                        attributes: header.attributes.get(),
                        timestamp: header.timestamp,
                        data: data.to_vec(),
                    };
                    variables.insert(key, variable);
                }
                (None, NameQuirk::Skip) => {}
                (None, NameQuirk::Refuse) => return Err(VariablesDecodeError::Name(at)),
            }
            at += len;
        }
        Ok(variables)
    }

    /// Encodes the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_len);
        for (key, variable) in &self.variables {
            let name = key.name.as_bytes();
            let header = EntryHeader {
                kind: 0.into(),
                // The maximum lengths fit the types of all three lengths.
                len: (entry_len(key, variable.data.len()) as u32).into(),
                attributes: variable.attributes.into(),
                timestamp: variable.timestamp,
                vendor: key.vendor.to_bytes_le(),
                name_len: (name.len() as u16).into(),
                data_len: (variable.data.len() as u16).into(),
            };
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(&variable.data);
        }
        bytes
    }

    /// Length of the encoded file in bytes.
    pub fn encoded_len(&self) -> usize {
        self.encoded_len
    }

    /// Number of variables.
    pub fn len(&self) -> usize {
        self.variables.len()
    }

    /// Whether there are no variables.
    pub fn is_empty(&self) -> bool {
        self.variables.is_empty()
    }

    /// All variables, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&VariableKey, &Variable)> {
        self.variables.iter()
    }

    /// The variables after this key, in the order of the file. The key need not be one of a variable.
    pub fn after<'a>(
        &'a self,
        key: &VariableKey,
    ) -> impl Iterator<Item = (&'a VariableKey, &'a Variable)> + use<'a> {
        let bounds = (Bound::Excluded(key), Bound::Unbounded);
        self.variables.range::<VariableKey, _>(bounds)
    }

    /// The variable with this key.
    pub fn get(&self, key: &VariableKey) -> Option<&Variable> {
        self.variables.get(key)
    }

    fn insert(&mut self, key: VariableKey, variable: Variable) {
        let len = entry_len(&key, variable.data.len());
        if let Some(old) = self.variables.get(&key) {
            self.encoded_len -= entry_len(&key, old.data.len());
        }
        self.encoded_len += len;
        self.variables.insert(key, variable);
    }

    /// Adds or replaces a variable.
    pub fn set(&mut self, key: VariableKey, variable: Variable) -> Result<(), SetError> {
        let name_len = key.name.as_bytes().len();
        if name_len > MAX_NAME_LEN {
            return Err(SetError::NameTooLong(name_len));
        }
        let data_len = variable.data.len();
        if data_len > MAX_DATA_LEN {
            return Err(SetError::DataTooLong(data_len));
        }
        let old = self.get(&key).map_or(0, |v| entry_len(&key, v.data.len()));
        let total = self.encoded_len - old + entry_len(&key, data_len);
        if total > MAX_TOTAL_LEN {
            return Err(SetError::OutOfSpace(total));
        }
        self.insert(key, variable);
        Ok(())
    }

    /// Removes and returns a variable.
    pub fn remove(&mut self, key: &VariableKey) -> Option<Variable> {
        let variable = self.variables.remove(key)?;
        self.encoded_len -= entry_len(key, variable.data.len());
        Some(variable)
    }
}

#[cfg(test)]
#[path = "variables_test.rs"]
mod tests;
