use super::*;
use crate::guid::GLOBAL_VARIABLE;
use proptest::prelude::*;

fn key(name: &str) -> VariableKey {
    VariableKey {
        vendor: GLOBAL_VARIABLE,
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
fn an_entry_has_the_known_layout() {
    let mut variables = Variables::new();
    variables.set(key("BootOrder"), with_data(4)).unwrap();
    let bytes = variables.encode();
    assert_eq!(bytes.len(), 72);
    assert_eq!(bytes[..12], [0, 0, 0, 0, 72, 0, 0, 0, 7, 0, 0, 0]);
    assert_eq!(
        bytes[28..36],
        [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11]
    );
    assert_eq!(bytes[36..44], [0xaa, 0x0d, 0, 0xe0, 0x98, 0x03, 0x2b, 0x8c]);
    assert_eq!(bytes[44..50], [20, 0, 4, 0, b'B', 0]);
}

#[test]
fn maximum_lengths_are_enforced() {
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
    assert!(variables.set(key("d"), with_data(left + 1)).is_err());
    // Replacing a variable needs no room beside the old one.
    variables.set(key("a"), with_data(MAX_DATA_LEN)).unwrap();
    let bytes = variables.encode();
    assert_eq!(bytes.len(), MAX_TOTAL_LEN);
    assert_eq!(Variables::decode(&bytes, NameQuirk::Refuse), Ok(variables));
    let longer = [bytes, vec![0]].concat();
    assert!(matches!(
        Variables::decode(&longer, NameQuirk::Refuse),
        Err(VariablesDecodeError::TooLong(_))
    ));
}

#[test]
fn each_malformation_has_its_error() {
    let mut variables = Variables::new();
    variables.set(key("ab"), with_data(3)).unwrap();
    let good = variables.encode();
    let decode = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        Variables::decode(&bytes, NameQuirk::Refuse).unwrap_err()
    };
    assert_eq!(
        decode(&|b| b[0] = 1),
        VariablesDecodeError::Kind { at: 0, kind: 1 }
    );
    assert_eq!(
        decode(&|b| b.truncate(50)),
        VariablesDecodeError::Truncated(0)
    );
    assert_eq!(decode(&|b| b[4] = 47), VariablesDecodeError::Lengths(0));
    assert_eq!(decode(&|b| b[4] = 0), VariablesDecodeError::Lengths(0));
    assert_eq!(decode(&|b| b[46] = 2), VariablesDecodeError::Lengths(0));
    assert_eq!(
        decode(&|b| b.push(0)),
        VariablesDecodeError::Excess { at: 57, len: 1 }
    );
    assert_eq!(decode(&|b| b[52] = 1), VariablesDecodeError::Name(0));
    let mut bytes = good.clone();
    bytes[52] = 1;
    bytes.extend_from_slice(&good);
    assert_eq!(Variables::decode(&bytes, NameQuirk::Skip), Ok(variables));
}

#[test]
fn the_last_of_duplicate_variables_counts() {
    let mut first = Variables::new();
    first.set(key("a"), with_data(3)).unwrap();
    let mut second = Variables::new();
    second.set(key("a"), with_data(9)).unwrap();
    let both = [first.encode(), second.encode()].concat();
    assert_eq!(Variables::decode(&both, NameQuirk::Refuse), Ok(second));
}

#[test]
fn variables_are_iterated_in_order_and_removed() {
    let mut variables = Variables::new();
    for name in ["b", "a", "aa"] {
        variables.set(key(name), with_data(0)).unwrap();
    }
    let names: Vec<_> = variables
        .iter()
        .map(|(key, _)| key.name.to_string())
        .collect();
    assert_eq!(names, ["a", "aa", "b"]);
    let after = |name| {
        variables
            .after(&key(name))
            .map(|(key, _)| key.name.to_string())
    };
    assert_eq!(after("a").collect::<Vec<_>>(), ["aa", "b"]);
    assert_eq!(after("ab").collect::<Vec<_>>(), ["b"]);
    assert_eq!(after("b").count(), 0);
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
            let key = VariableKey { vendor: Uuid::from_u128(vendor), name: Name::new(&name).unwrap() };
            let variable = Variable { attributes, data, ..Variable::default() };
            variables.set(key, variable).unwrap();
        }
        let bytes = variables.encode();
        prop_assert_eq!(bytes.len(), variables.encoded_len());
        prop_assert_eq!(Variables::decode(&bytes, NameQuirk::Refuse), Ok(variables));
    }
}
