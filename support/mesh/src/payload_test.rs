use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
struct Inner {
    #[n(1)]
    a: u8,
    #[n(200)]
    b: i64,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
enum Kind {
    #[n(0)]
    Unit,
    #[n(1)]
    #[cbor(map)]
    Tuple(#[n(1)] u16, #[n(2)] String),
    #[n(2)]
    #[cbor(map)]
    Struct {
        #[n(1)]
        inner: Inner,
    },
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
struct Message {
    #[n(1)]
    number: u64,
    #[n(2)]
    inner: Inner,
    #[n(3)]
    optional: Option<Inner>,
    #[cbor(n(4), with = "minicbor::bytes")]
    bytes: Vec<u8>,
    #[n(5)]
    list: Vec<Inner>,
    #[n(6)]
    kind: Kind,
    #[n(7)]
    text: String,
    #[n(8)]
    map: BTreeMap<u32, bool>,
    #[cbor(n(9), with = "minicbor::bytes")]
    array: [u8; 16],
    #[cbor(n(1000), default)]
    late: u32,
}

fn sample() -> Message {
    Message {
        number: u64::MAX,
        inner: Inner { a: 1, b: -2 },
        optional: Some(Inner { a: 3, b: i64::MIN }),
        bytes: vec![0xff; 300],
        list: vec![Inner { a: 4, b: 5 }, Inner { a: 6, b: 7 }],
        kind: Kind::Struct {
            inner: Inner { a: 8, b: 9 },
        },
        text: "text".into(),
        map: BTreeMap::from([(1, true), (70000, false)]),
        array: [7; 16],
        late: 12,
    }
}

#[test]
fn the_encoding_is_a_map_of_numbers() {
    assert_eq!(
        encode(&Inner { a: 1, b: -2 }),
        [0xa2, 0x01, 0x01, 0x18, 200, 0x21]
    );
}

#[test]
fn fields_may_come_in_any_order_and_the_last_of_a_number_counts() {
    assert_eq!(
        decode::<Inner>(&[0xa3, 0x18, 200, 0x21, 0x01, 0x07, 0x01, 0x01]),
        Ok(Inner { a: 1, b: -2 })
    );
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
struct Newer {
    #[n(0)]
    before: Vec<Message>,
    #[n(1)]
    a: u8,
    #[n(17)]
    nothing: (),
    #[n(18)]
    float: f64,
    #[n(199)]
    message: Message,
    #[n(200)]
    b: i64,
    #[n(70000)]
    after: Option<String>,
}

#[test]
fn unknown_fields_are_skipped_whatever_they_hold() {
    let newer = Newer {
        before: vec![sample(), sample()],
        a: 1,
        nothing: (),
        float: 1.5,
        message: sample(),
        b: -2,
        after: Some("after".into()),
    };
    let bytes = encode(&newer);
    assert_eq!(decode::<Inner>(&bytes), Ok(Inner { a: 1, b: -2 }));
    assert_eq!(decode::<Newer>(&bytes), Ok(newer));
}

#[test]
fn a_missing_required_field_is_named_by_its_number() {
    #[derive(Encode)]
    #[cbor(map)]
    struct Partial {
        #[n(1)]
        a: Option<u8>,
        #[n(200)]
        b: Option<i64>,
    }
    let decode_partial = |a, b| decode::<Inner>(&encode(&Partial { a, b }));
    assert_eq!(
        decode_partial(None, Some(1)),
        Err(DecodeError::MissingField { field: 1 })
    );
    assert_eq!(
        decode_partial(Some(1), None),
        Err(DecodeError::MissingField { field: 200 })
    );
    assert_eq!(
        decode::<Inner>(&[0xa0]),
        Err(DecodeError::MissingField { field: 1 })
    );
}

#[test]
fn a_field_missing_inside_a_field_is_named_too() {
    #[derive(Debug, PartialEq, Encode, Decode)]
    #[cbor(map)]
    struct Outer {
        #[n(5)]
        inner: Inner,
    }
    // {5: {1: 1}}
    assert_eq!(
        decode::<Outer>(&[0xa1, 0x05, 0xa1, 0x01, 0x01]),
        Err(DecodeError::MissingField { field: 200 })
    );
    // In an enum's variant: [2, {}].
    assert_eq!(
        decode::<Kind>(&[0x82, 0x02, 0xa0]),
        Err(DecodeError::MissingField { field: 1 })
    );
}

#[test]
fn the_decoder_reports_missing_values_in_the_text_we_read() {
    // With and without a name and a position, each of which may contain digits.
    let missing = minicbor::decode::Error::missing_value;
    for error in [
        missing(42),
        missing(42).at(17),
        missing(42).with_message("State2::field3"),
        missing(42).with_message("State2::field3").at(17),
    ] {
        let text = error.to_string();
        assert_eq!(
            DecodeError::from(error),
            DecodeError::MissingField { field: 42 },
            "{text}"
        );
    }
    assert_eq!(
        DecodeError::from(missing(i64::MAX)),
        DecodeError::MissingField {
            field: i64::MAX as u64
        }
    );
    assert!(matches!(
        DecodeError::from(missing(-1)),
        DecodeError::Malformed(_)
    ));
}

#[test]
fn absent_options_and_defaults() {
    let message = Message {
        optional: None,
        ..sample()
    };
    let bytes = encode(&message);
    assert_eq!(decode::<Message>(&bytes), Ok(message));

    #[derive(Debug, PartialEq, Encode, Decode)]
    #[cbor(map)]
    struct Lenient {
        #[n(1)]
        a: Option<u8>,
        #[cbor(n(2), default)]
        b: u8,
    }
    assert_eq!(encode(&Lenient { a: None, b: 0 })[0], 0xa1);
    assert_eq!(decode(&[0xa0]), Ok(Lenient { a: None, b: 0 }));
    // Null reads as None.
    assert_eq!(decode(&[0xa1, 0x01, 0xf6]), Ok(Lenient { a: None, b: 0 }));
}

#[test]
fn every_truncation_is_told_apart() {
    let bytes = encode(&sample());
    for len in 0..bytes.len() {
        assert_eq!(
            decode::<Message>(&bytes[..len]),
            Err(DecodeError::Truncated),
            "{len}"
        );
    }
}

#[test]
fn trailing_bytes_are_counted() {
    let mut bytes = encode(&sample());
    bytes.extend([0; 3]);
    assert_eq!(
        decode::<Message>(&bytes),
        Err(DecodeError::TrailingBytes { count: 3 })
    );
}

#[test]
fn wrong_types_and_ranges_are_malformed() {
    for bytes in [
        // Not a map; a text where a number belongs; 256 in a u8; an unknown variant.
        &[0x82, 0x01, 0x01][..],
        &[0xa2, 0x01, 0x61, b'1', 0x18, 200, 0x00],
        &[0xa2, 0x01, 0x19, 0x01, 0x00, 0x18, 200, 0x00],
        &[0xf6],
    ] {
        assert!(
            matches!(decode::<Inner>(bytes), Err(DecodeError::Malformed(_))),
            "{bytes:02x?}"
        );
    }
    assert!(matches!(
        decode::<Kind>(&[0x82, 0x09, 0x80]),
        Err(DecodeError::Malformed(_))
    ));
    // Text that is not UTF-8.
    assert!(matches!(
        decode::<String>(&[0x61, 0xff]),
        Err(DecodeError::Malformed(_))
    ));
}

#[test]
fn an_unknown_variant_in_an_option_reads_as_none() {
    #[derive(Debug, PartialEq, Decode)]
    #[cbor(map)]
    struct Optional {
        #[n(1)]
        kind: Option<Kind>,
        #[n(2)]
        after: u8,
    }
    // {1: [9, {1: 5}], 2: 3}
    assert_eq!(
        decode(&[0xa2, 0x01, 0x82, 0x09, 0xa1, 0x01, 0x05, 0x02, 0x03]),
        Ok(Optional {
            kind: None,
            after: 3
        })
    );
}

#[test]
fn an_unknown_index_only_variant_in_an_option_is_refused() {
    #[derive(Debug, PartialEq, Decode)]
    #[cbor(index_only)]
    enum Index {
        #[n(0)]
        Zero,
    }
    #[derive(Debug, PartialEq, Decode)]
    #[cbor(map)]
    struct Optional {
        #[n(1)]
        index: Option<Index>,
        #[n(2)]
        after: u8,
    }
    assert_eq!(
        decode(&[0xa2, 0x01, 0x00, 0x02, 0x03]),
        Ok(Optional {
            index: Some(Index::Zero),
            after: 3
        })
    );
    assert!(matches!(
        decode::<Optional>(&[0xa2, 0x01, 0x09, 0x02, 0x03]),
        Err(DecodeError::Malformed(_))
    ));
}

#[test]
fn claimed_lengths_do_not_allocate() {
    // 2^60 elements or bytes, of which none is there. Were they believed, this would abort.
    for major in [0x5b, 0x7b, 0x9b, 0xbb] {
        let mut bytes = vec![major, 0x10];
        bytes.extend([0; 7]);
        assert_eq!(decode::<Vec<u64>>(&bytes), Err(DecodeError::Truncated));
        assert_eq!(decode::<String>(&bytes), Err(DecodeError::Truncated));
        assert_eq!(
            decode::<minicbor::bytes::ByteVec>(&bytes),
            Err(DecodeError::Truncated)
        );
        assert_eq!(
            decode::<BTreeMap<u8, u8>>(&bytes),
            Err(DecodeError::Truncated)
        );
        // In a field that is skipped.
        assert_eq!(
            decode::<Inner>(&[&[0xa1, 0x09][..], &bytes].concat()),
            Err(DecodeError::Truncated)
        );
    }
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct Recursive {
    #[n(1)]
    next: Option<Box<Recursive>>,
}

#[test]
fn recursive_messages_end() {
    let nested = |depth: usize| {
        (1..depth).fold(Recursive { next: None }, |next, _| Recursive {
            next: Some(Box::new(next)),
        })
    };
    // The innermost is an empty map, which nests nothing.
    assert!(decode::<Recursive>(&encode(&nested(MAX_DEPTH + 1))).is_ok());
    assert!(matches!(
        decode::<Recursive>(&encode(&nested(MAX_DEPTH + 2))),
        Err(DecodeError::TooDeep)
    ));
    let hostile = [0xa1, 0x01].repeat(1 << 20);
    assert!(matches!(
        decode::<Recursive>(&hostile),
        Err(DecodeError::TooDeep)
    ));
}

fn inner() -> impl Strategy<Value = Inner> {
    (any::<u8>(), any::<i64>()).prop_map(|(a, b)| Inner { a, b })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Unit),
        (any::<u16>(), any::<String>()).prop_map(|(n, s)| Kind::Tuple(n, s)),
        inner().prop_map(|inner| Kind::Struct { inner }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    (
        (any::<u64>(), inner(), proptest::option::of(inner())),
        proptest::collection::vec(any::<u8>(), 0..300),
        proptest::collection::vec(inner(), 0..4),
        kind(),
        any::<String>(),
        proptest::collection::btree_map(any::<u32>(), any::<bool>(), 0..4),
        any::<[u8; 16]>(),
        any::<u32>(),
    )
        .prop_map(
            |((number, inner, optional), bytes, list, kind, text, map, array, late)| Message {
                number,
                inner,
                optional,
                bytes,
                list,
                kind,
                text,
                map,
                array,
                late,
            },
        )
}

proptest! {
    #[test]
    fn messages_round_trip(message in message()) {
        prop_assert_eq!(decode::<Message>(&encode(&message)), Ok(message));
    }

    #[test]
    fn what_decodes_from_anything_encodes_to_the_same_value(
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        if let Ok(kind) = decode::<Kind>(&bytes) {
            prop_assert_eq!(decode::<Kind>(&encode(&kind)), Ok(kind));
        }
    }

    #[test]
    fn a_damaged_message_is_an_error_or_another_message(
        message in message(),
        index in any::<prop::sample::Index>(),
        bit in 0..8u32,
    ) {
        let mut bytes = encode(&message);
        let index = index.index(bytes.len());
        bytes[index] ^= 1u8 << bit;
        if let Ok(message) = decode::<Message>(&bytes) {
            prop_assert_eq!(decode::<Message>(&encode(&message)), Ok(message));
        }
    }
}
