use super::*;
use proptest::prelude::*;

fn option(path: &[u8], optional: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0, 0];
    bytes.extend((path.len() as u16).to_le_bytes());
    bytes.extend(b"O\0S\0\0\0");
    bytes.extend(path);
    bytes.extend(optional);
    bytes
}

#[test]
fn optional_data_of_odd_length_is_kept() {
    let path = [3, 2, 8, 0, 1, 0, 2, 0, 0x7f, 0xff, 4, 0];
    let decoded = LoadOption::decode(&option(&path, b"odd")).unwrap();
    assert_eq!(decoded.description, "OS");
    assert_eq!(decoded.attributes, 1);
    assert_eq!(
        decoded.device_path,
        [DevicePathNode::Scsi { target: 1, lun: 2 }]
    );
    assert_eq!(decoded.optional_data, b"odd");
}

#[test]
fn nodes_of_unknown_type_or_length_are_kept_as_bytes() {
    let path = [3, 2, 7, 0, 1, 0, 2, 9, 9, 4, 0];
    let decoded = LoadOption::decode(&option(&path, b"")).unwrap();
    let texts: Vec<_> = decoded
        .device_path
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(texts, ["Path(3,2,010002)", "Path(9,9,)"]);
}

#[test]
fn acpi_strings_are_in_the_order_of_the_specification() {
    let mut body = vec![0; 12];
    body.extend(b"h\0u\0c\0");
    let DevicePathNode::ExpandedAcpi {
        uid_text, cid_text, ..
    } = DevicePathNode::decode(2, 2, &body)
    else {
        panic!("other node");
    };
    assert_eq!((uid_text.as_str(), cid_text.as_str()), ("u", "c"));
}

#[test]
fn malformed_load_options_are_refused() {
    assert_eq!(LoadOption::decode(&[0; 5]), Err(LoadOptionError::Truncated));
    assert_eq!(
        LoadOption::decode(&[0, 0, 0, 0, 0, 0, b'x', 0]),
        Err(LoadOptionError::Description)
    );
    assert_eq!(
        LoadOption::decode(&option(&[1, 1, 3, 0], b"")),
        Err(LoadOptionError::DevicePath)
    );
    assert_eq!(
        LoadOption::decode(&option(&[1, 1, 5, 0], b"")),
        Err(LoadOptionError::DevicePath)
    );
    let mut long = option(&[], b"");
    long[4] = 1;
    assert_eq!(LoadOption::decode(&long), Err(LoadOptionError::Truncated));
}

#[test]
fn boot_option_names_have_four_hexadecimal_digits() {
    assert_eq!(boot_option_number("Boot000A"), Some(10));
    assert_eq!(boot_option_number("Boot000a"), Some(10));
    for name in ["BootOrder", "Boot1", "Boot+123", "Boot00001", "boot0001"] {
        assert_eq!(boot_option_number(name), None, "{name}");
    }
    assert_eq!(boot_order(&[1, 0, 0, 1]), Some(vec![1, 256]));
    assert_eq!(boot_order(&[1]), None);
}

proptest! {
    #[test]
    fn arbitrary_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        if let Ok(option) = LoadOption::decode(&bytes) {
            for node in option.device_path {
                let _ = node.to_string();
            }
        }
    }
}
