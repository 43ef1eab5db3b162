use super::*;
use proptest::prelude::*;

fn unit(name: &str, state: &[u8]) -> SavedUnit {
    SavedUnit {
        name: name.to_owned(),
        state: SavedState::from_bytes(state.to_vec()),
    }
}

#[test]
fn encodes_as_a_map_with_numbered_fields() {
    let saved = SavedUnits::new(vec![unit("pit", &[1, 2])]);
    let bytes = saved.encode();
    // {1: [{1: "pit", 2: h'0102'}]}
    assert_eq!(
        bytes,
        [
            0xa1, 0x01, 0x81, 0xa2, 0x01, 0x63, b'p', b'i', b't', 0x02, 0x42, 1, 2
        ]
    );
    let decoded = SavedUnits::decode(&bytes).unwrap();
    assert_eq!(decoded, saved);
    assert_eq!(decoded.get("pit").unwrap().as_bytes(), [1, 2]);
    assert_eq!(decoded.get("pic"), None);
}

#[test]
fn unknown_fields_are_skipped_and_missing_ones_are_errors() {
    // {1: [{1: "a", 2: h'', 3: 0}], 2: []}
    let newer = [
        0xa2, 0x01, 0x81, 0xa3, 0x01, 0x61, b'a', 0x02, 0x40, 0x03, 0x00, 0x02, 0x80,
    ];
    assert_eq!(
        SavedUnits::decode(&newer).unwrap().units(),
        [unit("a", &[])]
    );
    for (bytes, field) in [
        (&[0xa0][..], 1),
        (&[0xa1, 0x01, 0x81, 0xa1, 0x01, 0x61, b'a'], 2),
    ] {
        assert_eq!(
            SavedUnits::decode(bytes),
            Err(DecodeUnitsError::Decode(DecodeError::MissingField {
                field
            }))
        );
    }
}

#[test]
fn lengths_and_counts_are_limited() {
    let long = "n".repeat(MAX_NAME_LEN + 1);
    for name in ["", &long] {
        assert_eq!(
            SavedUnits::decode(&SavedUnits::new(vec![unit("a", &[]), unit(name, &[])]).encode()),
            Err(DecodeUnitsError::NameLength {
                index: 1,
                len: name.len()
            })
        );
    }
    let count = |count| SavedUnits::new(vec![unit("a", &[]); count]).encode();
    assert!(SavedUnits::decode(&count(MAX_UNITS)).is_ok());
    assert_eq!(
        SavedUnits::decode(&count(MAX_UNITS + 1)),
        Err(DecodeUnitsError::TooManyUnits {
            count: MAX_UNITS + 1
        })
    );
    // Zeroed pages, which are never accessed.
    let len = MAX_ENCODED_LEN + 1;
    assert_eq!(
        SavedUnits::decode(&vec![0; len]),
        Err(DecodeUnitsError::TooLong { len })
    );
}

proptest! {
    #[test]
    fn round_trip(
        units in proptest::collection::vec(
            ("\\PC{1,20}", proptest::collection::vec(any::<u8>(), 0..100)),
            0..8,
        ),
    ) {
        let units = units.iter().map(|(name, state)| unit(name, state)).collect();
        let saved = SavedUnits::new(units);
        prop_assert_eq!(SavedUnits::decode(&saved.encode()), Ok(saved));
    }
}
