//! All variables, and the file they are kept in.

use crate::guid::Guid;
use crate::name::Name;
use crate::time::EfiTime;
use std::collections::BTreeMap;
use std::ops::Bound;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U16;
use zerocopy::little_endian::U32;

/// The most bytes of a name, with its NUL.
pub const MAX_NAME_LEN: usize = 2048;
/// The most bytes of a variable's data.
pub const MAX_DATA_LEN: usize = 32 << 10;
/// The most bytes of the file.
pub const MAX_TOTAL_LEN: usize = 128 << 10;

/// What precedes name and data of a variable.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct EntryHeader {
    /// 0: a variable.
    kind: U32,
    /// Bytes of the entry, this header among them.
    len: U32,
    attributes: U32,
    timestamp: EfiTime,
    vendor: [u8; 16],
    name_len: U16,
    data_len: U16,
}

const HEADER_LEN: usize = size_of::<EntryHeader>();

/// What to do with a variable whose name is no string (of odd length, or without NUL), as some
/// writers left them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameQuirk {
    /// The file is invalid.
    Refuse,
    /// The variable is left out.
    Skip,
}

/// Why bytes are not a file of variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than the file can have.
    #[error("{0} bytes are more than the {MAX_TOTAL_LEN} that variables can have")]
    TooLong(usize),
    /// The last entry is cut off.
    #[error("the entry at byte {0} is cut off")]
    Truncated(usize),
    /// Too few bytes for an entry follow the last.
    #[error("{len} bytes at byte {at} are left over")]
    Excess {
        /// Where.
        at: usize,
        /// How many.
        len: usize,
    },
    /// The entry is not a variable.
    #[error("the entry at byte {at} is of unknown type {kind}")]
    Kind {
        /// Where.
        at: usize,
        /// The type.
        kind: u32,
    },
    /// The entry's lengths contradict each other, or its limits.
    #[error("the lengths of the entry at byte {0} are wrong")]
    Lengths(usize),
    /// The entry's name is no string.
    #[error("the name in the entry at byte {0} is no string")]
    Name(usize),
}

/// Why a variable cannot be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// The name has more than [`MAX_NAME_LEN`] bytes.
    #[error("the name has {0} bytes, more than {MAX_NAME_LEN}")]
    NameTooLong(usize),
    /// The data has more than [`MAX_DATA_LEN`] bytes.
    #[error("the data has {0} bytes, more than {MAX_DATA_LEN}")]
    DataTooLong(usize),
    /// All variables together would have more than [`MAX_TOTAL_LEN`] bytes.
    #[error("all variables would have {0} bytes, more than {MAX_TOTAL_LEN}")]
    OutOfSpace(usize),
    /// There is no such variable to append to.
    #[error("there is no such variable")]
    NotFound,
}

/// What identifies a variable. The order is that of the file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VariableKey {
    /// Whose variable it is.
    pub vendor: Guid,
    /// Its name.
    pub name: Name,
}

/// What a variable has beside its name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variable {
    /// EFI_VARIABLE_* bits; not interpreted here.
    pub attributes: u32,
    /// For time-based authentication; zero otherwise.
    pub timestamp: EfiTime,
    /// The content.
    pub data: Vec<u8>,
}

/// All variables. Never more than the file can hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variables {
    variables: BTreeMap<VariableKey, Variable>,
    /// Bytes of the encoded file.
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

    /// Reads the file. Of several variables with one name, the last counts.
    pub fn decode(bytes: &[u8], quirk: NameQuirk) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_TOTAL_LEN {
            return Err(DecodeError::TooLong(bytes.len()));
        }
        let mut variables = Self::new();
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let Some((prefix, _)) = rest.split_first_chunk::<8>() else {
                return Err(DecodeError::Excess {
                    at,
                    len: rest.len(),
                });
            };
            let word = |n: usize| {
                u32::from_le_bytes([prefix[n], prefix[n + 1], prefix[n + 2], prefix[n + 3]])
            };
            let (kind, len) = (word(0), word(4) as usize);
            if len > rest.len() {
                return Err(DecodeError::Truncated(at));
            }
            if kind != 0 {
                return Err(DecodeError::Kind { at, kind });
            }
            let (header, body) = EntryHeader::read_from_prefix(&rest[..len])
                .map_err(|_| DecodeError::Lengths(at))?;
            let name_len = usize::from(header.name_len.get());
            let data_len = usize::from(header.data_len.get());
            if name_len + data_len != body.len()
                || name_len > MAX_NAME_LEN
                || data_len > MAX_DATA_LEN
            {
                return Err(DecodeError::Lengths(at));
            }
            let (name, data) = body.split_at(name_len);
            match (Name::from_bytes(name), quirk) {
                (Some(name), _) => {
                    let key = VariableKey {
                        vendor: Guid::from_efi(header.vendor),
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
                (None, NameQuirk::Refuse) => return Err(DecodeError::Name(at)),
            }
            at += len;
        }
        Ok(variables)
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_len);
        for (key, variable) in &self.variables {
            let name = key.name.as_bytes();
            let header = EntryHeader {
                kind: 0.into(),
                // The limits keep all three far below the ends of their types.
                len: (entry_len(key, variable.data.len()) as u32).into(),
                attributes: variable.attributes.into(),
                timestamp: variable.timestamp,
                vendor: key.vendor.to_efi(),
                name_len: (name.len() as u16).into(),
                data_len: (variable.data.len() as u16).into(),
            };
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(&variable.data);
        }
        bytes
    }

    /// Bytes of the file.
    pub fn encoded_len(&self) -> usize {
        self.encoded_len
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.variables.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.variables.is_empty()
    }

    /// All of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&VariableKey, &Variable)> {
        self.variables.iter()
    }

    /// The variable, if there is one.
    pub fn get(&self, key: &VariableKey) -> Option<&Variable> {
        self.variables.get(key)
    }

    /// The variable after `key`, or the first.
    pub fn next(&self, key: Option<&VariableKey>) -> Option<(&VariableKey, &Variable)> {
        let after = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.variables
            .range::<VariableKey, _>((after, Bound::Unbounded))
            .next()
    }

    fn insert(&mut self, key: VariableKey, variable: Variable) {
        let len = entry_len(&key, variable.data.len());
        if let Some(old) = self.variables.get(&key) {
            self.encoded_len -= entry_len(&key, old.data.len());
        }
        self.encoded_len += len;
        self.variables.insert(key, variable);
    }

    /// Sets a variable.
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

    /// Appends to a variable's data, and gives it a new timestamp.
    pub fn append(
        &mut self,
        key: &VariableKey,
        data: &[u8],
        timestamp: EfiTime,
    ) -> Result<(), SetError> {
        let old = self.get(key).ok_or(SetError::NotFound)?;
        let len = old.data.len() + data.len();
        if len > MAX_DATA_LEN {
            return Err(SetError::DataTooLong(len));
        }
        let mut variable = old.clone();
        variable.data.extend_from_slice(data);
        variable.timestamp = timestamp;
        self.set(key.clone(), variable)
    }

    /// Removes a variable, and gives it back if there was one.
    pub fn remove(&mut self, key: &VariableKey) -> Option<Variable> {
        let variable = self.variables.remove(key)?;
        self.encoded_len -= entry_len(key, variable.data.len());
        Some(variable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(name: &str) -> VariableKey {
        VariableKey {
            vendor: Guid::GLOBAL_VARIABLE,
            name: Name::new(name).unwrap(),
        }
    }

    fn with_data(len: usize) -> Variable {
        Variable {
            attributes: 7,
            data: vec![0x5a; len],
            ..Variable::default()
        }
    }

    #[test]
    fn boot_order_has_seventy_two_bytes() {
        let mut variables = Variables::new();
        variables.set(key("BootOrder"), with_data(4)).unwrap();
        let bytes = variables.encode();
        assert_eq!(bytes.len(), 72);
        assert_eq!(bytes[..12], [0, 0, 0, 0, 72, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(bytes[44..50], [20, 0, 4, 0, b'B', 0]);
    }

    #[test]
    fn the_limits_can_be_reached_and_not_passed() {
        let mut variables = Variables::new();
        let long = "n".repeat(MAX_NAME_LEN / 2 - 1);
        variables.set(key(&long), with_data(0)).unwrap();
        let longer = key(&(long.clone() + "n"));
        assert_eq!(
            variables.set(longer, with_data(0)),
            Err(SetError::NameTooLong(MAX_NAME_LEN + 2))
        );
        assert_eq!(
            variables.set(key("a"), with_data(MAX_DATA_LEN + 1)),
            Err(SetError::DataTooLong(MAX_DATA_LEN + 1))
        );
        for name in ["a", "b", "c"] {
            variables.set(key(name), with_data(MAX_DATA_LEN)).unwrap();
        }
        let left = MAX_TOTAL_LEN - variables.encoded_len() - HEADER_LEN - 4;
        assert!(variables.set(key("d"), with_data(left + 1)).is_err());
        variables.set(key("d"), with_data(left)).unwrap();
        assert_eq!(variables.encoded_len(), MAX_TOTAL_LEN);
        assert!(
            variables
                .append(&key("d"), b"x", EfiTime::default())
                .is_err()
        );
        // Replacing needs no room beside the old.
        variables.set(key("a"), with_data(MAX_DATA_LEN)).unwrap();
        let bytes = variables.encode();
        assert_eq!(bytes.len(), MAX_TOTAL_LEN);
        assert_eq!(Variables::decode(&bytes, NameQuirk::Refuse), Ok(variables));
        let longer = [bytes, vec![0]].concat();
        assert!(matches!(
            Variables::decode(&longer, NameQuirk::Refuse),
            Err(DecodeError::TooLong(_))
        ));
    }

    #[test]
    fn each_fault_has_its_error() {
        let mut variables = Variables::new();
        variables.set(key("ab"), with_data(3)).unwrap();
        let good = variables.encode();
        let decode = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            Variables::decode(&bytes, NameQuirk::Refuse).unwrap_err()
        };
        assert_eq!(decode(&|b| b[0] = 1), DecodeError::Kind { at: 0, kind: 1 });
        assert_eq!(decode(&|b| b.truncate(50)), DecodeError::Truncated(0));
        assert_eq!(decode(&|b| b[4] = 47), DecodeError::Lengths(0));
        assert_eq!(decode(&|b| b[4] = 0), DecodeError::Lengths(0));
        assert_eq!(decode(&|b| b[46] = 2), DecodeError::Lengths(0));
        assert_eq!(
            decode(&|b| b.push(0)),
            DecodeError::Excess { at: 57, len: 1 }
        );
        assert_eq!(decode(&|b| b[52] = 1), DecodeError::Name(0));
        let mut bytes = good.clone();
        bytes[52] = 1;
        bytes.extend_from_slice(&good);
        assert_eq!(Variables::decode(&bytes, NameQuirk::Skip), Ok(variables));
    }

    #[test]
    fn the_last_of_equals_counts() {
        let mut first = Variables::new();
        first.set(key("a"), with_data(3)).unwrap();
        let mut second = Variables::new();
        second.set(key("a"), with_data(9)).unwrap();
        let both = [first.encode(), second.encode()].concat();
        assert_eq!(Variables::decode(&both, NameQuirk::Refuse), Ok(second));
    }

    #[test]
    fn next_walks_them_in_order() {
        let mut variables = Variables::new();
        for name in ["b", "a", "aa"] {
            variables.set(key(name), with_data(0)).unwrap();
        }
        let mut names = Vec::new();
        let mut at = None;
        while let Some((key, _)) = variables.next(at.as_ref()) {
            names.push(key.name.to_string());
            at = Some(key.clone());
        }
        assert_eq!(names, ["a", "aa", "b"]);
        assert_eq!(variables.remove(&key("aa")), Some(with_data(0)));
        assert_eq!(variables.remove(&key("aa")), None);
        assert_eq!(variables.encoded_len(), variables.encode().len());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Variables::decode(&bytes, NameQuirk::Skip);
        }

        #[test]
        fn variables_round_trip(
            list in proptest::collection::vec(
                (any::<u128>(), "[a-zA-Z0-9é]{0,12}", any::<u32>(), proptest::collection::vec(any::<u8>(), 0..100)),
                0..10,
            ),
        ) {
            let mut variables = Variables::new();
            for (vendor, name, attributes, data) in list {
                let key = VariableKey { vendor: Guid::new(vendor), name: Name::new(&name).unwrap() };
                let variable = Variable { attributes, data, ..Variable::default() };
                variables.set(key, variable).unwrap();
            }
            let bytes = variables.encode();
            prop_assert_eq!(bytes.len(), variables.encoded_len());
            prop_assert_eq!(Variables::decode(&bytes, NameQuirk::Refuse), Ok(variables));
        }
    }
}
